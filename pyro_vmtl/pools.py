r"""Pools: priors made of the posteriors of other tasks.

Task :math:`t` has sources :math:`q_i = N(\mu_i, \mathrm{diag}\,\sigma_i^2)`, the posteriors of the
other tasks, and a base :math:`q_0`, the plain prior. Source :math:`i` enters with its transfer
variance, as :math:`N(\mu_i, \sigma_i^2 + s_i^2)`. With weights :math:`a_{ti}` on the simplex there
are three ways to pool them:

======================== ============================================ =====================
pool                     log density at :math:`w`                     KL from :math:`q_t`
======================== ============================================ =====================
:class:`LinearPool`      :math:`\log \sum_i a_{ti}\, q_i(w)`          by Monte Carlo
:class:`LogarithmicPool` :math:`\sum_i a_{ti} \log q_i(w)`            closed form
:class:`GaussianSumPool` that of the sum :math:`\sum_i a_{ti} w_i`    closed form
======================== ============================================ =====================

All tasks are compared with all sources by matrix products over (T, P), where P counts the numbers
in one task's site; nothing of size (T, T, P) is made.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, ClassVar

import torch
from pyro.distributions.torch import Independent
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import Independent as TorchIndependent
from torch.distributions import Normal, constraints, register_kl

__all__ = ["GaussianSumPool", "LinearPool", "LogarithmicPool", "Pool"]

LOG_2_PI = math.log(2 * math.pi)


class Pool(TorchDistribution):
    r"""What the three pools have in common: weights, sources, base, shapes.

    The batch shape is ``(*L, T, *rest)``: ``L`` are particles, and ``rest`` are plates inside the
    task plate, whose cells the pool treats one by one, with the same weights. The event shape is
    the site's.

    Parameters
    ----------
    weights
        (\*L, T, T + 1), rows on the simplex: the weight of each source for each task, the base
        last. The weight of a task on itself is 0.
    sources
        Normal with batch (T, \*rest) and the site's event shape: the posterior of every task.
    base
        Normal that broadcasts to the pool's batch and event shape: the plain prior.
    transfer_var
        Variance added to every source; broadcasts to (T, \*rest, \*event).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False

    def __init__(
        self,
        weights: Tensor,
        sources: Independent,
        base: Independent,
        transfer_var: Tensor | float = 0.0,
        validate_args: bool | None = None,
    ) -> None:
        self.weights = weights
        self.sources = sources
        self.base = base
        self.transfer_var = transfer_var
        super().__init__(
            weights.shape[:-2] + sources.batch_shape,
            sources.event_shape,
            validate_args=validate_args,
        )

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """All real values of the site's event shape."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Pool:
        """Repeat the pool for more particles, on the left of the batch shape."""
        particles = torch.Size(batch_shape)[: len(batch_shape) - len(self.sources.batch_shape)]
        weights = self.weights.expand(particles + self.weights.shape[-2:])
        return type(self)(weights, self.sources, self.base, self.transfer_var)

    # One inner layout serves all shapes: (*L, R, T, P), with R cells in the plates `rest` and P
    # numbers in an event.

    def _to_rows(self, values: Tensor) -> Tensor:
        r"""Take values (\*L, T, \*rest, \*event) to (\*L, R, T, P)."""
        site = self.sources.batch_shape + self.event_shape
        particles = values.shape[: values.ndim - len(site)]
        cells = self.sources.batch_shape[1:].numel()
        return values.reshape(*particles, site[0], cells, -1).transpose(-2, -3)

    def _from_rows(self, rows: Tensor) -> Tensor:
        r"""Take values (\*L, R, T, P) back to (\*L, T, \*rest, \*event)."""
        site = self.sources.batch_shape + self.event_shape
        return rows.transpose(-2, -3).reshape(*rows.shape[:-3], *site)

    def _per_cell(self, rows: Tensor) -> Tensor:
        r"""Take one value per task and cell (\*L, R, T) to the batch shape."""
        return rows.transpose(-1, -2).reshape(*rows.shape[:-2], *self.sources.batch_shape)

    @cached_property
    def _weights(self) -> Tensor:
        r"""The weights with a dimension for the cells, (\*L, 1, T, T + 1)."""
        return self.weights.unsqueeze(-3)

    @cached_property
    def _source_moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Means, variances and transfer variances of the sources, each (R, T, P)."""
        loc = self.sources.mean
        transfer_var = torch.as_tensor(self.transfer_var, dtype=loc.dtype, device=loc.device)
        return (
            self._to_rows(loc),
            self._to_rows(self.sources.variance),
            self._to_rows(transfer_var.expand_as(loc)),
        )

    @cached_property
    def _base_moments(self) -> tuple[Tensor, Tensor]:
        r"""Mean and variance of the base, each (\*L, R, T, P)."""
        loc = self.base.mean
        shape = torch.broadcast_shapes(loc.shape, self.sources.mean.shape)
        return self._to_rows(loc.expand(shape)), self._to_rows(self.base.variance.expand(shape))

    def _component_log_probs(self, loc: Tensor, var: Tensor | float = 0.0) -> Tensor:
        r"""Expected log density of each component under N(``loc``, ``var``).

        Parameters
        ----------
        loc, var
            (\*L, R, T, P). With ``var`` 0 the expectation is the log density at ``loc``.

        Returns
        -------
        Tensor
            (\*L, R, T, T + 1), the base last.
        """
        # The square is expanded to make it a matrix product. In float32 its parts would cancel
        # where groups of tasks lie far apart, measured in their widths.
        source_loc, source_var, transfer_var = (m.double() for m in self._source_moments)
        total_var = source_var + transfer_var
        precision = total_var.reciprocal()
        wide_loc, wide_square = loc.double(), loc.double() ** 2 + var
        constant = (source_loc**2 * precision + total_var.log() + LOG_2_PI).sum(-1)
        from_sources = -0.5 * (
            wide_square @ precision.mT
            - 2 * wide_loc @ (source_loc * precision).mT
            + constant.unsqueeze(-2)
        ).to(loc.dtype)
        base_loc, base_var = self._base_moments
        square = (loc - base_loc) ** 2 + var
        from_base = -0.5 * (square / base_var + base_var.log() + LOG_2_PI).sum(-1)
        shape = torch.broadcast_shapes(from_sources.shape[:-1], from_base.shape)
        return torch.cat(
            [from_sources.expand(*shape, -1), from_base.expand(shape).unsqueeze(-1)], dim=-1
        )


