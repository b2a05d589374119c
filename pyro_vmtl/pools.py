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

How they are laid out for batched arithmetic is in :mod:`pyro_vmtl.components`.
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

from pyro_vmtl.components import (
    LOG_2_PI,
    CellComponents,
    Components,
    TaskComponents,
    other_tasks,
)

__all__ = ["GaussianSumPool", "LinearPool", "LogarithmicPool", "Pool"]


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
        Normal with the site's event shape: the posterior of every task, batch (T, \*rest). Or, with
        ``present``, for every cell its own sources: batch (T, \*rest, T - 1), the other tasks in
        order.
    base
        Normal that broadcasts to the pool's batch and event shape: the plain prior.
    transfer_var
        Variance added to every source; broadcasts to (T, \*rest, \*event), the first dimension
        being the source. A cell's own sources have the same in all cells: (T, 1, ..., \*event).
    present
        (T, \*rest, T - 1), which of a cell's own sources there are. The weight of the others goes
        to those and the base.
    batch_shape
        Batch shape to broadcast to, as ``expand`` sets it.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False

    def __init__(
        self,
        weights: Tensor,
        sources: Independent,
        base: Independent,
        transfer_var: Tensor | float = 0.0,
        present: Tensor | None = None,
        batch_shape: torch.Size | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.weights = weights
        self.sources = sources
        self.base = base
        self.transfer_var = transfer_var
        self.present = present
        self.cells = sources.batch_shape if present is None else sources.batch_shape[:-1]
        if batch_shape is None:
            batch_shape = weights.shape[:-2] + self.cells
        super().__init__(batch_shape, sources.event_shape, validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """All real values of the site's event shape."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Pool:
        """Repeat the pool for more particles, on the left of the batch shape."""
        # The numbers stay as they are and broadcast: what all particles have in common is
        # computed once.
        return type(self)(
            self.weights,
            self.sources,
            self.base,
            self.transfer_var,
            self.present,
            batch_shape=torch.Size(batch_shape),
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at ``value``, in the batch shape."""
        density = self._log_density(value)
        return density.expand(torch.broadcast_shapes(density.shape, self.batch_shape))

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draw values, each independent of the others."""
        particles = self.batch_shape[: len(self.batch_shape) - len(self.cells)]
        weights = self.weights.expand(particles + self.weights.shape[-2:])
        every = type(self)(weights, self.sources, self.base, self.transfer_var, self.present)
        return every._draw(torch.Size(sample_shape))

    def _log_density(self, value: Tensor) -> Tensor:
        """Log density in a shape that broadcasts to the batch shape."""
        raise NotImplementedError

    def _draw(self, sample_shape: torch.Size) -> Tensor:
        """Draw values for weights that have the particles of the batch shape."""
        raise NotImplementedError

    # One inner layout serves all shapes: (*L, R, T, P), with R cells in the plates `rest` and P
    # numbers in an event.

    def _to_rows(self, values: Tensor) -> Tensor:
        r"""Take values (\*L, T, \*rest, \*event) to (\*L, R, T, P)."""
        site = self.cells + self.event_shape
        particles = values.shape[: values.ndim - len(site)]
        return values.reshape(*particles, site[0], self.cells[1:].numel(), -1).transpose(-2, -3)

    def _from_rows(self, rows: Tensor) -> Tensor:
        r"""Take values (\*L, R, T, P) back to (\*L, T, \*rest, \*event)."""
        site = self.cells + self.event_shape
        return rows.transpose(-2, -3).reshape(*rows.shape[:-3], *site)

    def _per_cell(self, rows: Tensor) -> Tensor:
        r"""Take one value per task and cell (\*L, R, T) to the batch shape."""
        return rows.transpose(-1, -2).reshape(*rows.shape[:-2], *self.cells)

    @cached_property
    def _components(self) -> Components:
        """The sources, laid out."""
        loc, var = self.sources.mean, self.sources.variance
        transfer_var = torch.as_tensor(self.transfer_var, dtype=loc.dtype, device=loc.device)
        if self.present is None:
            transfer_var = transfer_var.expand_as(loc)
            return TaskComponents(*(self._to_rows(m) for m in (loc, var, transfer_var)))
        num_tasks, num_sources = self.cells[0], self.present.shape[-1]
        shape = (num_tasks, self.cells[1:].numel(), num_sources, self.event_shape.numel())
        loc, var = (m.reshape(shape).transpose(0, 1) for m in (loc, var))
        by_task = torch.Size([num_tasks, *[1] * (len(self.cells) - 1)]) + self.event_shape
        of_source = transfer_var.expand(by_task).reshape(num_tasks, -1)
        of_source = of_source[other_tasks(num_tasks).to(loc.device)]  # (T, T - 1, P)
        present = self.present.reshape(shape[:-1]).transpose(0, 1)
        return CellComponents(loc, var, of_source, present)

    @cached_property
    def _weights(self) -> Tensor:
        r"""The weights with a dimension for the cells, (\*L, 1 or R, T, K + 1), the base last."""
        return self._components.weights(self.weights)

    @cached_property
    def _base_moments(self) -> tuple[Tensor, Tensor]:
        r"""Mean and variance of the base, each (\*L, R, T, P)."""
        loc = self.base.mean
        shape = torch.broadcast_shapes(loc.shape, self.cells + self.event_shape)
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
            (\*L, R, T, K + 1), the base last.
        """
        from_sources = self._components.log_probs(loc, var)
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

    def _log_density(self, value: Tensor) -> Tensor:
        weights = self._weights
        used = weights > 0
        # log(0) has no finite gradient: look up a 1 instead, then take the component out.
        log_weights = weights.where(used, 1.0).log().masked_fill(~used, -math.inf)
        log_probs = self._component_log_probs(self._to_rows(value))
        return self._per_cell(torch.logsumexp(log_weights + log_probs, dim=-1))

    def _draw(self, sample_shape: torch.Size) -> Tensor:
        """Draw a component for each task and cell, then a value from it."""
        components, (base_loc, base_var) = self._components, self._base_moments
        num_sources = self._weights.shape[-1] - 1
        shape = (*self._weights.shape[:-3], self.cells[1:].numel(), *self._weights.shape[-2:])
        component = torch.distributions.Categorical(self._weights.expand(shape)).sample(
            sample_shape
        )
        source = component.clamp(max=num_sources - 1)
        from_base = component[..., None] == num_sources
        loc = torch.where(from_base, base_loc, components.pick(components.loc, source))
        var = torch.where(from_base, base_var, components.pick(components.var, source))
        return self._from_rows(torch.normal(loc, var.sqrt()))


class LogarithmicPool(Pool):
    r"""The geometric mean :math:`\prod_i q_i(w)^{a_{ti}}`, left unnormalised.

    Its log density :math:`\sum_i a_{ti} \log q_i(w)` is at most that of the linear pool (Jensen),
    so an ELBO with it stays a lower bound of the linear pool's; normalised, it would not. The KL is
    :math:`\sum_i a_{ti}\, \mathrm{KL}(q_t \| q_i)`, in closed form.
    """

    def _log_density(self, value: Tensor) -> Tensor:
        log_probs = self._component_log_probs(self._to_rows(value))
        return self._per_cell((self._weights * log_probs).sum(-1))

    def kl_from(self, posterior: Independent) -> Tensor:
        r"""Give :math:`\sum_i a_{ti}\, \mathrm{KL}(q_t \| q_i)` for every task and cell."""
        loc, var = self._to_rows(posterior.mean), self._to_rows(posterior.variance)
        negative_entropy = -0.5 * (var.log() + LOG_2_PI + 1).sum(-1)
        log_probs = self._component_log_probs(loc, var)
        return self._per_cell(negative_entropy - (self._weights * log_probs).sum(-1))

    def _draw(self, sample_shape: torch.Size) -> Tensor:
        """Draw from the normalised geometric mean, a normal of weighted mean precision."""
        components, (base_loc, base_var) = self._components, self._base_moments
        from_sources, from_base = self._weights[..., :-1], self._weights[..., -1:]
        source_precision = components.var.reciprocal()
        precision = components.mix(from_sources, source_precision) + from_base / base_var
        natural = components.mix(from_sources, components.loc * source_precision)
        natural = natural + from_base * base_loc / base_var
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
        components, (base_loc, base_var) = self._components, self._base_moments
        from_sources, from_base = self._weights[..., :-1], self._weights[..., -1:]
        mean = components.mix(from_sources, components.loc) + from_base * base_loc
        var = components.mix(from_sources**2, components.source_var) + from_base**2 * base_var
        var = var + components.mix(from_sources, components.transfer_var)
        normal = Normal(self._from_rows(mean), self._from_rows(var.sqrt()), validate_args=False)
        return Independent(normal, len(self.event_shape), validate_args=False)

    def _log_density(self, value: Tensor) -> Tensor:
        return self.normal.log_prob(value)

    def kl_from(self, posterior: Independent) -> Tensor:
        """Give the KL between the two normals for every task and cell."""
        return torch.distributions.kl_divergence(posterior, self.normal)

    def _draw(self, sample_shape: torch.Size) -> Tensor:
        return self.normal.sample(sample_shape)


@register_kl(TorchIndependent, LogarithmicPool)
@register_kl(TorchIndependent, GaussianSumPool)
def _kl(posterior: Independent, pool: LogarithmicPool | GaussianSumPool) -> Tensor:
    """Compute the KL once for all particles that have it in common."""
    normal: Any = posterior
    while isinstance(normal, TorchIndependent):
        normal = normal.base_dist
    particles = len(posterior.batch_shape) - len(pool.cells)
    loc, scale = (_once(moment, particles) for moment in (normal.loc, normal.scale))
    once = Normal(loc, scale, validate_args=False)
    kl = pool.kl_from(Independent(once, len(posterior.event_shape), validate_args=False))
    return kl.expand(posterior.batch_shape)


def _once(values: Tensor, num_dims: int) -> Tensor:
    """Take one of the copies along leading dimensions that were only expanded."""
    for dim in range(num_dims):
        if values.stride(dim) == 0:
            values = values.narrow(dim, 0, 1)
    return values
