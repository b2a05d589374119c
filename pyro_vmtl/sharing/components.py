r"""Components of a pool: the sources of all tasks in one layout for batched arithmetic.

A site has the batch shape (T, \*rest) and an event of P numbers; the R cells of ``rest`` are
independent of each other. Values have the shape (\*L, R, T, P), with particles L on the left.

======================== ======================= =========================================
components               shape of the moments    example
======================== ======================= =========================================
:class:`TaskComponents`  (R, T, P)               ``w``: a source is a task's posterior
:class:`CellComponents`  (R, T, T - 1, P)        ``z``: every row has sources of its own
======================== ======================= =========================================

The first kind compares all tasks with all sources by matrix products, without intermediate values
of size (T, T, P).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["CellComponents", "Components", "TaskComponents", "other_tasks"]

LOG_2_PI = math.log(2 * math.pi)

PRODUCT_EPS = {"highest": 2.0**-23, "high": 2.0**-10, "medium": 2.0**-7}
"""Relative rounding of float32 products, TF32 ones and bfloat16 ones."""

LEAST_WEIGHT = 1e-6
"""Added to the weights of the sources of a cell where other sources are missing."""


@dataclass(eq=False)
class _Moments:
    """Means and variances of normal sources, and the transfer variances to add."""

    loc: Tensor
    source_var: Tensor
    transfer_var: Tensor

    def __post_init__(self) -> None:
        self.var = self.source_var + self.transfer_var


@dataclass(eq=False)
class TaskComponents(_Moments):
    """One source for each task, the same for all: moments (R, T, P)."""

    use_float64: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.dtype = torch.float64 if self.use_float64 else self.loc.dtype
        # Squared differences are expanded into matrix products, whose terms cancel. Less is lost
        # when the sources are near 0 in units of their standard deviations, hence the centering.
        self.center = self.loc.detach().mean(-2, keepdim=True)

    @cached_property
    def _factors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Factors of a task's square and mean, the constant, and the distance from the center."""
        centered, var = (self.loc - self.center).to(self.dtype), self.var.to(self.dtype)
        of_loc = centered / var
        distance = (centered * of_loc).sum(-1)
        log_volume = var.log().sum(-1) + LOG_2_PI * var.shape[-1]
        return -0.5 / var, of_loc, -0.5 * (distance + log_volume), distance

    @property
    def rounding(self) -> Tensor:
        """Estimated float32 rounding error of a source's log density at its own mean, in nats."""
        return self._factors[3].detach().max() * _product_eps()

    def weights(self, weights: Tensor) -> Tensor:
        r"""Reshape pool weights to (\*L, 1, T, T + 1): all cells have the same."""
        return weights.unsqueeze(-3)

    def log_probs(self, loc: Tensor, var: Tensor | float) -> Tensor:
        r"""Compute the expected log density of each source under N(loc, var), (\*L, R, T, T)."""
        centered = (loc - self.center).to(self.dtype)
        square = centered**2 + var

        def rows(values: Tensor) -> Tensor:  # particles become further rows of the product
            return values.movedim(-3, 0).flatten(1, -2)

        of_square, of_loc, constant, _ = self._factors
        with torch.autocast(loc.device.type, enabled=False):  # differences of large sums
            products = torch.baddbmm(constant.unsqueeze(-2), rows(square), of_square.mT)
            products = torch.baddbmm(products, rows(centered), of_loc.mT).to(loc.dtype)
        return products.unflatten(1, (*loc.shape[:-3], loc.shape[-2])).movedim(0, -3)

    def mix(self, weights: Tensor, values: Tensor) -> Tensor:
        r"""Sum values (R, T, P) with weights (\*L, R, T, T)."""
        return weights @ values

    def pick(self, values: Tensor, source: Tensor) -> Tensor:
        r"""Take rows of values (R, T, P) by indices (\*L, R, T)."""
        cell = torch.arange(values.shape[0], device=values.device)[:, None]
        return values[cell, source]


@dataclass(eq=False)
class CellComponents(_Moments):
    """Separate sources for each cell: moments that broadcast to (R, T, T - 1, P).

    ``present`` (R, T, T - 1) is False where a task has no source for a cell. Its weight goes to the
    other sources and the base in proportion, and to the base where a cell has no source at all.
    ``others`` (T, T - 1) are the other tasks of each task.
    """

    present: Tensor
    others: Tensor

    def weights(self, weights: Tensor) -> Tensor:
        r"""Reshape pool weights to (\*L, R, T, T): sources present in each cell, and the base."""
        base = weights[..., -1:].unsqueeze(-3)
        others = self.others.expand(*weights.shape[:-1], -1)
        sources = weights.gather(-1, others).unsqueeze(-3)
        # Where some are missing, the rest may have almost no weight to normalize.
        some_missing = ~self.present.all(-1, keepdim=True)
        sources = torch.where(some_missing, sources + LEAST_WEIGHT, sources) * self.present
        alone = ~self.present.any(-1, keepdim=True)
        both = torch.cat([sources, torch.where(alone, 1.0, base)], dim=-1)
        return both / both.sum(-1, keepdim=True)

    def log_probs(self, loc: Tensor, var: Tensor | float) -> Tensor:
        r"""Compute the expected log density of each source under N(loc, var), (\*L, R, T, K)."""
        square = (loc.unsqueeze(-2) - self.loc) ** 2
        if isinstance(var, Tensor):
            square = square + var.unsqueeze(-2)
        return -0.5 * (square / self.var + self.var.log() + LOG_2_PI).sum(-1)

    def mix(self, weights: Tensor, values: Tensor) -> Tensor:
        r"""Sum values (R, T, K, P) with weights (\*L, R, T, K)."""
        return (weights.unsqueeze(-2) @ values).squeeze(-2)

    def pick(self, values: Tensor, source: Tensor) -> Tensor:
        r"""Take one source's values (\*L, R, T, P) by indices (\*L, R, T)."""
        index = source[..., None, None].expand(*source.shape, 1, values.shape[-1])
        return values.expand(*source.shape, *values.shape[-2:]).gather(-2, index).squeeze(-2)


Components = TaskComponents | CellComponents
"""Sources of a pool. The base comes last among the K + 1 weights of each task and cell."""


def _product_eps() -> float:
    """Relative rounding of float32 products, by the precision that is set in torch."""
    try:
        return PRODUCT_EPS[torch.get_float32_matmul_precision()]
    except RuntimeError:  # torch refuses to answer where backends have settings of their own
        return PRODUCT_EPS["medium"]


def other_tasks(num_tasks: int, device: torch.device | None = None) -> Tensor:
    """Return the indices of the other tasks in order, (T, T - 1), as [[1, 2], [0, 2], [0, 1]]."""
    task = torch.arange(num_tasks, device=device)
    return task[:-1] + (task[:-1] >= task[:, None])
