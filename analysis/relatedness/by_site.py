"""Do two sites of a model borrow from the same tasks?"""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import COLORS, INK, MUTED, dressed, on_axes
from pyro_vmtl.analysis.relatedness.pool_weights import pool_weights
from pyro_vmtl.analysis.task_names import captioned
from pyro_vmtl.analysis.tree_parts import shortened

__all__ = ["plot_relatedness_by_site"]

MOST_NAMED = 4
"""Points with a name."""

LEAST_APART = 0.05
"""Weights nearer than this need no name."""

NAME_HEIGHT = 0.06
"""Least distance of two names, as part of the height."""


def plot_relatedness_by_site(
    data: xr.DataTree,
    ax: Axes | None = None,
    *,
    var_names: tuple[str, str] = ("w_sources", "z_sources"),
) -> Axes:
    """Mean weights at one site against those at another, such as coefficients and encoder.

    On the diagonal are tasks that borrow as much at either site. Far off it are those that are
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
        If one of the two is missing, or they are of other tasks.

    Examples
    --------
    >>> import torch
    >>> from pyro_vmtl.analysis import relatedness_datatree
    >>> weights = torch.tensor([[0.0, 0.7, 0.3], [0.9, 0.0, 0.1]])
    >>> tree = relatedness_datatree(weights.expand(5, 2, 3), ["north", "south"])
    >>> tree["posterior"]["z_sources"] = 1 - tree["posterior"]["w_sources"]
    >>> ax = plot_relatedness_by_site(tree)
    >>> [text.get_text() for text in ax.texts[:2]]
    ['south ← base', 'south ← north']
    """
    first, second = (pool_weights(data, name) for name in var_names)
    if first.tasks != second.tasks:
        raise ValueError(
            f"{var_names[0]!r} has {len(first.tasks)} tasks, {first.tasks[:3]}..., and "
            f"{var_names[1]!r} has {len(second.tasks)}, {second.tasks[:3]}..., expected the same."
        )
    x, y = first.mean(), second.mean()
    ax = on_axes(ax, (6.4, 6.2))
    limit = 1.04 * max(float(np.nanmax(x)), float(np.nanmax(y)))
    ax.plot([0, limit], [0, limit], color=MUTED, linewidth=1, zorder=1)
    faint = 0.8 if len(x) <= 12 else 0.35
    tasks = ~np.isnan(x[:, :-1])
    parts = (
        (x[:, :-1][tasks], y[:, :-1][tasks], "o", COLORS[0], "another task"),
        (x[:, -1], y[:, -1], "s", COLORS[1], "the base"),
    )
    for across, up, marker, color, label in parts:
        ax.scatter(across, up, 26, color, marker=marker, alpha=faint, linewidths=0, label=label)
    ax.set(xlim=(-0.02 * limit, limit), ylim=(-0.02 * limit, limit), aspect="equal")
    apart = np.nan_to_num(np.abs(x - y))
    farthest = np.argsort(-apart, axis=None, kind="stable")[:MOST_NAMED]
    named = [np.unravel_index(i, x.shape) for i in farthest if apart.flat[i] > LEAST_APART]
    points = [
        (
            float(x[row, column]),
            float(y[row, column]),
            f"{shortened(first.tasks[row], 14)} ← {shortened(first.sources[column], 14)}",
        )
        for row, column in named
    ]
    _write(ax, points, limit)
    ax.legend(loc="lower right" if _upper(points) else "upper left", title="weight on")
    dressed(ax, xlabel=f"mean weight in {var_names[0]}", ylabel=f"mean weight in {var_names[1]}")
    caption = "On the line: borrows as much at both sites. Named: farthest from it."
    return captioned(ax, "Do both sites borrow alike?", caption)


def _upper(points: list[tuple[float, float, str]]) -> bool:
    """Tell whether most names are above the diagonal."""
    return 2 * sum(y > x for x, y, _ in points) > len(points)


def _write(ax: Axes, points: list[tuple[float, float, str]], limit: float) -> None:
    """Write names beside points, on the side that has more room, moved up if they would overlap."""
    heights: list[float] = []
    for x, y, name in points:
        height = y
        while any(abs(height - other) < NAME_HEIGHT * limit for other in heights):
            height += NAME_HEIGHT * limit * (1 if y < limit / 2 else -1)
        heights.append(height)
        right = x < limit / 2
        text = ax.annotate(
            name,
            (x, y),
            (x + (0.03 if right else -0.03) * limit, height),
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.7, "shrinkB": 3},
        )
        text.set(fontsize=11, color=INK, ha="left" if right else "right", va="center")
