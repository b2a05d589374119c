"""Test whether numbers are uniform on [0, 1], and draw how they deviate.

Ranks and probability integral transforms (PIT) are uniform where a posterior or a prediction is
calibrated. Their empirical distribution function (ECDF) is compared with the diagonal at 99 points
at once: each point has a binomial band, all of the same probability, chosen so that uniform numbers
stay inside *all* bands with the probability wanted (Säilynoja, Bürkner and Vehtari 2022, arXiv
2103.10522). ArviZ's ``plot_ecdf_pit`` draws the same bands, but has no p-value, takes all numbers
for independent, and its cost grows with the square of their number.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import binom, norm

from pyro_vmtl.analysis.canvas import COLORS, INK, MUTED

__all__ = [
    "POINTS",
    "describe_fault",
    "draw_ecdf_difference",
    "ecdf",
    "effective_number",
    "name_fault",
    "normal_scores",
    "uniform_limits",
    "uniform_p_value",
]

POINTS = np.arange(1, 100) / 100
"""Where the ECDF is compared with the diagonal."""

NUM_DRAWS = 4000
"""Uniform samples behind bands and p-values: at 0.99 their error is 0.0016."""

MIN_CLUSTERS = 10
"""With fewer clusters, the correlation within them cannot be estimated."""


def uniform_limits(number: int, ci_prob: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute limits (99,) of the ECDF of n uniform numbers that hold at all points at once.

    Examples
    --------
    >>> low, high = uniform_limits(50, 0.99)
    >>> bool((low < POINTS).all() and (POINTS < high).all())
    True
    """
    place = min(int((1 - ci_prob) * NUM_DRAWS), NUM_DRAWS - 1)
    tail = _least_tails(number)[place] * (1 - 1e-9)  # tails of equal counts differ by rounding
    low = binom.ppf(tail, number, POINTS)
    high = number - binom.ppf(tail, number, 1 - POINTS)
    return low / number, high / number


def uniform_p_value(values: np.ndarray, number: int) -> float:
    """Compute the probability that n uniform numbers deviate as far somewhere as these do."""
    counts = np.round(ecdf(values) * number).astype(int)
    # The smallest tail has few distinct values: equal ones count.
    least = _tails(counts, number).min() * (1 + 1e-9)
    return float((1 + np.searchsorted(_least_tails(number), least, side="right")) / (1 + NUM_DRAWS))


def ecdf(values: np.ndarray) -> np.ndarray:
    """Compute the share of values up to each of the points, (99,)."""
    return np.searchsorted(np.sort(values), POINTS, side="right") / len(values)


@lru_cache(maxsize=64)
def _least_tails(number: int) -> np.ndarray:
    """Compute the smallest tail probability over all points, sorted, of uniform samples."""
    shares = np.full(len(POINTS) + 1, 1 / (len(POINTS) + 1))
    counts = np.random.default_rng(0).multinomial(number, shares, size=NUM_DRAWS)
    below = counts.cumsum(1)[:, :-1]
    if number < NUM_DRAWS:  # compute each of the few distinct tails once
        table = _tails(np.arange(number + 1)[:, None], number)
        return np.sort(table[below, np.arange(len(POINTS))].min(1))
    return np.sort(_tails(below, number).min(1))


def _tails(counts: np.ndarray, number: int) -> np.ndarray:
    """Compute the smaller binomial tail probability of counts (..., 99) up to each point."""
    lower, upper = binom.cdf(counts, number, POINTS), binom.sf(counts - 1, number, POINTS)
    tails: np.ndarray = np.minimum(lower, upper)
    return tails


