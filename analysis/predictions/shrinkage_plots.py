"""Shrinkage: estimates of a coefficient by each task alone, and with sharing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from pyro_vmtl.analysis.canvas import COLORS, INK, MUTED, label_axes, legend_above, on_axes
from pyro_vmtl.analysis.tree_parts import SAMPLE_DIMS, equal_tails, get_variable, shorten, task_name
from pyro_vmtl.data.one_task import POOLED

__all__ = ["plot_shrinkage"]

MOST_LABELS = 30
"""Tasks that are named along the axis."""

ABOVE = 0.3
"""Distance of an estimate alone from the line of its task, so that both are visible."""


def plot_shrinkage(
    data: xr.DataTree,
    reference: xr.DataTree | None = None,
    ax: Axes | None = None,
    *,
    var_names: str = "w",
    coords: Mapping[str, Hashable] | None = None,
    ci_prob: float = 0.9,
    labels: tuple[str, str] = ("alone", "with the others"),
) -> Axes:
    """Plot a coefficient of every task in two fits: alone (hollow), say, and shared (filled).

    Parameters
    ----------
    data
        The tree of a fit, or that of a stack, whose member ``"shared"`` is used.
    reference
        The tree of another fit to compare with; of a stack by default its member ``"alone"``. That
        of a pooled fit has one estimate for all tasks.
    ax
        Axes to draw on; new ones by default.
    var_names
        The site.
    coords
        Labels of the coefficient, such as ``{"feature": "hours", "class": "high"}``. Where a
        dimension is missing, the coefficient whose shared means differ most between tasks,
        relative to their uncertainty, is chosen.
    ci_prob
        Probability of the intervals, with equal tails.
    labels
        What the legend calls the reference and the fit.

    Returns
    -------
    Axes
        A line for each task, ordered by the mean of the fit. A thin line joins the two estimates;
        the vertical line is the mean of the prior, where the tree has draws of it. Coefficients are
        of standardized features.

    Examples
    --------
    >>> ax = plot_shrinkage(tree, tree, coords={"feature": "x0"})
    """
    name = task_name(data)
    if "stack" in data.children and "shared" in data.children:
        if reference is None:
            reference = data.children.get("alone")
        data = data.children["shared"]
    if reference is None:
        raise ValueError(
            "There is no reference, and data is no stack with the members 'shared' and 'alone'. "
            "Pass as reference the tree of another fit, such as one of each task alone."
        )
    draws = _of_tasks(data, var_names)
    chosen = _choose(draws, dict(coords or {}))
    draws = draws.sel(chosen)
    ends = draws.quantile(equal_tails(ci_prob), SAMPLE_DIMS)
    shared = draws.mean(SAMPLE_DIMS)
    alone = _of_tasks(reference, var_names).sel(chosen).mean(SAMPLE_DIMS)
    if alone["task"].values.tolist() == [POOLED]:
        alone = alone.sel(task=[POOLED] * shared.sizes["task"]).assign_coords(task=shared["task"])
    missing = [t for t in shared["task"].values.tolist() if t not in alone["task"].values]
    if missing:
        raise ValueError(
            f"reference has no {var_names!r} of task {missing[0]!r}, which is in data. Pass a "
            "fit to the same tasks."
        )
    order = np.argsort(shared.values, kind="stable")
    tasks = shared["task"].values[order]
    after, (low, high), before = shared[order], ends[:, order].values, alone.sel(task=tasks)
    num = len(tasks)
    ax = on_axes(ax, (6.8, min(1.9 + 0.36 * num, 8.0)))
    places, size = np.arange(num), 7.0 if num <= MOST_LABELS else 3.5
    if "prior" in data.children and var_names in data["prior"].data_vars:
        base = float(data["prior"].dataset[var_names].sel(chosen).mean())
        ax.axvline(base, color=MUTED, linestyle="dashed", linewidth=1.3, label="mean of the prior")
    segments = np.stack([np.c_[before, places + ABOVE], np.c_[after, places]], axis=1)
    ax.add_collection(LineCollection(list(segments), colors="0.6", linewidths=1.0, zorder=1.5))
    interval = f"{labels[1]}, {100 * ci_prob:g} %"
    ax.hlines(places, low, high, color=COLORS[0], linewidth=size / 3, zorder=2)
    ax.plot(after, places, "o", color=COLORS[0], markersize=size, label=interval, zorder=3)
    (hollow,) = ax.plot(before, places + ABOVE, "o", markersize=size, label=labels[0], zorder=2.5)
    hollow.set(markerfacecolor="white", markeredgecolor=INK)
    every = range(num - 1, -1, -num // MOST_LABELS)
    ax.set_yticks(every, [shorten(task) for task in tasks[every]])
    ax.set_ylim(-0.7, num - 0.2)
    title = "What sharing does to a coefficient"
    label_axes(ax, title=title, xlabel=_describe(var_names, chosen), ylabel=name)
    return legend_above(ax, ncols=2)


def _of_tasks(data: xr.DataTree, name: str) -> xr.DataArray:
    values = get_variable(data, "posterior", name)
    if "task" not in values.dims:
        raise ValueError(
            f"{name!r} has the dimensions {list(values.dims)}, and none of them is 'task'. Pass "
            "as var_names a site of the task plate."
        )
    return values


def _choose(values: xr.DataArray, coords: dict[str, Any]) -> dict[str, Any]:
    """Complete the labels by the coefficient whose tasks differ most, relative to their width."""
    dims = [str(dim) for dim in values.dims if dim not in (*SAMPLE_DIMS, "task")]
    for dim, label in coords.items():
        if dim not in dims:
            raise ValueError(f"coords has {dim!r}, expected some of {dims}.")
        known = values[dim].values.tolist()
        if label not in known:
            more = " and more" if len(known) > 10 else ""
            raise ValueError(f"coords has {dim} {label!r}, expected one of {known[:10]}{more}.")
    left = values.sel(coords)
    spread = left.mean(SAMPLE_DIMS).std("task")
    width = left.var(SAMPLE_DIMS).mean("task") ** 0.5
    # constants have no width to compare with
    clear = spread / width.where(width > 0, np.inf) if bool((width > 0).any()) else spread
    largest = clear[clear.argmax(...)] if clear.dims else clear
    return coords | {dim: largest[dim].item() for dim in dims if dim not in coords}


def _describe(name: str, chosen: dict[str, Any]) -> str:
    """Describe a coefficient in words, such as ``'pixel 3, 4' of class 7, standard units``."""
    labels = {dim: shorten(label, 24) for dim, label in chosen.items()}
    what = f"'{labels.pop('feature')}'" if "feature" in labels else name
    where = " and ".join(f"{dim} {label}" for dim, label in labels.items())
    return f"{what}{' of ' if where else ''}{where}, standard units"
