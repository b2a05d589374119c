"""Curves of tasks over the steps of a fit: bands for many tasks, and names at the ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import COLORS, INK

__all__ = ["MOST_LINES", "draw_bands", "move_apart", "name_ends", "quantiles_of"]

MOST_LINES = 7
"""Largest number of tasks with a line each, one per colour."""

End = tuple[float, str, str]
"""Height, name and colour of the end of a line."""


def quantiles_of(curves: np.ndarray) -> np.ndarray:
    """Return the 5, 25, 50, 75 and 95 % quantiles over tasks of (steps, tasks), (5, steps)."""
    return np.asarray(np.quantile(curves, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1))


def draw_bands(ax: Axes, steps: np.ndarray, curves: np.ndarray) -> list[End]:
    """Draw bands of (steps, tasks) over tasks, and return the ends to name."""
    low, lower, median, upper, high = quantiles_of(curves)
    ax.fill_between(steps, low, high, color=COLORS[0], alpha=0.18, linewidth=0, label="9 in 10")
    ax.fill_between(steps, lower, upper, color=COLORS[0], alpha=0.35, linewidth=0, label="1 in 2")
    ax.plot(steps, median, color=INK, linewidth=1.8, label="median")
    ends = {"9 in 10 tasks": high, "1 in 2 tasks": upper, "median task": median}
    return [(float(curve[-1]), name, INK) for name, curve in ends.items()]


def name_ends(ax: Axes, last: float, ends: Sequence[End]) -> None:
    """Write names to the right of the ends of lines, moved apart where they would overlap."""
    ends, (low, high) = sorted(ends), ax.get_ylim()
    heights = np.array([height for height, _, _ in ends]).clip(low, high)
    heights = move_apart(heights, 0.075 * (high - low), high)
    for (_, name, color), height in zip(ends, heights, strict=True):
        text = ax.annotate(name, (last, height), (6, 0), textcoords="offset points", va="center")
        text.set(fontsize=11, color=color)


def move_apart(heights: np.ndarray, room: float, top: float) -> np.ndarray:
    """Move sorted heights at least ``room`` apart: up as needed, and down from the top."""
    steps = room * np.arange(len(heights))
    up = np.minimum(np.maximum.accumulate(heights - steps) + steps, top)
    return np.asarray(np.minimum.accumulate((up - steps)[::-1])[::-1] + steps)
