r"""Pools: priors made of the posteriors of other tasks.

Task :math:`t` has sources :math:`q_i = N(\mu_i, \mathrm{diag}\,\sigma_i^2)`, the posteriors of the
other tasks, and a base :math:`q_0`, the plain prior. Source :math:`i` is widened by its transfer
variance to :math:`N(\mu_i, \sigma_i^2 + s_i^2)`. With weights :math:`a_{ti}` on the simplex there
are four ways to pool them:

================================ ============================================ =================
pool                             log density at :math:`w`                     KL from :math:`q_t`
================================ ============================================ =================
:class:`LinearPool`              :math:`\log \sum_i a_{ti}\, q_i(w)`          by Monte Carlo
:class:`LogarithmicPool`         :math:`\sum_i a_{ti} \log q_i(w)`            closed form
:class:`ExpectedLogarithmicPool` the same, expected over the sources          closed form
:class:`GaussianSumPool`         that of the sum :math:`\sum_i a_{ti} w_i`    closed form
================================ ============================================ =================

References
----------
Genest, C. and Zidek, J. V. (1986). Combining Probability Distributions: A Critique and an Annotated
Bibliography. Statistical Science 1(1).

Shen, J., Zhen, X., Worring, M. and Shao, L. (2021). Variational Multi-Task Learning with
Gumbel-Softmax Priors. NeurIPS, arXiv 2111.05323.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from pyro.distributions.torch import Independent
from torch import Tensor
from torch.distributions import Categorical, MultivariateNormal, Normal, register_kl
from torch.distributions import Independent as TorchIndependent

from pyro_vmtl.sharing.components import LOG_2_PI, TaskComponents
from pyro_vmtl.sharing.correlated import base_dist, marginals, total_correlation
from pyro_vmtl.sharing.pool import Pool, once

__all__ = ["ExpectedLogarithmicPool", "GaussianSumPool", "LinearPool", "LogarithmicPool"]


class LinearPool(Pool):
    r"""The mixture :math:`\sum_i a_{ti}\, q_i(w)`: the prior of Shen et al. (2021, eq. 4).

    It has no closed-form KL; ELBOs estimate it from the sampled :math:`w`.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> q = dist.Normal(torch.tensor([[[0.0]], [[4.0]]]), 1.0).to_event(1)  # of two tasks
    >>> base = dist.Normal(torch.zeros(1, 1, 1), 2.0).to_event(1)
    >>> weights = torch.tensor([[0.0, 0.7, 0.3], [0.2, 0.0, 0.8]])  # on each task, and the base
    >>> LinearPool(weights, q, base).log_prob(q.mean).flatten()
    tensor([-2.8145, -3.8340])
    """

    fixed_graph = True

    def log_density(self, value: Tensor) -> Tensor:
        """Compute the log of the weighted sum of densities."""
        weights = self.component_weights
        used = weights > 0
        # log(0) has no finite gradient: take log(1) instead, then exclude the component.
        log_weights = weights.where(used, 1.0).log().masked_fill(~used, -math.inf)
        log_probs = self.component_log_probs(self.to_rows(value))
        return self.per_cell(torch.logsumexp(log_weights + log_probs, dim=-1))

    def shares(self, posterior: Independent) -> Tensor:
        """Compute shares by the responsibility of each source at the mean of each task."""
        rows = self.to_rows(posterior.mean)
        weights = self.component_weights[..., :-1]
        joint = weights.clamp_min(1e-30).log() + self.components.log_probs(rows, 0.0)
        density = self.log_density(posterior.mean).flatten(1).T[..., None]  # (R, T, 1)
        responsibility = (joint - density).exp() * (weights > 0)
        return (responsibility * self._variance_ratio(posterior)).mean(-3)

    def draw(self, sample_shape: torch.Size) -> Tensor:
        """Draw a component for each task and cell, then a value from it."""
        components, (base_loc, base_var) = self.components, self.base_moments
        weights = self.component_weights
        num_sources = weights.shape[-1] - 1
        shape = (*weights.shape[:-3], self.cells[1:].numel(), *weights.shape[-2:])
        component = Categorical(weights.expand(shape)).sample(sample_shape)
        source = component.clamp(max=num_sources - 1)
        from_base = component[..., None] == num_sources
        loc = torch.where(from_base, base_loc, components.pick(components.loc, source))
        var = torch.where(from_base, base_var, components.pick(components.var, source))
        return self.from_rows(torch.normal(loc, var.sqrt()))


class LogarithmicPool(Pool):
    r"""The geometric mean :math:`\prod_i q_i(w)^{a_{ti}}`, left unnormalized.

    Its log density :math:`\sum_i a_{ti} \log q_i(w)` is at most that of the linear pool (Jensen),
    so an ELBO with it stays a lower bound of the linear pool's; normalized, it would not. The KL is
    :math:`\sum_i a_{ti}\, \mathrm{KL}(q_t \| q_i)`, in closed form.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> q = dist.Normal(torch.tensor([[[0.0]], [[4.0]]]), 1.0).to_event(1)  # of two tasks
    >>> base = dist.Normal(torch.zeros(1, 1, 1), 2.0).to_event(1)
    >>> weights = torch.tensor([[0.0, 0.7, 0.3], [0.2, 0.0, 0.8]])  # on each task, and the base
    >>> torch.distributions.kl_divergence(q, LogarithmicPool(weights, q, base)).flatten()
    tensor([5.6954, 3.4545])
    """

    fixed_graph = True
    linear_in_weights = True

    def log_density(self, value: Tensor) -> Tensor:
        """Compute the weighted sum of log densities."""
        return self.per_cell(self._weighted_log_prob(self.to_rows(value), 0.0))

    def kl_from(self, posterior: Independent) -> Tensor:
        r"""Compute :math:`\sum_i a_{ti}\, \mathrm{KL}(q_t \| q_i)` for every task and cell."""
        normal = posterior.base_dist  # its `stddev` would be the root of a square
        loc, scale = self.to_rows(normal.loc), self.to_rows(normal.scale)
        negative_entropy = -scale.log().sum(-1) - (LOG_2_PI + 1) / 2 * loc.shape[-1]
        return self.per_cell(negative_entropy - self._weighted_log_prob(loc, scale**2))

    def _weighted_log_prob(self, loc: Tensor, var: Tensor | float) -> Tensor:
        from_sources, from_base = self.component_weights[..., :-1], self.component_weights[..., -1]
        pooled = (from_sources * self._source_log_probs(loc, var)).sum(-1)
        return pooled + from_base * self.base_log_prob(loc, var)

    def _source_log_probs(self, loc: Tensor, var: Tensor | float) -> Tensor:
        return self.components.log_probs(loc, var)

    def draw(self, sample_shape: torch.Size) -> Tensor:
        """Draw from the normalized geometric mean, a normal of weighted mean precision."""
        components, (base_loc, base_var) = self.components, self.base_moments
        from_sources, from_base = self.component_weights[..., :-1], self.component_weights[..., -1:]
        source_precision = components.var.reciprocal()
        precision = components.mix(from_sources, source_precision) + from_base / base_var
        natural = components.mix(from_sources, components.loc * source_precision)
        natural = natural + from_base * base_loc / base_var
        scale = precision.rsqrt().expand(*sample_shape, *precision.shape)
        return self.from_rows(torch.normal(natural / precision, scale))


class ExpectedLogarithmicPool(LogarithmicPool):
    r"""The logarithmic pool, with the expectation over its uncertain sources.

    In place of :math:`\log q_i(w)` it has the mean of :math:`\log N(w; w_i, \sigma_i^2 + s_i^2)`
    over :math:`w_i \sim N(\mu_i, \sigma_i^2)`, which is less by half of :math:`\sigma_i^2 /
    (\sigma_i^2 + s_i^2)` for each number. The variance that fits best is then the mean square of
    :math:`w_t - w_i`; that of :math:`w_t - \mu_i`, as if the source were known, is too small.
    Use it with transfer scales: without, each source loses half a nat for each number.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> q = dist.Normal(torch.tensor([[[0.0]], [[4.0]]]), 1.0).to_event(1)  # of two tasks
    >>> base = dist.Normal(torch.zeros(1, 1, 1), 2.0).to_event(1)
    >>> weights = torch.tensor([[0.0, 0.7, 0.3], [0.2, 0.0, 0.8]])  # on each task, and the base
    >>> ExpectedLogarithmicPool(weights, q, base).log_prob(q.mean).flatten()
    tensor([-7.0769, -4.7735])
    """

    fixed_graph = True
    expects_sources = True

    def _source_log_probs(self, loc: Tensor, var: Tensor | float) -> Tensor:
        return super()._source_log_probs(loc, var) - self._width

    @cached_property
    def _width(self) -> Tensor:
        sources = self.components
        width = (sources.source_var / sources.var).sum(-1) / 2
        return width.unsqueeze(-2) if isinstance(sources, TaskComponents) else width


class GaussianSumPool(Pool):
    r"""The distribution of the weighted sum :math:`\sum_i a_{ti} w_i` of the sources and the base.

    It is one normal, with mean :math:`\sum_i a_{ti}\mu_i` and variance
    :math:`\sum_i a_{ti}^2\sigma_i^2 + \sum_i a_{ti} s_i^2`. The first part is what the authors'
    released code computes. With the transfer variance it is the conditional of a spatial
    autoregression over tasks: :math:`w_t` is a weighted mean of its sources plus noise.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> q = dist.Normal(torch.tensor([[[0.0]], [[4.0]]]), 1.0).to_event(1)  # of two tasks
    >>> base = dist.Normal(torch.zeros(1, 1, 1), 2.0).to_event(1)
    >>> weights = torch.tensor([[0.0, 0.7, 0.3], [0.2, 0.0, 0.8]])  # on each task, and the base
    >>> GaussianSumPool(weights, q, base).log_prob(q.mean).flatten()
    tensor([-5.4494, -4.4736])
    """

    fixed_graph = True
    rounding = None  # it does not compare tasks

    @cached_property
    def normal(self) -> Independent:
        """The normal itself, in the batch and event shape of the pool."""
        components, (base_loc, base_var) = self.components, self.base_moments
        from_sources, from_base = self.component_weights[..., :-1], self.component_weights[..., -1:]
        mean = components.mix(from_sources, components.loc) + from_base * base_loc
        var = components.mix(from_sources**2, components.source_var) + from_base**2 * base_var
        var = var + components.mix(from_sources, components.transfer_var)
        normal = Normal(self.from_rows(mean), self.from_rows(var.sqrt()), validate_args=False)
        return Independent(normal, len(self.event_shape), validate_args=False)

    def log_density(self, value: Tensor) -> Tensor:
        """Compute the log density of the normal."""
        return self.normal.log_prob(value)

    def kl_from(self, posterior: Independent) -> Tensor:
        """Compute the KL between the two normals for every task and cell."""
        return torch.distributions.kl_divergence(posterior, self.normal)

    def shares(self, posterior: Independent) -> Tensor:
        """Compute shares by the ratio of the variances of task and pool, for all sources alike."""
        ratio = posterior.variance / self.normal.variance
        ratio = ratio.reshape(len(ratio), -1).mean(1, keepdim=True)
        return self.weights[..., :-1] * ratio

    def draw(self, sample_shape: torch.Size) -> Tensor:
        """Draw from the normal."""
        return self.normal.sample(sample_shape)


@register_kl(TorchIndependent, Pool)
@register_kl(MultivariateNormal, Pool)
def _kl(posterior: Any, pool: Pool) -> Tensor:
    """Compute the KL, only once for particles that share their moments."""
    normal = base_dist(marginals(posterior))
    particles = len(posterior.batch_shape) - len(pool.cells)
    loc, scale = (once(moment, particles) for moment in (normal.loc, normal.scale))
    normal = Normal(loc, scale, validate_args=False)
    kl = pool.kl_from(Independent(normal, len(posterior.event_shape), validate_args=False))
    return kl.expand(posterior.batch_shape) + total_correlation(posterior)
