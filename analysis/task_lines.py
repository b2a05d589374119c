"""Lines of tasks over the steps of a fit: names at their ends, and bands where there are many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import COLORS, INK

__all__ = ["MOST_LINES", "draw_bands", "name_ends", "quantiles_of"]

MOST_LINES = 7
"""Tasks that have a line of their own, as there are so many colours."""

ROOM = 0.075
"""Least distance of two names at the ends of lines, as part of the height."""

End = tuple[float, str, str]
"""Height, name and colour of the end of a line."""


def quantiles_of(curves: np.ndarray) -> np.ndarray:
    """Give the ends of the middle nine tenths and half of (steps, tasks), and the median."""
    return np.asarray(np.quantile(curves, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1))


def draw_bands(ax: Axes, steps: np.ndarray, curves: np.ndarray) -> list[End]:
    """Draw the spread of (steps, tasks) over tasks, and tell what to name at its end."""
    low, lower, median, upper, high = quantiles_of(curves)
    ax.fill_between(steps, low, high, color=COLORS[0], alpha=0.18, linewidth=0, label="9 in 10")
    ax.fill_between(steps, lower, upper, color=COLORS[0], alpha=0.35, linewidth=0, label="1 in 2")
    ax.plot(steps, median, color=INK, linewidth=1.8, label="median")
    names = ("9 in 10 tasks", "1 in 2 tasks", "median task")
    ends = (float(high[-1]), float(upper[-1]), float(median[-1]))
    return [(end, name, INK) for end, name in zip(ends, names, strict=True)]


def name_ends(ax: Axes, last: float, ends: Sequence[End]) -> None:
    """Write names to the right of the ends of lines, moved apart where they would overlap."""
    low, high = ax.get_ylim()
    room, order = ROOM * (high - low), sorted(ends)
    heights = [min(max(value, low), high) for value, _, _ in order]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + room)
    over = max(0.0, heights[-1] - high)
    heights = [height - over for height in heights]  # the top name stays inside
    for i in range(len(heights) - 2, -1, -1):
        heights[i] = min(heights[i], heights[i + 1] - room)
    for (_, label, color), height in zip(order, heights, strict=True):
        text = ax.annotate(label, (last, height), (6, 0), textcoords="offset points", va="center")
        text.set(fontsize=11, color=color)
