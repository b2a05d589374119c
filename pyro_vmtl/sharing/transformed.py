r"""Sites that are elementwise bijections of a normal, such as log-normal ones.

A site :math:`x = T(u)` with normal :math:`u` in model and guide is pooled as :math:`u`, in the
unconstrained space. The KL is the same there, as :math:`T` is a bijection.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    ComposeTransform,
    Independent,
    TransformedDistribution,
    biject_to,
    constraints,
    kl_divergence,
    register_kl,
)

from pyro_vmtl.sharing.pool import Pool

__all__ = ["BijectedPoint", "pool_of", "pooled", "transforms_to", "untransformed"]


def untransformed(fn: Any) -> tuple[Any, list[Any]]:
    """Return the innermost distribution, and the transforms of its values in order."""
    transforms: list[Any] = []
    while isinstance(fn, Independent | TransformedDistribution):
        transforms = [*getattr(fn, "transforms", []), *transforms]
        fn = fn.base_dist
    return fn, transforms


def transforms_to(support: Any) -> list[Any]:
    """Return the transforms from real numbers to a support, as Pyro's autoguides have them."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    transform = biject_to(support)
    parts = transform.parts if isinstance(transform, ComposeTransform) else [transform]
    return [part for part in parts if part != AffineTransform(0, 1)]


def pooled(pool: Pool, transforms: list[Any]) -> Any:
    """Return the distribution of transformed values of a pool."""
    return dist.TransformedDistribution(pool, transforms) if transforms else pool


def pool_of(fn: Any) -> Any:
    """Return the pool in what :func:`pooled` returned."""
    return fn.base_dist if isinstance(fn, TransformedDistribution) else fn


class BijectedPoint(dist.Delta):
    """A point ``v`` that an autoguide drew from a normal and transformed, with its density.

    Which transform it was is not known in the guide, only the logarithm of its Jacobian.
    """

    def __init__(self, point: dist.Delta, normal: dist.Independent, value: Tensor) -> None:
        super().__init__(point.v, event_dim=len(point.event_shape), validate_args=False)
        self.normal = normal
        self.unconstrained = value
        self.log_jacobian = point.log_density

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> BijectedPoint:
        """Return the point with its batch expanded."""
        point = dist.Delta(self.v, self.log_jacobian, event_dim=len(self.event_shape))
        normal = self.normal.expand(batch_shape)
        return BijectedPoint(point.expand(batch_shape), normal, self.unconstrained)

    def log_prob(self, x: Tensor) -> Tensor:
        """Compute the log density at ``v``, the only value that there is."""
        log_prob: Tensor = self.normal.log_prob(self.unconstrained) + self.log_jacobian
        return log_prob


@register_kl(BijectedPoint, dist.Distribution)
def _kl(point: BijectedPoint, prior: Any) -> Tensor:
    pool = pool_of(prior)
    if not isinstance(pool, Pool):
        raise NotImplementedError
    return kl_divergence(point.normal, pool)
