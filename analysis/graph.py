"""A graph of who borrows from whom."""

from __future__ import annotations

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patheffects import withStroke

from pyro_vmtl.analysis.canvas import INK, SEQUENTIAL, on_axes
from pyro_vmtl.analysis.ordering import clustered_order
from pyro_vmtl.analysis.pool_weights import pool_weights
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
        stand near those that they borrow from; the places are the same each time. With more than
        40 tasks only the 15 that lend most have names.

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
    graph = _graph(sources, weights.even_share, threshold)
    places = _places(sources, graph)
    ax = on_axes(ax, (8.4, 7.4))
    node_size = float(np.clip(9000 / num_tasks, 60, 420))
    largest = max((weight for *_, weight in graph.edges(data="weight")), default=1.0)
    widest = 4.5 if num_tasks <= MOST_NAMES else 2.5
    edges = list(graph.edges(data="weight"))
    unsure = [lower[borrower, source] < weights.even_share for source, borrower, _ in edges]
    nx.draw_networkx_edges(
        graph,
        places,
        edgelist=[(source, borrower) for source, borrower, _ in edges],
        ax=ax,
        width=[0.5 + widest * weight / largest for *_, weight in edges],
        style=["--" if dashed else "-" for dashed in unsure],
        edge_color="0.45",
        alpha=0.75 if num_tasks <= MOST_NAMES else 0.45,
        arrowsize=13 if num_tasks <= MOST_NAMES else 7,
        node_size=node_size,
        connectionstyle="arc3,rad=0.12",
    )
    norm, blues = Normalize(0, 1), plt.get_cmap(SEQUENTIAL)
    points = np.array([places[task] for task in range(num_tasks)])
    dots = ax.scatter(
        points[:, 0], points[:, 1], node_size, mean[:, -1], cmap=blues, norm=norm, zorder=3
    )
    dots.set(edgecolor=INK, linewidth=1)
    lent = sources.sum(0)
    named = np.argsort(-lent, kind="stable")
    for task in named if num_tasks <= MOST_NAMES else named[:NAMED_OF_MANY]:
        name = shortened(weights.tasks[task], 16)
        down = (0, -0.5 * node_size**0.5 - 2)
        text = ax.annotate(name, points[task], down, textcoords="offset points", zorder=4)
        text.set(ha="center", va="top", fontsize=11 if num_tasks <= 16 else 10, color=INK)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    ax.margins(0.1)
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


def _graph(sources: np.ndarray, even: float, threshold: float | None) -> nx.DiGraph:
    """Make edges from sources to borrowers, of weights that are worth it."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(sources)))
    for borrower, row in enumerate(sources):
        order = np.argsort(-row, kind="stable")
        if threshold is None:
            chosen = [source for source in order[:MOST_SOURCES] if row[source] > even]
        else:
            chosen = [source for source in order if row[source] >= threshold and row[source] > 0]
        for source in chosen:
            graph.add_edge(int(source), borrower, weight=float(row[source]))
    return graph


def _places(sources: np.ndarray, graph: nx.DiGraph) -> dict[int, np.ndarray]:
    """Lay tasks out: a circle in clustered order, pulled together along the edges."""
    count = len(sources)
    order = clustered_order(np.pad(sources, ((0, 0), (0, 1))))
    angles = 2 * np.pi * np.arange(count) / count
    circle = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    start = {task: circle[i] for i, task in enumerate(order)}
    if count <= 8:
        return start
    places: dict[int, np.ndarray] = nx.spring_layout(
        graph.to_undirected(), pos=start, k=2.2 / count**0.5, iterations=80, seed=0
    )
    return places