def draw_ecdf_difference(ax: Axes, values: np.ndarray, label: str, ci_prob: float) -> None:
    """Draw the ECDF of independent values less the diagonal, on the band of uniform ones."""
    points = np.array([0.0, *POINTS, 1.0])
    low, high = (np.pad(limit - POINTS, 1) for limit in uniform_limits(len(values), ci_prob))
    band = f"{100 * ci_prob:.3g}% band if calibrated"
    ax.fill_between(points, low, high, color=MUTED, alpha=0.3, linewidth=0, label=band)
    ax.axhline(0.0, color=INK, linewidth=1)
    ax.plot(points, np.pad(ecdf(values) - POINTS, 1), color=COLORS[0], linewidth=2, label=label)
    # Room for the legend above the line, and for the note below it.
    most = max(map(abs, ax.get_ylim()))
    ax.set(xlim=(0, 1), ylim=(-1.3 * most, 1.32 * most))
    ax.legend(loc="upper center", ncols=2, columnspacing=1.2)
    note = "above, then below: too narrow; below, then above: too wide"
    text = ax.text(0.5, 0.02, note, fontsize=11, color=INK, ha="center")
    text.set_transform(ax.transAxes)


def effective_number(clusters: np.ndarray) -> int:
    """Estimate how many independent numbers are worth as much as numbers (clusters, M) in clusters.

    The fraction of numbers below a point varies more from cluster to cluster than that of
    independent numbers would if those of a cluster are correlated (design effect; Kish 1965). With
    fewer than 10 clusters that cannot be estimated, and each counts as one number.

    Examples
    --------
    >>> u = np.random.default_rng(0).uniform(size=(200, 1))
    >>> effective_number(u.repeat(5, axis=1))  # the same five times
    200
    """
    num, size = clusters.shape
    if num < MIN_CLUSTERS or size == 1:
        return num
    points = np.arange(1, 50) / 50
    variance = np.mean([(clusters <= point).mean(1).var(ddof=1) for point in points])
    independent = num * (points * (1 - points)).mean() / max(variance, 1e-12)
    return int(np.clip(independent, num, num * size))


def normal_scores(values: np.ndarray) -> tuple[float, float]:
    """Estimate bias and width of the distributions that ranks or PIT are of.

    The bias is in their standard deviations, the width a multiple of the right one; exact for
    normal distributions, approximate for others.

    Examples
    --------
    >>> z = np.random.default_rng(0).normal(size=100_000)
    >>> bias, width = normal_scores(norm.cdf((z - 0.3) / 0.5))  # N(0.3, 0.5^2) for N(0, 1)
    >>> round(bias, 1), round(width, 1)
    (0.6, 0.5)
    """
    scores = norm.ppf(np.clip(values, 1e-9, 1 - 1e-9))
    return float(-scores.mean()), float(1 / max(scores.std(), 1e-9))


def name_fault(values: np.ndarray, number: int) -> str:
    """Name how numbers worth n independent ones deviate from uniform ones."""
    bias, width = normal_scores(values)
    # In standard errors: of a mean, and of a variance.
    off = {
        "biased up" if bias > 0 else "biased down": abs(bias) * number**0.5,
        "too narrow" if width < 1 else "too wide": abs(width**-2 - 1) * (number / 2) ** 0.5,
    }
    largest = max(off, key=lambda fault: off[fault])
    return largest if off[largest] > 2 else "not uniform"


def describe_fault(values: np.ndarray, fault: str) -> str:
    """Add the size of a fault, on a line of its own.

    Examples
    --------
    >>> print(describe_fault(np.linspace(0.3, 0.7, 100), "too wide"))
    too wide,
    3.33 times the right width
    >>> describe_fault(np.linspace(0.01, 0.98, 100), "biased up")
    'slightly biased up'
    """
    bias, width = normal_scores(values)
    if fault.startswith("biased"):
        small, size = abs(bias) < 0.05, f"by {abs(bias):.1f} of its standard deviations"
    elif fault.startswith("too"):
        small = 0.95 <= width <= 1.05
        size = f"{f'{width:.2f}' if width <= 10 else 'more than 10'} times the right width"
    else:
        return fault
    return f"slightly {fault}" if small else f"{fault},\n{size}"
