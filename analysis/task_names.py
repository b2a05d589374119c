"""Names and captions on pictures: many of them, and long ones, stay readable."""

from __future__ import annotations

import textwrap
from typing import cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_vmtl.analysis.canvas import INK

__all__ = ["captioned", "thinned"]

MOST_NAMES = 32
"""Names along an axis."""

CAPTION_SIZE = 10.5
"""Size of the letters of a caption, points."""


def thinned(number: int, most: int = MOST_NAMES) -> range:
    """Choose which of so many to name along an axis.

    Examples
    --------
    >>> list(thinned(7, most=3))
    [0, 3, 6]
    """
    return range(0, number, max(1, -(-number // most)))


def width_in_points(ax: Axes) -> float:
    """Measure Axes, before a layout has made room for their labels."""
    figure = cast(Figure, ax.get_figure(root=True))
    return float(72 * figure.get_figwidth() * ax.get_position().width)


def captioned(ax: Axes, title: str, caption: str) -> Axes:
    """Write a title, and below it how to read the picture, as wide as the Axes are."""
    letters = max(24, int(0.85 * width_in_points(ax) / (0.52 * CAPTION_SIZE)))
    lines = textwrap.wrap(caption, letters)
    text = ax.annotate(
        "\n".join(lines), (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points"
    )
    text.set(va="bottom", fontsize=CAPTION_SIZE, color="0.3")
    pad = 8 + 1.25 * CAPTION_SIZE * len(lines)
    ax.set_title(title, fontsize=13, color=INK, loc="left", pad=pad)
    return ax
