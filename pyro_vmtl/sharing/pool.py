"""The base class of all pools: weights, sources, base, shapes."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import torch
from pyro.distributions.torch import Independent
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_vmtl.sharing.components import (
    LOG_2_PI,
    CellComponents,
    Components,
    TaskComponents,
    other_tasks,
)

__all__ = ["Pool", "once"]


class Pool(TorchDistribution):
    r"""A prior made of the posteriors of other tasks.

    The batch shape is ``(*L, B, *rest)``: ``L`` are particles, B are the tasks that borrow, usually
    all T, and ``rest`` are plates inside the task plate. The cells of ``rest`` are independent of
    each other, with the same weights. The event shape is the site's.

    Parameters
    ----------
    weights
        (\*L, B, T + 1), rows on the simplex: the weight of each source, 0 for the task itself, and
        of the base, which comes last.
    sources
        Normal with the site's event shape: the posterior of every task, batch (T, \*rest). With
        ``present``, the sources of every cell: batch (T, \*rest, T - 1), the other tasks in order.
    base
        Normal that broadcasts to the pool's batch and event shape: the plain prior.
    transfer_var
        Variance added to every source; broadcasts to (T, \*rest, \*event), the first dimension
        being the source. With ``present`` it is the same in all cells: (T, 1, ..., \*event).
    present
        (B, \*rest, T - 1), which sources each cell has; the others and the base share the rest.
    tasks
        (B,), indices of the tasks that borrow; all by default.
    use_float64
        Whether to compare tasks in float64: float32 loses the differences between tasks that lie
        many standard deviations apart, see :attr:`rounding`.

    Attributes
    ----------
    linear_in_weights
        Whether the log density is linear in the weights, so that its mean over the choice of one
        source is that at the probabilities of the choice.
    expects_sources
        Whether the transfer variance is that of differences from uncertain sources, so that those
        from their means have their variance besides.
    """

    linear_in_weights: ClassVar[bool] = False
    expects_sources: ClassVar[bool] = False
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False

    def __init__(
        self,
        weights: Tensor,
        sources: Independent,
        base: Independent,
        transfer_var: Tensor | float = 0.0,
        present: Tensor | None = None,
        *,
        tasks: Tensor | None = None,
        use_float64: bool = True,
        batch_shape: torch.Size | None = None,
    ) -> None:
        self.weights = weights
        self.sources = sources
        self.base = base
        self.transfer_var = transfer_var
        self.present = present
        self.tasks = tasks
        self.use_float64 = use_float64
        rest = sources.batch_shape[1:] if present is None else sources.batch_shape[1:-1]
        self.cells = torch.Size([weights.shape[-2], *rest])
        if batch_shape is None:
            batch_shape = weights.shape[:-2] + self.cells
        super().__init__(batch_shape, sources.event_shape)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """All real values of the site's event shape."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Pool:
        """Return the pool with its batch shape expanded on the left, for more particles."""
        # Moments are not expanded but broadcast, so that particles share their computation.
        return self.with_weights(self.weights, torch.Size(batch_shape))

    def with_weights(self, weights: Tensor, batch_shape: torch.Size | None = None) -> Pool:
        """Return the pool with other weights."""
        return type(self)(
            weights,
            self.sources,
            self.base,
            self.transfer_var,
            self.present,
            tasks=self.tasks,
            use_float64=self.use_float64,
            batch_shape=batch_shape,
        )

    @property
    def rounding(self) -> Tensor | None:
        """Estimated error of comparing tasks in float32, in nats; None where it does not apply."""
        components = self._components
        if isinstance(components, TaskComponents) and components.loc.dtype != torch.float64:
            return components.rounding
        return None

    def log_prob(self, value: Tensor) -> Tensor:
        """Compute the log density at ``value``, in the batch shape."""
        density = self._log_density(value)
        return density.expand(torch.broadcast_shapes(density.shape, self.batch_shape))

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draw values, each independent of the others."""
        particles = self.batch_shape[: len(self.batch_shape) - len(self.cells)]
        weights = self.weights.expand(particles + self.weights.shape[-2:])
        return self.with_weights(weights)._draw(torch.Size(sample_shape))

    def _log_density(self, value: Tensor) -> Tensor:
        """Compute the log density, in a shape that broadcasts to the batch shape."""
        raise NotImplementedError

    def _draw(self, sample_shape: torch.Size) -> Tensor:
        """Draw values for weights that have the particles of the batch shape."""
        raise NotImplementedError

    def shares(self, posterior: Independent) -> Tensor:
        r"""Compute how much the posterior mean of each task follows that of each source.

        If the mean of source i moves by 1, the pool's pull on task t moves by its precision there,
        :math:`a_{ti} \pi_{ti}`, and the mean of its posterior by
        :math:`a_{ti} \pi_{ti} \sigma_t^2`. The shares, (T, T), are averaged over the numbers of the
        site. The posterior is that of every task, batch (T, \*rest).
        """
        raise NotImplementedError

    def _variance_ratio(self, posterior: Independent) -> Tensor:
        """Compute the variance of each task over that of each source, (R, T, T)."""
        var = self._to_rows(posterior.variance)
        return var @ self._components.var.reciprocal().mT / var.shape[-1]

    # All shapes are reduced to one, (*L, R, T, P), with R cells in the plates `rest` and P numbers
    # in an event.

    def _to_rows(self, values: Tensor) -> Tensor:
        r"""Reshape values (\*L, T or B, \*rest, \*event) to (\*L, R, T or B, P)."""
        task = values.ndim - len(self.cells) - len(self.event_shape)
        shape = *values.shape[: task + 1], self.cells[1:].numel(), self.event_shape.numel()
        return values.reshape(shape).transpose(-2, -3)

    def _from_rows(self, rows: Tensor) -> Tensor:
        r"""Reshape values (\*L, R, T, P) back to (\*L, T, \*rest, \*event)."""
        return rows.transpose(-2, -3).reshape(*rows.shape[:-3], *self.cells, *self.event_shape)

    def _per_cell(self, rows: Tensor) -> Tensor:
        r"""Reshape one value per task and cell (\*L, R, T) to the batch shape."""
        return rows.transpose(-1, -2).reshape(*rows.shape[:-2], *self.cells)

    @cached_property
    def _components(self) -> Components:
        """The sources in the layout of their kind."""
        loc, var = self.sources.mean, self.sources.variance
        transfer_var = torch.as_tensor(self.transfer_var, dtype=loc.dtype, device=loc.device)
        if self.present is None:
            rows = [self._to_rows(m) for m in (loc, var, transfer_var.expand_as(loc))]
            return TaskComponents(*rows, use_float64=self.use_float64)
        num_tasks, num_sources = self.cells[0], self.present.shape[-1]
        shape = (num_tasks, self.cells[1:].numel(), num_sources, self.event_shape.numel())
        loc, var = (m.reshape(shape).transpose(0, 1) for m in (loc, var))
        by_task = torch.Size([num_sources + 1, *[1] * (len(self.cells) - 1)]) + self.event_shape
        of_source = transfer_var.expand(by_task).flatten(1)
        others = other_tasks(num_sources + 1, loc.device)
        others = others if self.tasks is None else others[self.tasks]
        present = self.present.reshape(shape[:-1]).transpose(0, 1)
        return CellComponents(loc, var, of_source[others], present=present, others=others)

    @cached_property
    def _weights(self) -> Tensor:
        r"""The weights with a dimension for the cells, (\*L, 1 or R, T, K + 1), the base last."""
        return self._components.weights(self.weights)

    @cached_property
    def _base_moments(self) -> tuple[Tensor, Tensor]:
        r"""Mean and variance of the base, each broadcasting to (\*L, R, T, P)."""
        moments, site = (self.base.mean, self.base.variance), self.cells + self.event_shape
        loc, var = (m.expand(torch.broadcast_shapes(m.shape, site)) for m in moments)
        return once(self._to_rows(loc)), once(self._to_rows(var))

    def _base_log_prob(self, loc: Tensor, var: Tensor | float) -> Tensor:
        r"""Compute the expected log density of the base under N(loc, var), (\*L, R, T)."""
        base_loc, base_var = self._base_moments
        square = ((loc - base_loc) ** 2 + var) / base_var
        log_var = base_var.log().expand(*base_var.shape[:-1], loc.shape[-1]).sum(-1)
        return -0.5 * (square.sum(-1) + log_var + LOG_2_PI * loc.shape[-1])


def once(values: Tensor, num_dims: int | None = None) -> Tensor:
    """Undo ``expand``: narrow expanded dimensions to size 1, among the first ones or all."""
    for dim in range(values.ndim if num_dims is None else num_dims):
        if values.stride(dim) == 0:
            values = values.narrow(dim, 0, 1)
    return values
