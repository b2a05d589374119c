"""Draws of the weights of pools in a tree, as the pictures of relatedness take them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from torch import Tensor

from pyro_vmtl.analysis.export.labels import as_labels, source_labels
from pyro_vmtl.analysis.tree_parts import needed

__all__ = ["PoolWeights", "pool_weights", "relatedness_datatree"]


@dataclass(frozen=True, eq=False)
class PoolWeights:
    """Draws of the weights at one site.

    Attributes
    ----------
    draws
        (S, T, T + 1), the base last.
    tasks, sources
        labels of rows and columns.
    task_name
        what a task is called, such as the user's column.
    """

    draws: np.ndarray
    tasks: list[Hashable]
    sources: list[str]
    task_name: str

    @property
    def even_share(self) -> float:
        """Weight of each of the other tasks and the base if all had the same."""
        return 1 / len(self.tasks)

    def mean(self) -> np.ndarray:
        """Give means, (T, T + 1); NaN for a task and itself."""
        return self._no_self(self.draws.mean(0, dtype=float))

    def interval(self, ci_prob: float) -> tuple[np.ndarray, np.ndarray]:
        """Give lower and upper ends of equal-tailed intervals, (T, T + 1) each."""
        tail = (1 - ci_prob) / 2
        # task by task: a quantile copies its draws
        rows = [np.quantile(row, [tail, 1 - tail], axis=0) for row in self.draws.swapaxes(0, 1)]
        lower, upper = np.stack(rows, axis=1)
        return self._no_self(lower), self._no_self(upper)

    def _no_self(self, values: np.ndarray) -> np.ndarray:
        values = values.astype(float)
        np.fill_diagonal(values[:, :-1], np.nan)
        return values


def pool_weights(data: xr.DataTree, var_names: str = "w_sources") -> PoolWeights:
    """Take the draws of the weights at a site out of a tree.

    Raises
    ------
    ValueError
        If they are not there.
    """
    weights = needed(data, "posterior", var_names)
    wanted = {"chain", "draw", "task", "source"}
    if set(weights.dims) != wanted or weights.sizes["source"] != weights.sizes["task"] + 1:
        raise ValueError(
            f"{var_names!r} has the sizes {dict(weights.sizes)}, expected weights with the "
            "dimensions chain, draw, task and source, and one source more than tasks, the base. "
            "Name another variable, such as var_names='w_sources'."
        )
    values = weights.transpose("chain", "draw", "task", "source").values
    return PoolWeights(
        values.reshape(-1, *values.shape[2:]),
        weights["task"].values.tolist(),
        [str(source) for source in weights["source"].values],
        str(data.attrs.get("task_name", "task")),
    )


def relatedness_datatree(
    draws: Tensor,
    task_labels: Sequence[Hashable],
    *,
    task_sizes: Sequence[int] | None = None,
    task_name: str = "task",
) -> xr.DataTree:
    """Put draws of the weights into a tree, for the pictures of relatedness.

    Parameters
    ----------
    draws
        (S, T, T + 1), draws of the weights as :func:`pyro_vmtl.relatedness` gives them.
    task_labels
        The T labels of the tasks.
    task_sizes
        The T numbers of rows, if they are to be shown.
    task_name
        What a task is called, such as the name of the column.

    Returns
    -------
    DataTree
        Its group ``posterior`` has ``w_sources`` (chain, draw, task, source), with one chain.

    Examples
    --------
    >>> import torch
    >>> weights = torch.tensor([[0.0, 0.75, 0.25], [0.5, 0.0, 0.5]])
    >>> tree = relatedness_datatree(weights.expand(5, 2, 3), ["north", "south"])
    >>> tree["posterior"]["w_sources"].sel(task="north", source="south").mean().item()
    0.75
    """
    tasks = as_labels(task_labels)
    weights = xr.DataArray(
        draws.detach().cpu().numpy()[None],
        dims=("chain", "draw", "task", "source"),
        coords={"task": tasks, "source": source_labels(tasks)},
    )
    groups = {"posterior": xr.Dataset({"w_sources": weights})}
    if task_sizes is not None:
        of_rows = np.repeat(tasks, np.asarray(task_sizes))
        groups["observed_data"] = xr.Dataset(coords={"task": ("row", of_rows)})
    tree = xr.DataTree.from_dict(groups)
    tree.attrs["task_name"] = task_name
    return tree
