"""A histogram of what should be uniform, with the band that it then keeps to."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from pyro_vmtl.analysis.calibration.uniform_bands import histogram_limits, normal_scores
from pyro_vmtl.analysis.canvas import COLORS, INK, MUTED

__all__ = ["draw_uniform_histogram", "draw_uniform_steps", "fault_and_size", "num_bins_of"]

MOST_STEPS = 10
"""Bins where several outlines cross."""

LEAST_PER_BIN = 8
"""Independent numbers to expect in a bin."""


def num_bins_of(number: int) -> int:
    """Give the number of bins for so many independent numbers, from 5 to 20."""
    return int(np.clip(number // LEAST_PER_BIN, 5, 20))


def draw_uniform_histogram(ax: Axes, values: np.ndarray, number: int, ci_prob: float) -> None:
    """Draw bars, on the band that they keep to with a probability if all is well.

    Parameters
    ----------
    ax
        Axes to draw on.
    values
        Numbers from 0 to 1.
    number
        How many independent ones say as much.
    ci_prob
        The probability that no bar leaves the band.
    """
    num_bins = num_bins_of(number)
    low, high = histogram_limits(number, num_bins, ci_prob)
    heights, edges = np.histogram(values, bins=num_bins, range=(0, 1), density=True)
    # A bar as high as a limit is inside: the two are rounded in different places.
    outside = (heights < low - 1e-9) | (heights > high + 1e-9)
    bars = ax.bar(edges[:-1], heights, np.diff(edges), align="edge", edgecolor="white", zorder=2)
    for bar, out in zip(bars, outside, strict=True):
        bar.set(facecolor=COLORS[1] if out else COLORS[5], hatch="//" if out else None)
    _draw_band(ax, low, high, ci_prob)
    _draw_level(ax, max(high, heights.max()))


def draw_uniform_steps(ax: Axes, values: dict[str, tuple[np.ndarray, int]], ci_prob: float) -> None:
    """Draw outlines of several histograms, and the band of the one with the fewest numbers.

    Parameters
    ----------
    ax
        Axes to draw on.
    values
        For each label its numbers, and how many independent ones say as much.
    ci_prob
        The probability that no step leaves the band.
    """
    least = min(number for _, number in values.values())
    num_bins = min(num_bins_of(least), MOST_STEPS)
    low, high = histogram_limits(least, num_bins, ci_prob)
    _draw_band(ax, low, high, ci_prob)
    styles = ("-", "--", "-.", ":")
    highest = high
    for i, (label, (numbers, _)) in enumerate(values.items()):
        heights, edges = np.histogram(numbers, bins=num_bins, range=(0, 1), density=True)
        color, style = COLORS[i % len(COLORS)], styles[i % len(styles)]
        ax.stairs(heights, edges, color=color, linestyle=style, linewidth=2, label=label, zorder=3)
        highest = max(highest, heights.max())
    _draw_level(ax, highest)


def _draw_band(ax: Axes, low: float, high: float, ci_prob: float) -> None:
    label = f"{100 * ci_prob:.3g}% band if calibrated"
    ax.axhspan(low, high, color=MUTED, alpha=0.3, linewidth=0, zorder=1, label=label)
    # Its edges lie over the bars, which keep their colour.
    for limit in (low, high):
        ax.axhline(limit, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=2.6)


def _draw_level(ax: Axes, highest: float) -> None:
    ax.axhline(1.0, color=INK, linewidth=1, zorder=2.6)
    lines = -(-len(ax.get_legend_handles_labels()[1]) // 2)
    # Room for the legend above the highest bar.
    ax.set(xlim=(0, 1), ylim=(0, highest * (1.1 + 0.12 * lines)))
    ax.legend(loc="upper center", ncols=2, columnspacing=1.2)


def fault_and_size(values: np.ndarray, verdict: str) -> str:
    """Say a fault, and how large it is in a line of its own where there is a number for it.

    Examples
    --------
    >>> print(fault_and_size(np.linspace(0.3, 0.7, 100), "too wide"))
    too wide,
    3.33 times the right width
    >>> fault_and_size(np.linspace(0.01, 0.98, 100), "biased up")
    'slightly biased up'
    """
    bias, width = normal_scores(values)
    if verdict.startswith("biased"):
        small = abs(bias) < 0.05
        size = f"by {abs(bias):.1f} of its standard deviations"
    elif verdict.startswith("too"):
        small = 0.95 <= width <= 1.05
        size = f"{f'{width:.2f}' if width <= 10 else 'more than 10'} times the right width"
    else:
        return verdict
    return f"slightly {verdict}" if small else f"{verdict},\n{size}"
