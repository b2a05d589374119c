"""A graph of who borrows from whom."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import FancyArrowPatch

from pyro_vmtl.analysis.canvas import INK, SEQUENTIAL, on_axes
from pyro_vmtl.analysis.relatedness.ordering import clustered_order
from pyro_vmtl.analysis.relatedness.pool_weights import pool_weights
from pyro_vmtl.analysis.task_names import captioned
from pyro_vmtl.analysis.tree_parts import shortened

__all__ = ["plot_relatedness_graph"]

MOST_SOURCES = 3
"""Sources of a task that are drawn, if no threshold is given."""

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
    """Graph of mean weights: an arrow from each source to who borrows from it.

    Parameters
    ----------
    data
        A tree with the weights in its posterior.
    ax
        Axes to draw on; new ones by default.
    var_names
        The weights to show.
    threshold
        Weights from here on are drawn. By default, for each task its three largest, as far as they
        are above an even share, 1/T.
    ci_prob
        Probability of the interval.

    Returns
    -------
    Axes
        Arrows are the wider the larger the mean weight, and dashed where the lower end of the
        interval is below an even share. Tasks are the darker the more they keep to the base. They
        stand in a circle, next to those that borrow alike. With more than 40 tasks only the 15
        that lend most have names.

    Raises
    ------
    ValueError
        If the weights are missing.

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
    weights = pool_weights(data, var_names)
    num_tasks = len(weights.tasks)
    mean, (lower, _) = weights.mean(), weights.interval(ci_prob)
    sources = np.nan_to_num(mean[:, :-1])
    edges = _edges(sources, weights.even_share, threshold)
    places = _places(sources)
    ax = on_axes(ax, (7.6, 6.4))
    node_size = float(np.clip(9000 / num_tasks, 8, 420))
    widest = 4.5 if num_tasks <= MOST_NAMES else 2.5
    head = 6 if num_tasks <= MOST_NAMES else 3
    unsure = [lower[borrower, source] < weights.even_share for source, borrower, _ in edges]
    for (source, borrower, weight), dashed in zip(edges, unsure, strict=True):
        arrow = FancyArrowPatch(
            places[source],
            places[borrower],
            arrowstyle=f"-|>,head_length={head},head_width={0.4 * head}",
            connectionstyle="arc3,rad=0.15",
            shrinkA=0.55 * node_size**0.5,
            shrinkB=0.55 * node_size**0.5,
            linewidth=0.6 + widest * weight,
            linestyle="--" if dashed else "-",
            color="0.45",
            alpha=0.75 if num_tasks <= MOST_NAMES else 0.45,
        )
        ax.add_patch(arrow)
    norm, blues = Normalize(0, 1), plt.get_cmap(SEQUENTIAL)
    x, y = places.T
    dots = ax.scatter(x, y, s=node_size, c=mean[:, -1], cmap=blues, norm=norm, zorder=3)
    dots.set(edgecolor=INK, linewidth=1)
    lent = sources.sum(0)
    named = np.argsort(-lent, kind="stable")
    for task in named if num_tasks <= MOST_NAMES else named[:NAMED_OF_MANY]:
        name = shortened(weights.tasks[task], 16)
        away = (0.6 * node_size**0.5 + 5) * places[task]
        text = ax.annotate(name, places[task], away, textcoords="offset points", zorder=4)
        side = "center" if abs(x[task]) < 0.3 else "left" if x[task] > 0 else "right"
        level = "center" if abs(y[task]) < 0.3 else "bottom" if y[task] > 0 else "top"
        text.set(ha=side, va=level, fontsize=11, color=INK)
    ax.set(xlim=(-1.3, 1.3), ylim=(-1.2, 1.2))
    ax.set_axis_off()
    bar = ax.figure.colorbar(dots, ax=ax, fraction=0.04, pad=0.02)
    bar.set_label("weight on the base: not borrowed", fontsize=12)
    bar.ax.tick_params(labelsize=11)
    drawn = (
        f"up to {MOST_SOURCES} sources of each {weights.task_name}, above an even share"
        if threshold is None
        else f"weights from {threshold:.2g}"
    )
    caption = (
        f"From source to borrower, the wider the more; {drawn}. Dashed: the {ci_prob:.0%} "
        f"interval goes below an even share, {weights.even_share:.2g}."
        + ("" if num_tasks <= MOST_NAMES else f" Named: the {NAMED_OF_MANY} that lend most.")
    )
    return captioned(ax, "Who lends to whom", caption)


def _edges(
    sources: np.ndarray, even: float, threshold: float | None
) -> list[tuple[int, int, float]]:
    """Choose weights that are worth an arrow: source, borrower, weight."""
    edges = []
    for borrower, row in enumerate(sources):
        order = np.argsort(-row, kind="stable")
        if threshold is None:
            chosen = [source for source in order[:MOST_SOURCES] if row[source] > even]
        else:
            chosen = [source for source in order if row[source] >= threshold and row[source] > 0]
        edges += [(int(source), borrower, float(row[source])) for source in chosen]
    return edges


def _places(sources: np.ndarray) -> np.ndarray:
    """Lay tasks out on a circle, (T, 2), so that those that borrow alike are neighbours."""
    count = len(sources)
    order = clustered_order(np.pad(sources, ((0, 0), (0, 1))))
    angles = 2 * np.pi * np.arange(count) / count
    places = np.empty((count, 2))
    places[order] = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    return places
