"""A heat map of who borrows from whom."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from pyro_vmtl.analysis.canvas import SEQUENTIAL, dressed, on_axes
from pyro_vmtl.analysis.relatedness.ordering import clustered_order
from pyro_vmtl.analysis.relatedness.pool_weights import PoolWeights, pool_weights
from pyro_vmtl.analysis.task_names import captioned, thinned, width_in_points
from pyro_vmtl.analysis.tree_parts import shortened, task_sizes

__all__ = ["plot_relatedness"]

MOST_NUMBERS = 12
"""Tasks up to which cells have their numbers written in them."""

NUMBER_WIDTH, INTERVAL_WIDTH = 26.0, 46.0
"""Points that a cell needs for a number, and for an interval."""


def plot_relatedness(
    data: xr.DataTree,
    ax: Axes | None = None,
    *,
    var_names: str = "w_sources",
    ci_prob: float = 0.9,
) -> Axes:
    """Heat map of mean weights: rows borrow from columns.

    Tasks are in an order in which those that borrow from one another stand side by side, so that
    groups are blocks along the diagonal. Means are shown as they add to 1 in every row. Draws of
    weights are skewed: most are near 0 or near 1, so that medians would hide all but one source.

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
        interval below 0.005. With more tasks the colours end at the largest mean. A dot marks
        weights that are not sure: clearly above 0, but the interval includes an even share, 1/T.

    Raises
    ------
    ValueError
        If the weights are missing.

    Examples
    --------
    >>> import torch
    >>> from pyro_vmtl.analysis import relatedness_datatree
    >>> weights = torch.tensor([[0.0, 0.7, 0.3], [0.9, 0.0, 0.1]])
    >>> tree = relatedness_datatree(weights.expand(5, 2, 3), ["north", "south"])
    >>> ax = plot_relatedness(tree)
    >>> [text.get_text() for text in ax.get_xticklabels()]
    ['north', 'south', 'base']
    """
    weights = pool_weights(data, var_names)
    num_tasks, even = len(weights.tasks), weights.even_share
    order = clustered_order(weights.mean())
    mean, lower, upper = (
        values[order][:, [*order, -1]] for values in (weights.mean(), *weights.interval(ci_prob))
    )
    few = num_tasks <= MOST_NUMBERS
    ax = on_axes(ax, _size(num_tasks) if few else (8.4, 8.0))
    # With many tasks the base would be too thin to see.
    width, gap = max(1.0, num_tasks / 30), max(0.25, num_tasks / 60)
    base = num_tasks - 0.5 + gap
    bottom, top = num_tasks - 0.5, -0.5
    largest = 1.0 if few else max(float(np.nanmax(mean)), even)
    norm = Normalize(0, largest)
    blues = plt.get_cmap(SEQUENTIAL).with_extremes(bad="0.88")  # a task and itself
    for part, left, right in ((mean[:, :-1], -0.5, bottom), (mean[:, -1:], base, base + width)):
        extent = (left, right, bottom, top)
        image = ax.imshow(part, cmap=blues, norm=norm, extent=extent, aspect="auto")
    ax.set(xlim=(-0.5, base + width), ylim=(bottom, top))
    centres = np.array([*range(num_tasks), base + width / 2])
    light = np.nan_to_num(mean) / largest < 0.55
    cell = width_in_points(ax) / (num_tasks + 1 + gap)
    if few and cell >= NUMBER_WIDTH:
        _write(ax, centres, (mean, lower, upper), light, with_interval=cell >= INTERVAL_WIDTH)
    least = max(even, largest / 10)
    rows, columns = np.nonzero((np.nan_to_num(mean) > least) & (np.nan_to_num(lower) <= even))
    aside = 0.38 if few else 0.0  # of the numbers
    ax.scatter(
        centres[columns] + aside,
        rows - aside,
        s=min(14.0, (0.35 * cell) ** 2),
        c=np.where(light[rows, columns], "black", "white"),
        linewidths=0,
    )
    _name(ax, data, weights, order, centres)
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.045, pad=0.02)
    bar.set_label("mean weight", fontsize=12)
    bar.ax.tick_params(labelsize=11)
    captions = ["Base: not borrowed, the task's own prior."]
    if few and cell >= INTERVAL_WIDTH:
        captions.insert(0, f"Mean weight, and its {ci_prob:.0%} interval.")
    if len(rows):
        share = "" if round(least, 2) == round(even, 2) else f", {even:.2g}"
        captions.append(
            f"Dots: above {least:.2g}, but the {ci_prob:.0%} interval has an even share{share}."
        )
    return captioned(ax, "Who borrows how much from whom", " ".join(captions))


def _size(num_tasks: int) -> tuple[float, float]:
    """Size of a figure whose cells have numbers in them, inches."""
    cells = num_tasks + 1
    return max(7.0, 2.9 + 0.7 * cells), max(3.6, 2.4 + 0.5 * cells)


def _write(
    ax: Axes,
    centres: np.ndarray,
    values: tuple[np.ndarray, np.ndarray, np.ndarray],
    light: np.ndarray,
    *,
    with_interval: bool,
) -> None:
    """Write means into the cells, and their intervals below."""
    mean, lower, upper = values
    for (row, column), value in np.ndenumerate(mean):
        if np.isnan(value):
            continue
        low, high = lower[row, column], upper[row, column]
        number = f"{value:.2f}" if high >= 0.005 else "0"
        text = f"{number}\n{low:.2f}–{high:.2f}" if with_interval and number != "0" else number
        color = "black" if light[row, column] else "white"
        ax.text(
            float(centres[column]), row, text, ha="center", va="center", color=color, fontsize=8.5
        )


def _name(
    ax: Axes, data: xr.DataTree, weights: PoolWeights, order: list[int], centres: np.ndarray
) -> None:
    """Name rows and columns, rows with their numbers of training rows where those are known."""
    sizes = task_sizes(data, weights.tasks)
    borrowers = [shortened(task) for task in weights.tasks]
    if sizes is not None:
        borrowers = [f"{name} ({size})" for name, size in zip(borrowers, sizes, strict=True)]
    sources = [shortened(source) for source in weights.sources]
    named = thinned(len(order))
    ax.set_yticks(named, [borrowers[order[i]] for i in named])
    ax.set_xticks([*named, centres[-1]], [*(sources[order[i]] for i in named), sources[-1]])
    rows = "" if sizes is None else " (rows)"
    dressed(ax, xlabel="borrows from", ylabel=f"{weights.task_name}{rows}")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=2)
    if len(order) > MOST_NUMBERS:
        ax.tick_params(axis="x", labelrotation=90, labelsize=10)
        ax.tick_params(axis="y", labelsize=10)
    elif max(map(len, sources)) > 6:
        for text in ax.get_xticklabels():
            text.set(rotation=40, ha="right", rotation_mode="anchor")
