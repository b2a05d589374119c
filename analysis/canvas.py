"""Axes, colours, titles, legends and captions that all pictures share, without a global style."""

from __future__ import annotations

import textwrap
from typing import cast

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = [
    "COLORS",
    "INK",
    "MUTED",
    "SEQUENTIAL",
    "add_caption",
    "add_note",
    "axes_width",
    "in_nats",
    "label_axes",
    "legend_above",
    "named_ticks",
    "on_axes",
]

INK = "0.13"
"""Letters and main lines: dark on white."""

MUTED = "0.55"
"""Lines to compare with, such as a diagonal."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31")
"""Colours that people with any kind of colour vision tell apart (Okabe and Ito, 2008; the last
replaces their yellow, which is too light on white)."""

SEQUENTIAL = "Blues"
"""Colour map of weights and densities, from light for small to dark for large."""

CAPTION_SIZE = 10.5
"""Font size of a caption, points."""


def on_axes(ax: Axes | None, figsize: tuple[float, float] = (6.4, 4.2)) -> Axes:
    """Return the given Axes, or create a figure of a size in inches and return its Axes."""
    return plt.subplots(figsize=figsize, layout="constrained")[1] if ax is None else ax


def label_axes(ax: Axes, *, title: str = "", xlabel: str = "", ylabel: str = "") -> Axes:
    """Set title and axis labels, in letters that stay readable at half the size."""
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


def legend_above(ax: Axes, *, ncols: int = 1) -> Axes:
    """Draw the legend between the plot and its title, which is set, where it hides no data."""
    lines = -(-len(ax.get_legend_handles_labels()[1]) // ncols)
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        borderaxespad=0.1,
        ncols=ncols,
        frameon=False,
        fontsize=11,
        columnspacing=1.2,
    )
    ax.set_title(ax.get_title(loc="left"), fontsize=13, color=INK, loc="left", pad=8 + 17 * lines)
    return ax


def add_caption(ax: Axes, title: str, caption: str) -> Axes:
    """Set a title, and below it a caption on how to read the picture, wrapped to the Axes."""
    letters = max(24, int(0.85 * axes_width(ax) / (0.52 * CAPTION_SIZE)))
    lines = textwrap.wrap(caption, letters)
    text = ax.annotate(
        "\n".join(lines), (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points"
    )
    text.set(va="bottom", fontsize=CAPTION_SIZE, color="0.3")
    pad = 8 + 1.25 * CAPTION_SIZE * len(lines)
    ax.set_title(title, fontsize=13, color=INK, loc="left", pad=pad)
    return ax


def add_note(ax: Axes, words: str) -> None:
    """Write into the upper left corner of Axes."""
    text = ax.text(0.02, 0.98, words, fontsize=11, color=INK, va="top")
    text.set_transform(ax.transAxes)


def axes_width(ax: Axes) -> float:
    """Return the width of Axes in points, before the layout makes room for their labels."""
    figure = cast(Figure, ax.get_figure(root=True))
    return float(72 * figure.get_figwidth() * ax.get_position().width)


def named_ticks(number: int, most: int = 32) -> range:
    """Return the places along an axis to label, evenly spaced, at most so many."""
    return range(0, number, max(1, -(-number // most)))


def in_nats(value: float) -> str:
    """Format a log density, with decimals for small values only."""
    return f"{value:,.{2 if abs(value) < 100 else 0}f} nats"
