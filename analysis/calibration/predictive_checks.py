"""Plot predictive checks: observed targets beside those that the model draws."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.arviz_api import az, collection_on
from pyro_vmtl.analysis.calibration.task_statistics import (
    Replicates,
    TaskStatistics,
    replicates,
    rounding,
    task_statistics,
)
from pyro_vmtl.analysis.canvas import COLORS, INK, MUTED, dressed, on_axes
from pyro_vmtl.analysis.tree_parts import shortened

__all__ = ["plot_ppc", "plot_ppc_by_task"]

MAX_NAMES = 30
"""Tasks or classes with a name on an axis."""

NUM_FARTHEST = 5
"""Tasks named on a plot without room for all."""


def plot_ppc(
    data: xr.DataTree,
    ax: Axes | None = None,
    *,
    group: str = "posterior_predictive",
    num_pp_samples: int = 50,
) -> Axes:
    """Plot all observed targets, and those that the model draws for the same rows.

    Parameters
    ----------
    data
        Tree with ``y`` in the groups ``observed_data`` and ``group``.
    ax
        Axes to draw on; new ones by default.
    group
        ``"posterior_predictive"`` or ``"prior_predictive"``.
    num_pp_samples
        Number of draws of real targets to show.

    Returns
    -------
    Axes
        ArviZ's ``plot_ppc_dist`` of real targets, and its ``plot_ppc_rootogram`` of classes and
        counts, with 90 % intervals. Counts far above all observed ones share the last place.

    Raises
    ------
    ValueError
        If the tree lacks one of the groups.

    See Also
    --------
    plot_ppc_by_task
    arviz_plots.plot_ppc_tstat : The same of one statistic of all targets.
    """
    found, ax = replicates(data, group), on_axes(ax)
    values = (found.observed, found.drawn)
    if found.classes is not None or all(
        bool((part >= 0).all() and (part == np.round(part)).all()) for part in values
    ):
        _draw_rootogram(ax, found)
        xlabel, ylabel = "count" if found.classes is None else "class", "rows (square-root scale)"
    else:
        kind = "kde" if np.ptp(found.observed) > 0 else "ecdf"  # equal targets have no density
        _draw_distributions(ax, found, num_pp_samples, kind)
        xlabel = "target (its own unit)"
        ylabel = "density" if kind == "kde" else "cumulative share"
    drawn_from = "fitted model" if group == "posterior_predictive" else "prior"
    title = f"{len(found.observed)} targets, and draws from the {drawn_from}"
    return dressed(ax, title=title, xlabel=xlabel, ylabel=ylabel)


def _draw_rootogram(ax: Axes, found: Replicates) -> None:
    y = found.observed.astype(int)
    # A small number of draws from a prior can be huge.
    tree = _tree(y, np.minimum(found.drawn, 2 * y.max() + 5).astype(int))
    collection = collection_on(ax, tree["posterior_predictive"].to_dataset())
    visuals = dict.fromkeys(["title", "xlabel", "ylabel", "grid"], False)
    visuals |= {
        "predictive_markers": {"color": COLORS[0]},
        "credible_interval": {"color": COLORS[0]},
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found chain dimension to be longer")
        az.plot_ppc_rootogram(tree, ci_prob=0.9, plot_collection=collection, visuals=visuals)
    _label(collection, predictive_markers="draws", credible_interval="90% of draws")
    _label(collection, observed_markers="observed")
    if found.classes is not None and len(found.classes) <= MAX_NAMES:
        names = [shortened(label, 16) for label in found.classes]
        wide = len(names) > 12 or max(map(len, names)) * len(names) > 60
        ax.set_xticks(range(len(names)), names, rotation=90 if wide else 0)
        ax.set_xlim(-0.5, len(names) - 0.5)
    ax.legend(loc="best")


def _draw_distributions(ax: Axes, found: Replicates, num_samples: int, kind: str) -> None:
    tree = _tree(found.observed, found.drawn)
    stacked = tree["posterior_predictive"].to_dataset().stack(sample=("chain", "draw"))
    collection = collection_on(ax, stacked, overlay_ppc=["sample"])
    num_samples = min(num_samples, len(found.drawn))
    visuals = {
        "predictive_dist": {"color": COLORS[0]},
        "observed_dist": {"color": INK},
        "title": False,
        "remove_axis": False,
    }
    az.plot_ppc_dist(
        tree, kind=kind, num_samples=num_samples, plot_collection=collection, visuals=visuals
    )
    _label(collection, predictive_dist=f"{num_samples} draws", observed_dist="observed")
    ax.set_ylim(0, None)
    for handle in ax.legend(loc="best").legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)


def _tree(observed: np.ndarray, drawn: np.ndarray) -> xr.DataTree:
    """Return what ArviZ needs of a tree."""
    groups = {
        "observed_data": xr.Dataset({"y": ("row", observed)}),
        "posterior_predictive": xr.Dataset({"y": (("chain", "draw", "row"), drawn[None])}),
    }
    return xr.DataTree.from_dict(groups)


def _label(collection: Any, **labels: str) -> None:
    """Label the first artist of each visual."""
    for visual, label in labels.items():
        collection.viz[visual]["y"].values.flat[0].set_label(label)


def plot_ppc_by_task(
    data: xr.DataTree,
    ax: Axes | None = None,
    *,
    group: str = "posterior_predictive",
    ci_prob: float = 0.9,
) -> Axes:
    """Plot the observed mean or class shares of each task, with their predictive intervals.

    Parameters
    ----------
    data
        Tree with ``y`` in the groups ``observed_data`` and ``group``.
    ax
        Axes to draw on; new ones by default.
    group
        ``"posterior_predictive"`` or ``"prior_predictive"``.
    ci_prob
        Probability of the intervals.

    Returns
    -------
    Axes
        A marker for the mean of each task, or for the share of each class in each task, which is a
        cross outside of its interval. Up to 30 task means are listed by name; more of them, and
        shares, are over their expected values. The title counts the crosses, and how many are
        expected: counts and shares have few distinct values, so that fewer than 1 - ``ci_prob``
        are outside.

    Raises
    ------
    ValueError
        If the tree lacks one of the groups.

    See Also
    --------
    predictive_pvalues
    """
    found = task_statistics(data, group)
    of_classes = found.names[:2] != ["mean", "sd"]
    if not of_classes:
        found = found._replace(
            names=["mean"], observed=found.observed[:, :1], drawn=found.drawn[..., :1]
        )
    interval = found.interval(ci_prob)
    slack = rounding(found.observed)
    outside = (found.observed < interval[0] - slack) | (found.observed > interval[1] + slack)
    listed = not of_classes and len(found.tasks) <= MAX_NAMES
    ax = (_draw_list if listed else _draw_scatter)(ax, found, interval, outside)
    what = f"{outside.size} shares" if of_classes else f"{outside.size} task means"
    title = (
        f"{outside.sum()} of {what} {'lies' if outside.sum() == 1 else 'lie'} outside of "
        f"{ci_prob:.0%} intervals,\nabout {found.outside_by_chance(ci_prob).sum():.1f} would by "
        "chance"
    )
    note = "\ndot: observed, bar: interval of draws"
    note += ", \N{MULTIPLICATION SIGN}: observed outside" if outside.any() else ""
    unit = "share of a class in a task" if of_classes else "mean target (its own unit)"
    xlabel, ylabel = (unit, "task") if listed else (f"expected {unit}", f"observed {unit}")
    return dressed(ax, title=title, xlabel=xlabel + note, ylabel=ylabel)


def _draw_list(
    ax: Axes | None,
    found: TaskStatistics,
    interval: tuple[np.ndarray, np.ndarray],
    outside: np.ndarray,
) -> Axes:
    expected = found.drawn.mean(0)[:, 0]
    order, rows = np.argsort(expected, kind="stable"), np.arange(len(expected))
    ax = on_axes(ax, (6.8, 1.9 + 0.28 * len(rows)))
    low, high = (ends[order, 0] for ends in interval)
    ax.hlines(rows, low, high, color=COLORS[5], linewidth=5, zorder=1)
    ax.plot(expected[order], rows, "|", color=INK, markersize=8)
    _mark(ax, found.observed[order, 0], rows, outside[order, 0], 7)
    ax.set_yticks(rows, [shortened(found.tasks[t]) for t in order])
    return ax


def _draw_scatter(
    ax: Axes | None,
    found: TaskStatistics,
    interval: tuple[np.ndarray, np.ndarray],
    outside: np.ndarray,
) -> Axes:
    expected, (low, high) = found.drawn.mean(0), interval
    ax = on_axes(ax, (6.4, 4.8))
    ends = [min(expected.min(), low.min()), max(expected.max(), high.max())]
    ax.plot(ends, ends, "--", color=MUTED, linewidth=1.5, zorder=1)
    width = max(0.5, min(3.0, 300 / expected.size))
    ax.vlines(expected, low, high, color=COLORS[5], linewidth=width, alpha=0.7, zorder=1.5)
    size = 6 if expected.size <= 100 else 4
    _mark(ax, expected.ravel(), found.observed.ravel(), outside.ravel(), size)
    if outside.any():
        bottom, top = ax.get_ylim()
        ax.set_ylim(bottom, top + 0.4 * (top - bottom))  # room for names above the points
        text = ax.text(0.02, 0.98, _farthest(found, outside), fontsize=11, color=INK, va="top")
        text.set_transform(ax.transAxes)
    return ax


def _mark(ax: Axes, x: np.ndarray, y: np.ndarray, outside: np.ndarray, size: float) -> None:
    """Draw observed values, crosses on top."""
    ax.plot(x[~outside], y[~outside], "o", color=COLORS[0], markersize=size, alpha=0.8, zorder=2)
    ax.plot(x[outside], y[outside], "X", color=COLORS[1], markersize=size + 1, zorder=3)


def _farthest(found: TaskStatistics, outside: np.ndarray) -> str:
    """Name the values farthest outside, in standard deviations of draws: p-values have ties."""
    away = np.abs(found.observed - found.drawn.mean(0)) / (found.drawn.std(0) + 1e-9)
    order = np.argsort(-np.where(outside, away, -1.0), axis=None, kind="stable")
    lines = ["farthest outside:"]
    for place in order[: min(NUM_FARTHEST, outside.sum())]:
        t, k = np.unravel_index(place, outside.shape)
        name = shortened(found.names[k].removeprefix("share of "), 14)
        of = f": {name}" if len(found.names) > 1 else ""
        lines.append(f"  {shortened(found.tasks[t], 16)}{of}")
    return "\n".join(lines)
