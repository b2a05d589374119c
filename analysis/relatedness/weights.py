"""Source weights in a DataTree, and tables of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform
from torch import Tensor

from pyro_vmtl.analysis.export.labels import source_labels
from pyro_vmtl.analysis.tree_parts import equal_tails, get_variable
from pyro_vmtl.data.arrays import as_labels

__all__ = [
    "clustered_order",
    "pool_weights",
    "relatedness_datatree",
    "relatedness_table",
    "weight_summary",
]

MOST_OPTIMAL = 400
"""Tasks up to which the leaf order is optimal; for more, it would take longer than the fit."""


def pool_weights(data: xr.DataTree, var_names: str = "w_sources") -> xr.DataArray:
    """Return draws of the weights at a site, (sample, task, source); NaN of a task and itself."""
    weights = get_variable(data, "posterior", var_names)
    wanted = {"chain", "draw", "task", "source"}
    if set(weights.dims) != wanted or weights.sizes["source"] != weights.sizes["task"] + 1:
        raise ValueError(
            f"{var_names!r} has the sizes {dict(weights.sizes)}, expected weights with the "
            "dimensions chain, draw, task and source, and one source more than tasks, the base. "
            "Name another variable, such as var_names='w_sources'."
        )
    values = weights.transpose("chain", "draw", "task", "source").values
    values = values.reshape(-1, *values.shape[2:]).copy()
    itself = range(values.shape[1])
    values[:, itself, itself] = np.nan
    coords = {name: weights[name].values for name in ("task", "source")}
    return xr.DataArray(values, coords, ("sample", "task", "source"))


def weight_summary(
    data: xr.DataTree, var_names: str = "w_sources", ci_prob: float = 0.9
) -> xr.Dataset:
    """Compute ``mean``, ``lower`` and ``upper`` of weights, (task, source); tails are equal."""
    weights = pool_weights(data, var_names)
    ends = weights.quantile(equal_tails(ci_prob), "sample", skipna=False).drop_vars("quantile")
    mean = weights.mean("sample", dtype=float, skipna=False)
    return xr.Dataset({"mean": mean, "lower": ends[0], "upper": ends[1]})


def relatedness_datatree(
    draws: Tensor,
    task_labels: Sequence[Hashable],
    *,
    task_sizes: Sequence[int] | None = None,
    task_name: str = "task",
    name: str = "weight",
) -> xr.DataTree:
    """Make a DataTree of draws of the weights, for the pictures of relatedness.

    Parameters
    ----------
    draws
        (S, T, T + 1), draws of the weights as :func:`pyro_vmtl.relatedness` returns them.
    task_labels
        The T labels of the tasks.
    task_sizes
        The T numbers of training rows, to show them in pictures.
    task_name
        What a task is called, such as the name of the column.
    name
        What the weights are called in pictures: other shares that add to 1 can be shown, too.

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
        attrs={"long_name": name},
    )
    groups = {"posterior": xr.Dataset({"w_sources": weights})}
    if task_sizes is not None:
        row_task = np.repeat(tasks, np.asarray(task_sizes))
        groups["observed_data"] = xr.Dataset(coords={"task": ("row", row_task)})
    tree = xr.DataTree.from_dict(groups)
    tree.attrs["task_name"] = task_name
    return tree


def relatedness_table(draws: Tensor, task_labels: Sequence[Hashable]) -> pd.DataFrame:
    """Compute mean and 90 % interval of the weights of every task.

    Parameters
    ----------
    draws
        (S, T, T + 1), draws of the weights as :func:`pyro_vmtl.relatedness` returns them.
    task_labels
        The T labels of the tasks.

    Returns
    -------
    DataFrame
        Rows are tasks. For each source and the base there are the columns ``(source, "mean")``,
        ``(source, "5%")`` and ``(source, "95%")``. The weight of a task on itself is NaN.

    Examples
    --------
    >>> from pyro_vmtl import relatedness
    >>> relatedness_table(relatedness(guide), data.task_labels).shape
    (3, 12)
    """
    labels = list(task_labels)
    found = weight_summary(relatedness_datatree(draws, range(len(labels))))
    table = np.stack([found[name].values for name in ("mean", "lower", "upper")], axis=-1)
    names = [(source, name) for source in [*labels, "base"] for name in ("mean", "5%", "95%")]
    return pd.DataFrame(
        dict(zip(names, table.reshape(len(labels), -1).astype(float).T, strict=True)),
        index=pd.Index(labels, name="task"),
    )


def clustered_order(mean: np.ndarray) -> list[int]:
    """Order tasks so that those that borrow from one another stand side by side.

    Hierarchical clustering by mean weights (T, T + 1), the base aside, in the optimal leaf order
    (Bar-Joseph, Gifford and Jaakkola, Bioinformatics 2001).
    """
    sources = np.nan_to_num(mean[:, :-1])
    if len(sources) < 3:
        return list(range(len(sources)))
    tiny = np.finfo(float).tiny
    shares = sources / np.maximum(sources.sum(1, keepdims=True), tiny)
    near = (shares + shares.T) / 2
    distance = squareform(1 - near / max(near.max(), tiny), checks=False)
    tree = linkage(distance, method="average")
    if len(sources) <= MOST_OPTIMAL:
        tree = optimal_leaf_ordering(tree, distance)
    order: list[int] = leaves_list(tree).tolist()
    # of both directions, the one nearer to the given order
    return order if np.corrcoef(order, range(len(order)))[0, 1] >= 0 else order[::-1]
