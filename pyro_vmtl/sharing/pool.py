"""The base class of all pools: weights, sources, base, shapes."""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import Any, ClassVar

import torch
from pyro.distributions.torch import Independent
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.distributions.util import broadcast_shape
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
    r"""A prior made of the posteriors of other tasks; the base class of all pools.

    A pool of your own defines :meth:`log_density`, and :meth:`draw` where prior draws are wanted;
    :meth:`kl_from` if there is a closed form, else ELBOs estimate the KL from draws; and
    :meth:`shares` if its sources do not pull by their precision. What these compute with is in one
    layout, (\*L, R, B, P), with R cells of the plates ``rest`` and P numbers in an event:
    :meth:`to_rows`, :attr:`component_weights` and :meth:`component_log_probs`, and the way back,
    :meth:`per_cell`. Pass the class to :func:`~pyro_vmtl.share`, and settings of its own by
    ``functools.partial``.

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

    Examples
    --------
    >>> class Geometric(Pool):  # the LogarithmicPool
    ...     linear_in_weights = True
    ...     def log_density(self, value):
    ...         log_probs = self.component_log_probs(self.to_rows(value))
    ...         return self.per_cell((self.component_weights * log_probs).sum(-1))
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
        pool = copy(self)
        for name in vars(self):  # what was computed with the former weights
            if isinstance(getattr(type(self), name, None), cached_property):
                del pool.__dict__[name]
        pool.weights = weights
        pool._batch_shape = weights.shape[:-2] + self.cells if batch_shape is None else batch_shape
        return pool

    @property
    def rounding(self) -> Tensor | None:
        """Estimated error of comparing tasks in float32, in nats; None where it does not apply."""
        components = self.components
        if isinstance(components, TaskComponents) and components.loc.dtype != torch.float64:
            return components.rounding
        return None

    def log_prob(self, value: Tensor) -> Tensor:
        """Compute the log density at ``value``, in the batch shape."""
        density = self.log_density(value)
        return density.expand(broadcast_shape(density.shape, self.batch_shape))

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draw values, each independent of the others."""
        particles = self.batch_shape[: len(self.batch_shape) - len(self.cells)]
        weights = self.weights.expand(particles + self.weights.shape[-2:])
        return self.with_weights(weights).draw(torch.Size(sample_shape))

    def log_density(self, value: Tensor) -> Tensor:
        """Compute the log density of values, in a shape that broadcasts to the batch shape."""
        raise NotImplementedError(f"{type(self).__name__} has no `log_density`.")

    def draw(self, sample_shape: torch.Size) -> Tensor:
        r"""Draw values, (\*sample_shape, \*batch, \*event), of prior predictive checks, say.

        The weights have the particles of the batch shape.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `draw`.")

    def kl_from(self, posterior: Independent) -> Tensor:
        """Compute the KL from a normal posterior of independent numbers, in its batch shape.

        Without a closed form, ELBOs estimate it from draws.
        """
        raise NotImplementedError

    def shares(self, posterior: Independent) -> Tensor:
        r"""Compute how much the posterior mean of each task follows that of each source.

        If the mean of source i moves by 1, the pool's pull on task t moves by its precision there,
        :math:`a_{ti} \pi_{ti}`, and the mean of its posterior by
        :math:`a_{ti} \pi_{ti} \sigma_t^2`. The shares, (T, T), are averaged over the numbers of the
        site. The posterior is that of every task, batch (T, \*rest).
        """
        return (self.component_weights[..., :-1] * self._variance_ratio(posterior)).mean(-3)

    def _variance_ratio(self, posterior: Independent) -> Tensor:
        """Compute the variance of each task over that of each source, (R, T, T)."""
        var = self.to_rows(posterior.variance)
        return var @ self.components.var.reciprocal().mT / var.shape[-1]

    def to_rows(self, values: Tensor) -> Tensor:
        r"""Reshape values (\*L, T or B, \*rest, \*event) to (\*L, R, T or B, P)."""
        task = values.ndim - len(self.cells) - len(self.event_shape)
        shape = *values.shape[: task + 1], self.cells[1:].numel(), self.event_shape.numel()
        return values.reshape(shape).transpose(-2, -3)

    def from_rows(self, rows: Tensor) -> Tensor:
        r"""Reshape values (\*L, R, T, P) back to (\*L, T, \*rest, \*event)."""
        return rows.transpose(-2, -3).reshape(*rows.shape[:-3], *self.cells, *self.event_shape)

    def per_cell(self, rows: Tensor) -> Tensor:
        r"""Reshape one value per task and cell (\*L, R, T) to the batch shape."""
        return rows.transpose(-1, -2).reshape(*rows.shape[:-2], *self.cells)

    @cached_property
    def components(self) -> Components:
        """The sources in the layout of their kind."""
        loc, var = self.sources.mean, self.sources.variance
        transfer_var = torch.as_tensor(self.transfer_var, dtype=loc.dtype, device=loc.device)
        if self.present is None:
            rows = [self.to_rows(m) for m in (loc, var, transfer_var.expand_as(loc))]
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
    def component_weights(self) -> Tensor:
        r"""The weights with a dimension for the cells, (\*L, 1 or R, T, K + 1), the base last."""
        return self.components.weights(self.weights)

    @cached_property
    def base_moments(self) -> tuple[Tensor, Tensor]:
        r"""Mean and variance of the base, each broadcasting to (\*L, R, T, P)."""
        moments, site = (self.base.mean, self.base.variance), self.cells + self.event_shape
        loc, var = (m.expand(broadcast_shape(m.shape, site)) for m in moments)
        return once(self.to_rows(loc)), once(self.to_rows(var))

    def component_log_probs(self, loc: Tensor, var: Tensor | float = 0.0) -> Tensor:
        r"""Compute the expected log density of sources and base under N(loc, var).

        Mean and variance are rows, (\*L, R, B, P); without variance it is the log density at
        ``loc``. The result, (\*L, R, B, K + 1), has the base last, as :attr:`component_weights`.
        """
        from_sources = self.components.log_probs(loc, var)
        from_base = self.base_log_prob(loc, var).unsqueeze(-1)
        return torch.cat([from_sources, from_base.expand(*from_sources.shape[:-1], 1)], dim=-1)

    def base_log_prob(self, loc: Tensor, var: Tensor | float) -> Tensor:
        r"""Compute the expected log density of the base under N(loc, var), (\*L, R, T)."""
        base_loc, base_var = self.base_moments
        square = ((loc - base_loc) ** 2 + var) / base_var
        log_var = base_var.log().expand(*base_var.shape[:-1], loc.shape[-1]).sum(-1)
        return -0.5 * (square.sum(-1) + log_var + LOG_2_PI * loc.shape[-1])


def once(values: Tensor, num_dims: int | None = None) -> Tensor:
    """Undo ``expand``: narrow expanded dimensions to size 1, among the first ones or all.

    Where possible without a slice, whose gradient would have the size of what is expanded.
    """
    first = values
    for dim in range(values.ndim if num_dims is None else num_dims):
        if values.stride(dim) == 0:
            first = first.narrow(dim, 0, 1)
    base = values._base
    if base is None or first is values or base.requires_grad != values.requires_grad:
        return first
    if base.numel() == 1:
        return base.reshape(()).expand(first.shape)
    same = base.numel() == first.numel() and base.is_contiguous() and first.is_contiguous()
    return base.view(first.shape) if same else first
