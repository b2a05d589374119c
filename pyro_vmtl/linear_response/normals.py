"""Two handlers of the normal sites of a guide: to read their means, and to change covariances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro import distributions as dist
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal as LowRankNormal
from torch.distributions import Normal, biject_to
from torch.distributions.transforms import ReshapeTransform

from pyro_vmtl.handlers.program_handler import UNCONSTRAINED, SiteMessenger
from pyro_vmtl.handlers.tracing import is_sample
from pyro_vmtl.sharing.transformed import untransformed

__all__ = ["AtMeans", "NewCovariances", "ShiftMean"]


class AtMeans(Messenger):
    """Put normal sites of a guide, and sites that transform a normal, at their means.

    ``means`` are those of the normals by site, and ``event_dims`` their event dimensions. A point
    mass has the mean of its auxiliary site, as in ``AutoNormal``, or else its value without the
    transform onto the ``supports`` of the model.
    """

    def __init__(self, supports: Mapping[str, Any]) -> None:
        super().__init__()
        self.supports = supports
        self.means: dict[str, Tensor] = {}
        self.event_dims: dict[str, int] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or not is_sample(msg):
            return
        name, inner, transforms = _parts(msg)
        if isinstance(inner, dist.Delta):
            value = inner.v
            if name not in self.means:
                self.means[name] = biject_to(self.supports[name]).inv(value)
        elif isinstance(inner, Normal | dist.MultivariateNormal | LowRankNormal):
            self.means[name] = value = inner.loc
            for transform in transforms:
                value = transform(value)
        else:
            return
        self.event_dims[name] = len(msg["fn"].event_shape)
        if msg["value"] is None:
            msg["value"], msg["done"] = value, True


class NewCovariances(SiteMessenger):
    r"""Replace normals of a guide by others, of which sites are transforms as before.

    ``state.normals`` are means (\*batch, \*event) and Cholesky factors (\*batch, P, P) by site, and
    ``state.supports`` those of the sites.
    """

    def __init__(self, state: Any) -> None:
        super().__init__(state.normals)
        self.normals, self.supports = state.normals, state.supports
        self.auxiliary: set[str] = set()

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        name, inner, transforms = _parts(msg)
        if name != msg["name"]:
            self.auxiliary.add(name)
        if name not in self.normals or (isinstance(inner, dist.Delta) and name in self.auxiliary):
            return
        if isinstance(inner, dist.Delta):
            transforms = [biject_to(self.supports[name])]
        loc, root = (values.to(inner.mean) for values in self.normals[name])
        event, batch = msg["fn"].event_shape, msg["fn"].batch_shape
        flat = loc.reshape(*loc.shape[: loc.ndim - len(event)], -1)
        normal: Any = dist.MultivariateNormal(flat, scale_tril=root)
        if event != flat.shape[-1:]:
            transforms = [ReshapeTransform(flat.shape[-1:], event), *transforms]
        if transforms:
            normal = dist.TransformedDistribution(normal, transforms)
        msg["fn"] = normal.expand(torch.broadcast_shapes(normal.batch_shape, batch))


class ShiftMean(Messenger):
    """Add ``shift`` to the mean of the normal of one site of a guide."""

    def __init__(self, site: str, shift: Tensor) -> None:
        super().__init__()
        self.site, self.shift = site, shift

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or not is_sample(msg):
            return
        name, inner, transforms = _parts(msg)
        if name != self.site or isinstance(inner, dist.Delta):
            return
        loc = inner.loc + self.shift
        normal: Any = (
            dist.Normal(loc, inner.scale)
            if isinstance(inner, Normal)
            else dist.MultivariateNormal(loc, scale_tril=inner.scale_tril)
        )
        if transforms:
            normal = dist.TransformedDistribution(normal, transforms)
        msg["fn"] = normal.to_event(len(msg["fn"].event_shape) - len(normal.event_shape))


def _parts(msg: Any) -> tuple[str, Any, list[Any]]:
    """Return the site that a message is about, the innermost distribution, and all transforms."""
    name = msg["name"]
    if msg["infer"].get("is_auxiliary"):
        name = name.removesuffix(UNCONSTRAINED)
    return name, *untransformed(msg["fn"])
