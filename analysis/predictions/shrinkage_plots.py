"""What sharing does to a coefficient: each task's estimate alone, and with the others."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from pyro_vmtl.analysis.canvas import COLORS, INK, MUTED, dressed, legend_above, on_axes
from pyro_vmtl.analysis.tree_parts import SAMPLE_DIMS, needed, shortened

__all__ = ["plot_shrinkage"]

MOST_LABELS = 30
"""Tasks that are named along the axis."""

ABOVE = 0.3
"""How far an estimate alone is above the line of its task, so that both can be seen."""


def plot_shrinkage(
    data: xr.DataTree,
    reference: xr.DataTree | None = None,
    ax: Axes | None = None,
    *,
    var_names: str = "w",
    coords: Mapping[str, Hashable] | None = None,
    ci_prob: float = 0.9,
) -> Axes:
    """One coefficient of every task, estimated alone (hollow) and with the others (filled).

    Parameters
    ----------
    data
        The tree of a fit that shares, or that of a stack, whose member ``"shared"`` is taken.
    reference
        The tree of a fit of each task alone; of a stack by default its member ``"alone"``.
    ax
        Axes to draw on; new ones by default.
    var_names
        The site.
    coords
        Which coefficient, such as ``{"feature": "hours", "class": "high"}``. Where a dimension is
        left out, the one is taken whose shared means differ most between tasks, relative to
        how uncertain they are.
    ci_prob
        Probability of the intervals, with equal tails.

    Returns
    -------
    Axes
        A line for each task, ordered by the shared mean. A thin line joins the two estimates; the
        vertical line is the mean of the prior, where the tree has draws of it. Coefficients are of
        standardised features.

    Raises
    ------
    ValueError
        If a tree lacks what is needed, there is no such coefficient, or a task has no estimate
        alone.

    Examples
    --------
    >>> import numpy as np
    >>> def tree(means):
    ...     w = np.array(means)[None, None, :, None] + np.linspace(-1, 1, 9)[None, :, None, None]
    ...     dims = ("chain", "draw", "task", "feature")
    ...     labels = {"task": ["Ada", "Bo"], "feature": ["hours"]}
    ...     return xr.DataTree.from_dict({"posterior": xr.Dataset({"w": (dims, w)}, labels)})
    >>> ax = plot_shrinkage(tree([1.0, 2.0]), tree([0.0, 5.0]))
    >>> ax.get_xlabel()
    "'hours', standard units"
    """
    task_name = shortened(data.attrs.get("task_name", "task"))
    data, reference = _members(data, reference)
    if not 0 < ci_prob < 1:
        raise ValueError(f"ci_prob is {ci_prob}, expected a probability between 0 and 1.")
    shared = _of_tasks(data, var_names)
    chosen = _chosen(shared, dict(coords or {}))
    shared = shared.sel(chosen)
    alone = _of_tasks(reference, var_names).sel(chosen).mean(SAMPLE_DIMS)
    strangers = [t for t in shared["task"].values.tolist() if t not in alone["task"].values]
    if strangers:
        raise ValueError(
            f"reference has no {var_names!r} of task {strangers[0]!r}, which is in data. Pass a "
            "fit to the same tasks."
        )
    shared = shared.isel(task=np.argsort(shared.mean(SAMPLE_DIMS).values, kind="stable"))
    tasks = shared["task"].values.tolist()
    before = alone.sel(task=tasks).values
    after = shared.mean(SAMPLE_DIMS).values
    tail = (1 - ci_prob) / 2
    low, high = shared.quantile([tail, 1 - tail], SAMPLE_DIMS).values
    num = len(tasks)
    ax = on_axes(ax, (6.8, min(1.9 + 0.36 * num, 8.0)))
    places, size = np.arange(num), 7.0 if num <= MOST_LABELS else 3.5
    if (base := _prior_mean(data, var_names, chosen)) is not None:
        ax.axvline(base, color=MUTED, linestyle="dashed", linewidth=1.3, label="mean of the prior")
    ends = np.stack(
        [np.stack([before, places + ABOVE], axis=1), np.stack([after, places], axis=1)], axis=1
    )
    ax.add_collection(LineCollection(list(ends), colors="0.6", linewidths=1.0, zorder=1.5))
    interval = f"with the others, {100 * ci_prob:g} %"
    ax.hlines(places, low, high, color=COLORS[0], linewidth=size / 3, zorder=2)
    ax.plot(after, places, "o", color=COLORS[0], markersize=size, label=interval, zorder=3)
    hollow: dict[str, Any] = {
        "markerfacecolor": "white",
        "markeredgecolor": INK,
        "markersize": size,
    }
    ax.plot(before, places + ABOVE, "o", **hollow, label="alone", zorder=2.5)
    every = range(num - 1, -1, -num // MOST_LABELS)
    ax.set_yticks(list(every), [shortened(tasks[i]) for i in every])
    ax.set_ylim(-0.7, num - 0.2)
    dressed(
        ax,
        title="What sharing does to a coefficient",
        xlabel=_named(var_names, chosen),
        ylabel=task_name,
    )
    return legend_above(ax, ncols=2)


def _members(data: xr.DataTree, reference: xr.DataTree | None) -> tuple[xr.DataTree, xr.DataTree]:
    """Take the members of a stack."""
    if "stack" in data.children and "shared" in data.children:
        if reference is None and "alone" in data.children:
            reference = data.children["alone"]
        data = data.children["shared"]
    if reference is None:
        raise ValueError(
            "There is no reference, and data is no stack with the members 'shared' and 'alone'. "
            "Pass as reference the tree of a fit of each task alone."
        )
    return data, reference


def _of_tasks(data: xr.DataTree, name: str) -> xr.DataArray:
    values = needed(data, "posterior", name)
    if "task" not in values.dims:
        raise ValueError(
            f"{name!r} has the dimensions {list(values.dims)}, and none of them is 'task'. Pass "
            "as var_names a site of the task plate."
        )
    return values


def _chosen(values: xr.DataArray, coords: dict[str, Any]) -> dict[str, Any]:
    """Complete the choice by the coefficient whose tasks differ most, relative to their width."""
    dims = [str(dim) for dim in values.dims if dim not in (*SAMPLE_DIMS, "task")]
    for dim, label in coords.items():
        if dim not in dims:
            raise ValueError(f"coords has {dim!r}, expected some of {dims}.")
        known = values[dim].values.tolist()
        if label not in known:
            raise ValueError(
                f"coords has {dim} {label!r}, expected one of {known[:10]}"
                f"{' and more' if len(known) > 10 else ''}."
            )
    left = values.sel(coords)
    spread = left.mean(SAMPLE_DIMS).std("task")
    width = left.var(SAMPLE_DIMS).mean("task") ** 0.5
    # A coefficient without a width, such as a constant, is none to compare with.
    clear = spread / width.where(width > 0, np.inf) if bool((width > 0).any()) else spread
    largest = clear.argmax(...) if clear.dims else {}
    return coords | {
        str(dim): values[dim].values.tolist()[int(place)] for dim, place in largest.items()
    }


def _prior_mean(data: xr.DataTree, name: str, chosen: dict[str, Any]) -> float | None:
    """Get the mean of a coefficient's prior over draws and tasks."""
    if "prior" not in data.children or name not in data["prior"].data_vars:
        return None
    return float(data["prior"].dataset[name].sel(chosen).mean())


def _named(name: str, chosen: dict[str, Any]) -> str:
    """Write a coefficient in words, such as ``'pixel 3, 4' of class 7, standard units``."""
    labels = {dim: shortened(label, 24) for dim, label in chosen.items()}
    feature = labels.pop("feature", None)
    what = name if feature is None else f"'{feature}'"
    where = " and ".join(f"{dim} {label}" for dim, label in labels.items())
    return f"{what}{' of ' if where else ''}{where}, standard units"
