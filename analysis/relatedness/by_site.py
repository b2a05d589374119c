"""Scatter plot of source weights at two sites."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import COLORS, INK, MUTED, add_caption, label_axes, on_axes
from pyro_vmtl.analysis.relatedness.weights import pool_weights
from pyro_vmtl.analysis.task_lines import move_apart
from pyro_vmtl.analysis.tree_parts import shorten

__all__ = ["plot_relatedness_by_site"]

MOST_NAMED = 4
"""Points with a name."""

LEAST_APART = 0.05
"""Smallest difference of two weights that is named."""


def plot_relatedness_by_site(
    data: xr.DataTree,
    ax: Axes | None = None,
    *,
    var_names: tuple[str, str] = ("w_sources", "z_sources"),
) -> Axes:
    """Plot mean weights at one site against those at another, such as coefficients and encoder.

    On the diagonal are tasks that borrow as much at either site. Far from it are those that are
    alike in one way and not in the other.

    Parameters
    ----------
    data
        A tree with the weights of both sites in its posterior.
    ax
        Axes to draw on; new ones by default.
    var_names
        The weights along x, and those along y.

    Returns
    -------
    Axes
        A dot for each task and source, a square for each task and the base. The four farthest from
        the diagonal are named "task ← source", if they are more than 0.05 apart.

    Raises
    ------
    ValueError
        If one of the two is missing, or they are of different tasks.

    Examples
    --------
    >>> import torch
    >>> from pyro_vmtl.analysis import relatedness_datatree
    >>> weights = torch.tensor([[0.0, 0.7, 0.3], [0.9, 0.0, 0.1]])
    >>> tree = relatedness_datatree(weights.expand(5, 2, 3), ["north", "south"])
    >>> tree["posterior"]["z_sources"] = 1 - tree["posterior"]["w_sources"]
    >>> ax = plot_relatedness_by_site(tree)
    >>> [text.get_text() for text in ax.texts[:2]]
    ['south ← north', 'north ← south']
    """
    first, second = (pool_weights(data, name) for name in var_names)
    tasks, others = (weights["task"].values.tolist() for weights in (first, second))
    if tasks != others:
        raise ValueError(
            f"{var_names[0]!r} has {len(tasks)} tasks, {tasks[:3]}..., and {var_names[1]!r} has "
            f"{len(others)}, {others[:3]}..., expected the same."
        )
    x, y = (weights.mean("sample", dtype=float, skipna=False).values for weights in (first, second))
    ax = on_axes(ax, (6.4, 6.2))
    limit = 1.04 * float(np.nanmax([x, y]))
    ax.plot([0, limit], [0, limit], color=MUTED, linewidth=1, zorder=1)
    alpha = 0.8 if len(x) <= 12 else 0.35
    pair = ~np.isnan(x[:, :-1])
    for across, up, marker, color, label in (
        (x[:, :-1][pair], y[:, :-1][pair], "o", COLORS[0], "another task"),
        (x[:, -1], y[:, -1], "s", COLORS[1], "the base"),
    ):
        ax.scatter(across, up, 26, color, marker=marker, alpha=alpha, linewidths=0, label=label)
    ax.set(xlim=(-0.02 * limit, limit), ylim=(-0.02 * limit, limit), aspect="equal")
    apart = np.nan_to_num(np.abs(x - y))
    farthest = np.argsort(-apart, axis=None, kind="stable")[:MOST_NAMED]
    farthest = [int(i) for i in farthest if apart.flat[i] > LEAST_APART]
    named = sorted((float(y.flat[i]), float(x.flat[i]), i) for i in farthest)
    heights = move_apart(np.array([up for up, _, _ in named]), 0.06 * limit, limit)
    for (up, across, i), height in zip(named, heights, strict=True):
        task, source = divmod(i, x.shape[1])
        right = across < limit / 2  # the side with more room
        text = ax.annotate(
            f"{shorten(tasks[task], 14)} ← {shorten(first['source'].values[source], 14)}",
            (across, up),
            (across + (0.03 if right else -0.03) * limit, height),
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.7, "shrinkB": 3},
        )
        text.set(fontsize=11, color=INK, ha="left" if right else "right", va="center")
    ax.legend(title="weight of")
    label_axes(ax, xlabel=f"mean weight in {var_names[0]}", ylabel=f"mean weight in {var_names[1]}")
    caption = "On the line: borrows as much at both sites. Named: farthest from it."
    return add_caption(ax, "Do both sites borrow alike?", caption)
