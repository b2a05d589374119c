"""Would the model draw targets like those observed? Pictures of predictive checks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import gaussian_filter1d

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

INTERVAL = 0.9
"""Probability of intervals of bars."""

MOST_NAMED = 30
"""Tasks, classes or counts that have a place of their own on an axis."""

NUM_WORST = 5
"""Names on a picture that has no room for all."""

CROSS = "\N{MULTIPLICATION SIGN}"


def plot_ppc(
    data: xr.DataTree,
    ax: Axes | None = None,
    *,
    group: str = "posterior_predictive",
    num_pp_samples: int = 50,
) -> Axes:
    """Picture of all targets together, and of those that the model draws for the same rows.

    Parameters
    ----------
    data
        Tree with ``y`` in the groups ``observed_data`` and ``group``.
    ax
        Axes to draw on; new ones by default.
    group
        ``"posterior_predictive"`` or ``"prior_predictive"``.
    num_pp_samples
        Draws of real targets that have a line.

    Returns
    -------
    Axes
        Real targets as a density, smoothed, among those of draws. Classes and counts as a bar for
        each, with the mean of all draws and their 90 % interval.

    Raises
    ------
    ValueError
        If the tree lacks one of the groups.
    """
    found = replicates(data, group)
    from_what = "fitted model" if group == "posterior_predictive" else "prior"
    title = f"{len(found.observed)} targets, and draws of the {from_what}"
    if found.classes is not None:
        names = [shortened(label, 16) for label in found.classes]
        ax = _bars(ax, found, np.arange(-0.5, len(names)), names)
        return dressed(ax, title=title, xlabel="class", ylabel="rows")
    if found.whole:
        # Few rows of the prior can be huge: what is far above all observed shares the last bar.
        most = int(max(found.observed.max(), min(found.drawn.max(), 2 * found.observed.max() + 5)))
        step = -(-(most + 1) // MOST_NAMED)
        edges = np.arange(0, most + step + 1, step) - 0.5
        ax = _bars(ax, found, edges, None)
        return dressed(ax, title=title, xlabel="count", ylabel="rows")
    ax = _densities(ax, found, num_pp_samples)
    return dressed(ax, title=title, xlabel="target (its own unit)", ylabel="density")


def plot_ppc_by_task(
    data: xr.DataTree,
    ax: Axes | None = None,
    *,
    group: str = "posterior_predictive",
    ci_prob: float = 0.9,
) -> Axes:
    """Picture of what was observed in each task, and of what the model would expect there.

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
        For real targets and counts the mean of each task as a marker on its predictive interval,
        tasks in the order of what is expected of them. For classes a marker for each task and
        class: the share observed over the share expected, with its predictive interval. Markers are
        crosses outside of their intervals. The title says how many are, and how many one would
        expect: counts and shares have few values, so that fewer than 1 - ``ci_prob`` are.

    Raises
    ------
    ValueError
        If the tree lacks one of the groups.
    """
    found = task_statistics(data, group)
    of_classes = found.names[:2] != ["mean", "sd"]
    if not of_classes:
        found = found._replace(
            names=["mean"], observed=found.observed[:, :1], drawn=found.drawn[..., :1]
        )
    low, high = found.interval(ci_prob)
    slack = rounding(found.observed)
    outside = (found.observed < low - slack) | (found.observed > high + slack)
    expected = found.outside_by_chance(ci_prob).sum()
    what = f"{outside.size} shares" if of_classes else f"{outside.size} task means"
    verb = "lies" if outside.sum() == 1 else "lie"
    title = (
        f"{outside.sum()} of {what} {verb} outside of {ci_prob:.0%} intervals,\n"
        f"about {expected:.1f} would by chance"
    )
    note = "\ndot: observed, bar: interval of draws"
    if outside.any():
        note += f", {CROSS}: observed outside"
    if of_classes:
        return dressed(
            _draw_shares(ax, found, low, high, outside),
            title=title,
            xlabel=f"share expected (mean of draws){note}",
            ylabel="share of a class in a task",
        )
    order = np.argsort(found.drawn.mean(0)[:, 0], kind="stable")
    ax = _draw_means(ax, found, order, (low[:, 0], high[:, 0]), outside[:, 0])
    few = len(order) <= MOST_NAMED
    ylabel = "task" if few else f"{len(order)} tasks, by what is expected"
    return dressed(ax, title=title, xlabel=f"mean target (its own unit){note}", ylabel=ylabel)


def _bars(
    ax: Axes | None, found: Replicates, edges: np.ndarray, names: Sequence[str] | None
) -> Axes:
    """Draw how many rows are between edges, of what was observed and of draws."""
    counts = np.histogram(np.minimum(found.observed, edges[-1]), edges)[0]
    drawn = np.stack([np.histogram(np.minimum(y, edges[-1]), edges)[0] for y in found.drawn])
    ends = [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2]
    low, high = np.quantile(drawn, ends, axis=0, method="inverted_cdf")
    at, width = (edges[1:] + edges[:-1]) / 2, 0.8 * np.diff(edges)
    ax = on_axes(ax)
    ax.bar(at, counts, width, color=COLORS[5], label="observed")
    ax.vlines(at, low, high, color=INK, linewidth=2, label=f"{INTERVAL:.0%} of draws")
    ax.plot(at, drawn.mean(0), "o", color=INK, markersize=5, label="mean of draws")
    if names is None:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    elif len(names) <= MOST_NAMED:
        wide = len(names) > 12 or max(map(len, names)) * len(names) > 60
        ax.set_xticks(at, names, rotation=90 if wide else 0)
    # Room for the legend above the highest bar.
    ax.set_ylim(0, 1.25 * max(counts.max(), high.max()))
    ax.legend(loc="upper center", ncols=3, columnspacing=1.2, handlelength=1.2)
    return ax


def _densities(ax: Axes | None, found: Replicates, num_samples: int) -> Axes:
    """Draw smoothed densities, all with the bandwidth of what was observed."""
    y = found.observed.astype(float)
    margin = 0.5 * np.ptp(y) or 3 * found.drawn.std() or 1.0
    grid = np.linspace(y.min() - margin, y.max() + margin, 513)
    step = grid[1] - grid[0]
    spread = min(y.std(), np.subtract(*np.quantile(y, [0.75, 0.25])) / 1.34) or y.std() or margin
    bandwidth = 0.9 * spread * len(y) ** -0.2  # Silverman's

    def density(values: np.ndarray) -> np.ndarray:
        shares = np.histogram(values, grid)[0] / len(values) / step
        smooth: np.ndarray = gaussian_filter1d(shares, bandwidth / step, mode="constant")
        return smooth

    at = (grid[1:] + grid[:-1]) / 2
    some = np.unique(np.linspace(0, len(found.drawn) - 1, num_samples).astype(int))
    ax = on_axes(ax)
    for s in some:
        (line,) = ax.plot(at, density(found.drawn[s]), color=COLORS[0], linewidth=0.8, alpha=0.35)
    line.set_label(f"{len(some)} draws")
    mean = density(found.drawn.ravel())
    ax.plot(at, mean, "--", color=COLORS[0], linewidth=2, label="all draws")
    observed = density(y)
    ax.plot(at, observed, color=INK, linewidth=2.2, label="observed")
    seen = np.flatnonzero(np.maximum(mean, observed) > 0.002 * max(mean.max(), observed.max()))
    ax.set_xlim(at[seen[0]], at[seen[-1]])
    ax.set_ylim(0, None)
    for handle in ax.legend(loc="best").legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)
    return ax


def _draw_means(
    ax: Axes | None,
    found: TaskStatistics,
    order: np.ndarray,
    interval: tuple[np.ndarray, np.ndarray],
    outside: np.ndarray,
) -> Axes:
    num = len(order)
    few = num <= MOST_NAMED
    rows, width = np.arange(num), 5.0 if few else max(0.6, min(3.0, 220 / num))
    ax = on_axes(ax, (6.8, 1.9 + (0.28 * num if few else 3.3)))
    low, high = (ends[order] for ends in interval)
    ax.hlines(rows, low, high, color=COLORS[5], linewidth=width, zorder=1)
    ax.plot(found.drawn.mean(0)[order, 0], rows, "|", color=INK, markersize=8 if few else 2)
    _mark(ax, found.observed[order, 0], rows, outside[order], 7 if few else 4)
    if few:
        ax.set_yticks(rows, [shortened(found.tasks[t]) for t in order])
    else:
        ax.set_yticks([])
        _name_farthest(ax, found, outside[:, None])
    ax.set_ylim(-0.6 - 0.01 * num, num - 0.4 + 0.01 * num)
    return ax


def _draw_shares(
    ax: Axes | None, found: TaskStatistics, low: np.ndarray, high: np.ndarray, outside: np.ndarray
) -> Axes:
    expected = found.drawn.mean(0)
    ax = on_axes(ax, (6.4, 4.8))
    ax.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1.5, zorder=1)
    width = max(0.5, min(3.0, 300 / expected.size))
    ax.vlines(expected, low, high, color=COLORS[5], linewidth=width, alpha=0.7, zorder=1.5)
    size = 6 if expected.size <= 100 else 4
    _mark(ax, expected.ravel(), found.observed.ravel(), outside.ravel(), size)
    most = 1.04 * max(expected.max(), high.max(), found.observed.max())
    room = 1.25 if outside.any() else 1.0  # for names above the points
    ax.set(xlim=(-0.02 * most, most), ylim=(-0.02 * most, room * most))
    _name_farthest(ax, found, outside)
    return ax


def _mark(ax: Axes, x: np.ndarray, y: np.ndarray, outside: np.ndarray, size: float) -> None:
    """Draw what was observed, crosses on top."""
    ax.plot(x[~outside], y[~outside], "o", color=COLORS[0], markersize=size, alpha=0.8, zorder=2)
    ax.plot(x[outside], y[outside], "X", color=COLORS[1], markersize=size + 1, zorder=3)


def _name_farthest(ax: Axes, found: TaskStatistics, outside: np.ndarray) -> None:
    """Name what lies farthest out, in the corner that is free."""
    # In standard deviations of draws, as many have the same smallest p-value.
    away = np.abs(found.observed - found.drawn.mean(0)) / (found.drawn.std(0) + 1e-9)
    order = np.argsort(-np.where(outside, away, -1.0), axis=None, kind="stable")
    of_many, lines = len(found.names) > 1, ["farthest outside:"]
    for place in order[: min(NUM_WORST, outside.sum())]:
        t, k = np.unravel_index(place, outside.shape)
        of = f": {shortened(found.names[k].removeprefix('share of '), 14)}" if of_many else ""
        lines.append(f"  {shortened(found.tasks[t], 16)}{of}")
    if outside.any():
        text = ax.text(0.02, 0.98, "\n".join(lines), fontsize=11, color=INK, va="top")
        text.set_transform(ax.transAxes)
