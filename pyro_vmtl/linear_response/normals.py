"""Two handlers of the normal sites of a guide: to read their means, and to change covariances."""

from __future__ import annotations

from typing import Any

import torch
from pyro import distributions as dist
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import (
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
)
from torch.distributions.transforms import ReshapeTransform, Transform

from pyro_vmtl.handlers.program_handler import UNCONSTRAINED, SiteMessenger
from pyro_vmtl.handlers.tracing import is_sample

__all__ = ["AtMeans", "Covariances", "NewCovariances"]


class AtMeans(Messenger):
    """Put every normal site of a guide, and sites that transform a normal, at its mean.

    ``means`` are those of the normals, by site, and ``event_dims`` the numbers of event dimensions.
    Of a point mass, as Pyro's autoguides have it, the mean is that of its auxiliary site.
    """

    def __init__(self) -> None:
        super().__init__()
        self.means: dict[str, Tensor] = {}
        self.event_dims: dict[str, int] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or not is_sample(msg):
            return
        inner, transforms = _base_and_transforms(msg["fn"])
        name = msg["name"].removesuffix(UNCONSTRAINED) if _is_auxiliary(msg) else msg["name"]
        if isinstance(inner, dist.Delta):
            mean, value = self.means.get(name, inner.v), inner.v
        elif isinstance(inner, Normal | MultivariateNormal | LowRankMultivariateNormal):
            mean = value = inner.loc
            for transform in transforms:
                value = transform(value)
        else:
            return
        self.means[name], self.event_dims[name] = mean, len(msg["fn"].event_shape)
        if msg["value"] is None:
            msg["value"], msg["done"] = value, True


class Covariances(nn.Module):
    r"""Means (\*batch, \*event) and Cholesky factors (\*batch, P, P) of sites, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: list[str] = []  # names of buffers must not have dots

    def add(self, site: str, loc: Tensor, root: Tensor) -> None:
        """Set those of a site."""
        self.register_buffer(f"loc_{len(self.sites)}", loc)
        self.register_buffer(f"root_{len(self.sites)}", root)
        self.sites.append(site)

    def __getitem__(self, site: str) -> tuple[Tensor, Tensor]:
        place = self.sites.index(site)
        return self.get_buffer(f"loc_{place}"), self.get_buffer(f"root_{place}")


class NewCovariances(SiteMessenger):
    """Replace normal posteriors of a guide by others that have the same means."""

    def __init__(self, covariances: Covariances) -> None:
        super().__init__(covariances.sites)
        self.covariances = covariances
        self.auxiliary: set[str] = set()

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        name = msg["name"]
        if _is_auxiliary(msg):
            name = name.removesuffix(UNCONSTRAINED)
            self.auxiliary.add(name)
        inner, transforms = _base_and_transforms(msg["fn"])
        is_point = isinstance(inner, dist.Delta)
        if name not in self.covariances.sites or (is_point and name in self.auxiliary):
            return
        loc, root = (v.to(inner.mean) for v in self.covariances[name])
        event = msg["fn"].event_shape
        if event:
            flat = loc.flatten(loc.ndim - len(event))
            normal: Any = dist.MultivariateNormal(flat, scale_tril=root)
            if len(event) > 1:
                transforms = [ReshapeTransform(flat.shape[-1:], event), *transforms]
        else:
            normal = dist.Normal(loc, root[..., 0, 0])
        if transforms:
            normal = dist.TransformedDistribution(normal, transforms)
        msg["fn"] = normal.expand(torch.broadcast_shapes(normal.batch_shape, msg["fn"].batch_shape))


def _is_auxiliary(msg: Any) -> bool:
    """Whether a site is one of those that Pyro's autoguides draw a site of the model from."""
    return bool(msg["infer"].get("is_auxiliary"))


def _base_and_transforms(fn: Any) -> tuple[Any, list[Transform]]:
    """Return the distribution that others reinterpret or transform, and all transforms."""
    transforms: list[Transform] = []
    while isinstance(fn, Independent | TransformedDistribution):
        transforms = [*getattr(fn, "transforms", []), *transforms]
        fn = fn.base_dist
    return fn, transforms