class LinearPool(Pool):
    r"""The mixture :math:`\sum_i a_{ti}\, q_i(w)`: the paper's prior (Shen et al. 2021, eq. 4).

    It has no closed-form KL; ELBOs estimate it from the sampled :math:`w`.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of the mixture at ``value``, in the batch shape."""
        weights = self._weights
        used = weights > 0
        # log(0) has no finite gradient: look up a 1 instead, then take the component out.
        log_weights = weights.where(used, 1.0).log().masked_fill(~used, -math.inf)
        log_probs = self._component_log_probs(self._to_rows(value))
        return self._per_cell(torch.logsumexp(log_weights + log_probs, dim=-1))

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draw a component for each task and cell, then a value from it."""
        loc, source_var, transfer_var = self._source_moments
        base_loc, base_var = self._base_moments
        cells, num_tasks, _ = loc.shape
        probs = self._weights.expand(*self._weights.shape[:-3], cells, -1, -1)
        component = torch.distributions.Categorical(probs).sample(sample_shape)[..., None]
        cell = torch.arange(cells, device=loc.device)[:, None]
        chosen = component.squeeze(-1).clamp(max=num_tasks - 1)
        from_base = component == num_tasks
        loc = torch.where(from_base, base_loc, loc[cell, chosen])
        var = torch.where(from_base, base_var, (source_var + transfer_var)[cell, chosen])
        return self._from_rows(torch.normal(loc, var.sqrt()))


class LogarithmicPool(Pool):
    r"""The geometric mean :math:`\prod_i q_i(w)^{a_{ti}}`, left unnormalised.

    Its log density :math:`\sum_i a_{ti} \log q_i(w)` is at most that of the linear pool (Jensen),
    so an ELBO with it stays a lower bound of the linear pool's; normalised, it would not. The KL is
    :math:`\sum_i a_{ti}\, \mathrm{KL}(q_t \| q_i)`, in closed form.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Weighted mean of the components' log densities at ``value``, in the batch shape."""
        log_probs = self._component_log_probs(self._to_rows(value))
        return self._per_cell((self._weights * log_probs).sum(-1))

    def kl_from(self, posterior: Independent) -> Tensor:
        r"""Give :math:`\sum_i a_{ti}\, \mathrm{KL}(q_t \| q_i)` for every task and cell."""
        loc, var = self._to_rows(posterior.mean), self._to_rows(posterior.variance)
        negative_entropy = -0.5 * (var.log() + LOG_2_PI + 1).sum(-1)
        log_probs = self._component_log_probs(loc, var)
        return self._per_cell(negative_entropy - (self._weights * log_probs).sum(-1))

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draw from the normalised geometric mean, a normal of weighted mean precision."""
        loc, source_var, transfer_var = self._source_moments
        base_loc, base_var = self._base_moments
        from_sources, from_base = self._weights[..., :-1], self._weights[..., -1:]
        source_precision = (source_var + transfer_var).reciprocal()
        precision = from_sources @ source_precision + from_base / base_var
        natural = from_sources @ (loc * source_precision) + from_base * base_loc / base_var
        scale = precision.rsqrt().expand(*sample_shape, *precision.shape)
        return self._from_rows(torch.normal(natural / precision, scale))


class GaussianSumPool(Pool):
    r"""The distribution of the weighted sum :math:`\sum_i a_{ti} w_i` of the sources and the base.

    It is one normal, with mean :math:`\sum_i a_{ti}\mu_i` and variance
    :math:`\sum_i a_{ti}^2\sigma_i^2 + \sum_i a_{ti} s_i^2`. The first part is what the authors'
    released code computes. With the transfer variance it is the conditional of a spatial
    autoregression over tasks: :math:`w_t` is a weighted mean of its sources plus noise.
    """

    @cached_property
    def normal(self) -> Independent:
        """The normal itself, in the batch and event shape of the pool."""
        loc, source_var, transfer_var = self._source_moments
        base_loc, base_var = self._base_moments
        from_sources, from_base = self._weights[..., :-1], self._weights[..., -1:]
        mean = from_sources @ loc + from_base * base_loc
        var = from_sources**2 @ source_var + from_sources @ transfer_var + from_base**2 * base_var
        normal = Normal(self._from_rows(mean), self._from_rows(var.sqrt()), validate_args=False)
        return Independent(normal, len(self.event_shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of the normal at ``value``, in the batch shape."""
        return self.normal.log_prob(value)

    def kl_from(self, posterior: Independent) -> Tensor:
        """Give the KL between the two normals for every task and cell."""
        return torch.distributions.kl_divergence(posterior, self.normal)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draw from the normal."""
        return self.normal.sample(sample_shape)


@register_kl(TorchIndependent, LogarithmicPool)
def _kl_logarithmic(posterior: Independent, pool: LogarithmicPool) -> Tensor:
    return pool.kl_from(posterior)


@register_kl(TorchIndependent, GaussianSumPool)
def _kl_gaussian_sum(posterior: Independent, pool: GaussianSumPool) -> Tensor:
    return pool.kl_from(posterior)
