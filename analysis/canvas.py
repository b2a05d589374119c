"""What pictures have in common: Axes, colours and sizes of letters, without a global style."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

__all__ = ["COLORS", "INK", "MUTED", "SEQUENTIAL", "dressed", "in_nats", "on_axes", "task_colors"]

INK = "0.13"
"""Letters and main lines: dark on white."""

MUTED = "0.55"
"""Lines to compare with, such as a diagonal."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31")
"""Colours that people with any kind of colour vision tell apart (Okabe and Ito, 2008; the last
stands in for their yellow, which is too light on white)."""

SEQUENTIAL = "Blues"
"""Colour map of weights and densities: light is little."""


def on_axes(ax: Axes | None, figsize: tuple[float, float] = (6.4, 4.2)) -> Axes:
    """Give the Axes to draw on: those given, or new ones of a size in inches."""
    return plt.subplots(figsize=figsize, layout="constrained")[1] if ax is None else ax


def dressed(ax: Axes, *, title: str = "", xlabel: str = "", ylabel: str = "") -> Axes:
    """Name what is drawn, in letters that can still be read at half the size."""
    ax.set_title(title, fontsize=13, color=INK, loc="left")
    ax.set_xlabel(xlabel, fontsize=12, color=INK)
    ax.set_ylabel(ylabel, fontsize=12, color=INK)
    ax.tick_params(labelsize=11, colors=INK)
    ax.spines[["top", "right"]].set_visible(False)
    legend = ax.get_legend()
    if legend is not None:
        legend.set_frame_on(False)
        for text in [legend.get_title(), *legend.get_texts()]:
            text.set_fontsize(11)
    return ax


def in_nats(value: float) -> str:
    """Write a log density: two digits after the point for small ones, none for large.

    Examples
    --------
    >>> in_nats(-12.345), in_nats(13441.2)
    ('-12.35 nats', '13,441 nats')
    """
    return f"{value:,.{2 if abs(value) < 100 else 0}f} nats"


def task_colors(num_tasks: int) -> list[tuple[float, ...] | str]:
    """Give a colour for each task: told apart up to seven, shades of one map beyond."""
    if num_tasks <= len(COLORS):
        return list(COLORS[:num_tasks])
    return [tuple(color) for color in plt.get_cmap("viridis")(np.linspace(0, 0.9, num_tasks))]
