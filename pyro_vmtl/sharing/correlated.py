r"""Normals with correlations: their marginals, and what they add to a KL.

Pools, and priors of independent numbers, have log densities that are sums over numbers. From a
normal :math:`p` with marginals :math:`p_j` the KL to such a density :math:`q` is

.. math:: \mathrm{KL}(p \| q) = \mathrm{KL}(\textstyle\prod_j p_j \| q) + C(p), \qquad
    C(p) = \mathrm{KL}(p \| \textstyle\prod_j p_j)
         = \sum_j \log \sigma_j - \tfrac{1}{2} \log |\Sigma|

with :math:`C` the total correlation (Watanabe 1960, Information Theoretical Analysis of
Multivariate Correlation. IBM Journal of Research and Development 4(1)).
"""

from __future__ import annotations

from typing import Any

from pyro import distributions as dist
from torch import Tensor
from torch.distributions import (
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    kl_divergence,
    register_kl,
)

from pyro_vmtl.sharing.pool import once

__all__ = ["base_dist", "marginals", "total_correlation"]


def base_dist(fn: Any) -> Any:
    """Return a distribution without its ``to_event``."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn


def marginals(normal: Any) -> Any:
    """Return the marginals of a normal, ``Independent`` in its shape; None if it is not normal."""
    inner = base_dist(normal)
    if isinstance(inner, MultivariateNormal | LowRankMultivariateNormal):
        scale = once(inner.variance).sqrt().expand(inner.loc.shape)
        return dist.Normal(inner.loc, scale, validate_args=False).to_event(len(normal.event_shape))
    if not isinstance(inner, Normal):
        return None
    return normal if isinstance(normal, Independent) else dist.Independent(normal, 0)


def total_correlation(normal: Any) -> Tensor | float:
    """Compute the KL from a normal to its marginals, in its batch shape."""
    inner = base_dist(normal)
    if not isinstance(inner, MultivariateNormal):
        return 0.0
    log_ratio = inner.variance.log() / 2 - inner.scale_tril.diagonal(dim1=-2, dim2=-1).log()
    return log_ratio.flatten(-len(normal.event_shape)).sum(-1)


@register_kl(MultivariateNormal, Independent)
def _kl_of_independent(p: MultivariateNormal, q: Any) -> Tensor:
    kl: Tensor = kl_divergence(marginals(p), q) + total_correlation(p)
    return kl
