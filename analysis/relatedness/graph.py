"""Directed graph of source weights."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import FancyArrowPatch

from pyro_vmtl.analysis.canvas import INK, SEQUENTIAL, add_caption, on_axes
from pyro_vmtl.analysis.relatedness.weights import clustered_order, weight_summary
from pyro_vmtl.analysis.tree_parts import shorten, task_name

__all__ = ["plot_relatedness_graph"]

MOST_SOURCES = 3
"""Sources of a task that are drawn by default."""

MOST_NAMES = 40
"""Tasks up to which all have names; of more, those that lend most."""

NAMED_OF_MANY = 15


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
    data
        A tree with the weights in its posterior.
    ax
        Axes to draw on; new ones by default.
    var_names
        The weights to show.
    threshold
        Smallest weight to draw. By default, the three largest of each task are drawn, as far as
        they are above an even share, 1/T.
    ci_prob
        Probability of the interval.

    Returns
    -------
    Axes
        Arrows are the wider the larger the mean weight, and dashed where the lower end of the
        interval is below an even share. Tasks are the darker the larger the weight of the base.
        They stand in a circle, next to those that borrow alike. With more than 40 tasks only the
        15 that lend most have names.

    Raises
    ------
    ValueError
        If the weights are missing.

    See Also
    --------
    plot_relatedness : The same as a heat map.

    Examples
    --------
    >>> import torch
    >>> from pyro_vmtl.analysis import relatedness_datatree
    >>> weights = torch.tensor([[0.0, 0.7, 0.3], [0.1, 0.0, 0.9]])
    >>> tree = relatedness_datatree(weights.expand(5, 2, 3), ["north", "south"])
    >>> ax = plot_relatedness_graph(tree)
    >>> len(ax.patches)
    1
    """
    weights = weight_summary(data, var_names, ci_prob)
    mean, lower = weights["mean"].values, weights["lower"].values
    sources, num_tasks = np.nan_to_num(mean[:, :-1]), len(mean)
    even, small = 1 / num_tasks, num_tasks <= MOST_NAMES
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
    bar.set_label("weight of the base: not borrowed", fontsize=12)
    bar.ax.tick_params(labelsize=11)
    drawn = f"weights from {threshold or 0:.2g}"
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
