"""Heat map and graph of source weights."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import FancyArrowPatch

from pyro_vmtl.analysis.canvas import (
    INK,
    SEQUENTIAL,
    add_caption,
    axes_width,
    label_axes,
    named_ticks,
    on_axes,
)
from pyro_vmtl.analysis.relatedness.weights import clustered_order, weight_summary
from pyro_vmtl.analysis.tree_parts import get_variable, shorten, task_name, task_sizes

__all__ = ["plot_relatedness", "plot_relatedness_graph"]

MOST_CELLS = 12
"""Tasks up to which cells have their numbers written in them."""

NUMBER_WIDTH, INTERVAL_WIDTH = 26.0, 46.0
"""Points that a cell needs for a number, and for an interval."""

MOST_SOURCES = 3
"""Sources of a task that are drawn by default."""

MOST_NODES = 40
"""Tasks up to which all have names; of more, those that lend most."""

NAMED_OF_MANY = 15


def plot_relatedness(
    data: xr.DataTree, ax: Axes | None = None, *, var_names: str = "w_sources", ci_prob: float = 0.9
) -> Axes:
    """Plot a heat map of mean weights, or shares: rows borrow from columns.

    Tasks that borrow from one another stand side by side, so that groups are blocks along the
    diagonal. Means are shown because they add to 1 in every row. Draws of weights are skewed: most
    are near 0 or near 1, so that medians would hide all but one source.

    Parameters
    ----------
    data
        A tree with the weights in its posterior, from :func:`to_datatree` or
        :func:`relatedness_datatree`.
    ax
        Axes to draw on; new ones by default.
    var_names
        The weights to show, such as ``"z_sources"``.
    ci_prob
        Probability of the interval.

    Returns
    -------
    Axes
        The first image is that of the tasks, the second that of the base. Up to 12 tasks the
        numbers stand in the cells as far as there is room, the interval below the mean; 0 is an
        interval below 0.005. With more tasks the colours end at the largest mean. A dot marks an
        uncertain weight: clearly above 0, but the interval includes an even share, 1/T.

    See Also
    --------
    plot_relatedness_graph : The same as a graph.
    relatedness_table : The same as a table.

    Examples
    --------
    >>> plot_relatedness(tree).get_ylabel()
    'task (rows)'
    """
    weights = weight_summary(data, var_names, ci_prob)
    order = clustered_order(weights["mean"].values)
    weights = weights.isel(task=order, source=[*order, -1])
    mean, lower, upper = (weights[name].values for name in ("mean", "lower", "upper"))
    num_tasks, even = len(order), 1 / len(order)
    numbered = num_tasks <= MOST_CELLS
    figsize = (max(7.0, 3.6 + 0.7 * num_tasks), max(3.6, 2.9 + 0.5 * num_tasks))
    ax = on_axes(ax, figsize if numbered else (8.4, 8.0))
    # With many tasks the base would be too thin to see.
    width, gap = max(1.0, num_tasks / 30), max(0.25, num_tasks / 60)
    bottom = num_tasks - 0.5
    base = bottom + gap
    largest = 1.0 if numbered else max(float(np.nanmax(mean)), even)
    blues = plt.get_cmap(SEQUENTIAL).with_extremes(bad="0.88")  # a task and itself
    for part, left, right in ((mean[:, :-1], -0.5, bottom), (mean[:, -1:], base, base + width)):
        extent = (left, right, bottom, -0.5)
        image = ax.imshow(
            part, cmap=blues, norm=Normalize(0, largest), extent=extent, aspect="auto"
        )
    ax.set(xlim=(-0.5, base + width), ylim=(bottom, -0.5))
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.045, pad=0.02)
    name = get_variable(data, "posterior", var_names).attrs.get("long_name", "weight")
    bar.set_label(f"mean {name}", fontsize=12)
    bar.ax.tick_params(labelsize=11)
    centres = np.array([*range(num_tasks), base + width / 2])
    ink = np.where(np.nan_to_num(mean) / largest < 0.55, "black", "white")
    cell = axes_width(ax) / (num_tasks + 1 + gap)
    intervals = numbered and cell >= INTERVAL_WIDTH
    if numbered and cell >= NUMBER_WIDTH:
        for row, column in np.argwhere(~np.isnan(mean)):
            number = f"{mean[row, column]:.2f}" if upper[row, column] >= 0.005 else "0"
            if intervals and number != "0":
                number += f"\n{lower[row, column]:.2f}–{upper[row, column]:.2f}"
            text = ax.text(float(centres[column]), row, number, ha="center", va="center")
            text.set(color=ink[row, column], fontsize=8.5)
    least = max(even, largest / 10)
    rows, columns = np.nonzero((np.nan_to_num(mean) > least) & (np.nan_to_num(lower) <= even))
    aside = 0.38 if numbered else 0.0  # of the numbers
    size = min(14.0, (0.35 * cell) ** 2)
    ax.scatter(centres[columns] + aside, rows - aside, size, ink[rows, columns], linewidths=0)
    _name(ax, data, weights, centres)
    captions = ["Base: not borrowed."]
    if intervals:
        captions.insert(0, f"Mean {name}, and its {ci_prob:.0%} interval.")
    if len(rows):
        captions.append(f"Dot: the {ci_prob:.0%} interval includes an even share, {even:.2g}.")
    return add_caption(ax, "Who borrows how much from whom", " ".join(captions))


def _name(ax: Axes, data: xr.DataTree, weights: xr.Dataset, centres: np.ndarray) -> None:
    """Name rows and columns, rows with their numbers of training rows if the tree has them."""
    tasks = weights["task"].values.tolist()
    sizes = task_sizes(data, tasks)
    borrowers, sources = map(shorten, tasks), list(map(shorten, weights["source"].values))
    names = [name if sizes is None else f"{name} ({sizes[i]})" for i, name in enumerate(borrowers)]
    named = named_ticks(len(tasks))
    ax.set_yticks(named, [names[i] for i in named])
    ax.set_xticks([*named, centres[-1]], [*(sources[i] for i in named), sources[-1]])
    rows = "" if sizes is None else " (rows)"
    label_axes(ax, xlabel="borrows from", ylabel=f"{task_name(data)}{rows}")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=2)
    if len(tasks) > MOST_CELLS:
        ax.tick_params(axis="x", labelrotation=90, labelsize=10)
        ax.tick_params(axis="y", labelsize=10)
    elif max(map(len, sources)) > 6:
        for text in ax.get_xticklabels():
            text.set(rotation=40, ha="right", rotation_mode="anchor")


def plot_relatedness_graph(
    data: xr.DataTree,
    ax: Axes | None = None,
    *,
    var_names: str = "w_sources",
    threshold: float | None = None,
    ci_prob: float = 0.9,
) -> Axes:
    """Plot a graph of mean weights: an arrow from each source to the task that borrows from it.

    Parameters
    ----------
    data, ax, var_names, ci_prob
        As for :func:`plot_relatedness`.
    threshold
        Smallest weight to draw. By default, the three largest of each task are drawn, as far as
        they are above an even share, 1/T.

    Returns
    -------
    Axes
        Arrows are the wider the larger the mean weight, and dashed where the lower end of the
        interval is below an even share. Tasks are the darker the larger the weight of the base.
        They stand in a circle, next to those that borrow alike. With more than 40 tasks only the
        15 that lend most have names.

    Examples
    --------
    >>> ax = plot_relatedness_graph(tree, threshold=0.2)
    """
    weights = weight_summary(data, var_names, ci_prob)
    mean, lower = weights["mean"].values, weights["lower"].values
    sources, num_tasks = np.nan_to_num(mean[:, :-1]), len(mean)
    even, small = 1 / num_tasks, num_tasks <= MOST_NODES
    angles = 2 * np.pi * np.arange(num_tasks) / num_tasks
    places = np.empty((num_tasks, 2))
    places[clustered_order(mean)] = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    ax = on_axes(ax, (7.6, 6.4))
    radius = float(np.clip(9000 / num_tasks, 8, 420)) ** 0.5
    widest, head = (4.5, 6) if small else (2.5, 3)
    for borrower, source in np.argwhere(_worth_an_arrow(sources, even, threshold)):
        arrow = FancyArrowPatch(
            places[source],
            places[borrower],
            arrowstyle=f"-|>,head_length={head},head_width={0.4 * head}",
            connectionstyle="arc3,rad=0.15",
            shrinkA=0.55 * radius,
            shrinkB=0.55 * radius,
            linewidth=0.6 + widest * sources[borrower, source],
            linestyle="--" if lower[borrower, source] < even else "-",
            color="0.45",
            alpha=0.75 if small else 0.45,
        )
        ax.add_patch(arrow)
    norm, blues = Normalize(0, 1), plt.get_cmap(SEQUENTIAL)
    across, up = places.T
    dots = ax.scatter(across, up, s=radius**2, c=mean[:, -1], cmap=blues, norm=norm, zorder=3)
    dots.set(edgecolor=INK, linewidth=1)
    by_lent = np.argsort(-sources.sum(0), kind="stable")
    for task in by_lent if small else by_lent[:NAMED_OF_MANY]:
        name, (x, y) = shorten(weights["task"].values[task], 16), places[task]
        away = (0.6 * radius + 5) * places[task]
        text = ax.annotate(name, (x, y), away, textcoords="offset points", zorder=4)
        side = "center" if abs(x) < 0.3 else "left" if x > 0 else "right"
        level = "center" if abs(y) < 0.3 else "bottom" if y > 0 else "top"
        text.set(ha=side, va=level, fontsize=11, color=INK)
    ax.set(xlim=(-1.3, 1.3), ylim=(-1.2, 1.2))
    ax.set_axis_off()
    bar = ax.figure.colorbar(dots, ax=ax, fraction=0.04, pad=0.02)
    name = get_variable(data, "posterior", var_names).attrs.get("long_name", "weight")
    bar.set_label(f"{name} of the base: not borrowed", fontsize=12)
    bar.ax.tick_params(labelsize=11)
    drawn = f"from {threshold or 0:.2g}"
    if threshold is None:
        drawn = f"up to {MOST_SOURCES} sources of each {task_name(data)}, above an even share"
    caption = (
        f"From source to borrower, the wider the more; {drawn}. Dashed: the {ci_prob:.0%} "
        f"interval goes below an even share, {even:.2g}."
        + ("" if small else f" Named: the {NAMED_OF_MANY} that lend most.")
    )
    return add_caption(ax, "Who lends to whom", caption)


def _worth_an_arrow(sources: np.ndarray, even: float, threshold: float | None) -> np.ndarray:
    """Return which weights are drawn, (T, T)."""
    if threshold is not None:
        return (sources >= threshold) & (sources > 0)
    ranks = np.argsort(np.argsort(-sources, axis=1, kind="stable"), axis=1)
    return (ranks < MOST_SOURCES) & (sources > even)
