"""Predictions of rows for a tree: moments and intervals, the parts of the uncertainty, and PIT."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import xarray as xr
from torch import Tensor
from torch.distributions import Distribution

from pyro_vmtl.analysis.export.labels import Labels, Variable
from pyro_vmtl.analysis.export.predictive_split import split_uncertainty
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.predictive.families import family_of, predictive_mixture

__all__ = ["chunks", "predictions", "summarize_draws"]

MOST_NUMBERS = 20_000_000
"""Numbers that draws of some rows may have at once."""

INTERVAL = 0.05, 0.95

Draws = Callable[[TaskData], Sequence[Distribution]]
"""Returns, for rows, what draws of each member predict, (S, T, N)."""


@torch.no_grad()
def predictions(
    draws: Draws, weights: Tensor, rows: TaskData, labels: Labels, *, num_draws: int, seed: int
) -> xr.Dataset:
    """Predict rows by ``num_draws`` draws of all members together, whose weights are (T, M)."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        summarize_draws(draws(some), weights, some.y, generator) for some in chunks(rows, num_draws)
    ]
    variables = {}
    for name in parts[0]:
        values = torch.cat([part[name] for part in parts], dim=1)
        dims = ("row", "class") if values.ndim > 2 else ("row",)
        variables[name] = Variable(dims, labels.of_rows(values[None])[0].cpu().numpy())
    group = labels.dataset(variables)
    labels.note_classes("y", group)
    return group


def chunks(rows: TaskData, num_draws: int) -> list[TaskData]:
    """Split rows so that the predictions of each chunk by all draws fit into memory."""
    step = max(1, MOST_NUMBERS // (num_draws * rows.num_tasks * max(rows.num_classes, 2)))
    starts = range(0, rows.num_rows, step)
    return [rows.map_rows(lambda v, a=a: v[:, a : a + step]) for a in starts]  # type: ignore[misc]


def summarize_draws(
    draws: Sequence[Distribution], weights: Tensor, y: Tensor | None, generator: torch.Generator
) -> dict[str, Tensor]:
    """Compute all variables of :func:`predictions` in the layout of the draws, (T, N)."""
    found = split_uncertainty(draws, weights, INTERVAL)
    if "quantile" in found:
        found["lower"], found["upper"] = found.pop("quantile").unbind(-1)
        if y is not None:
            mixture = predictive_mixture(draws, weights)
            found["pit"] = family_of(draws[0]).pit(mixture, y, generator)
    return found if y is None else {**found, "y": y}
