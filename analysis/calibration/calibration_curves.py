"""Do predictions hold what they say? Pictures of their calibration on rows with known targets.

Classes that are given 70 % should be right in 70 % of rows, and intervals of 90 % should hold 90 %
of targets. Rows count as independent of one another in all intervals and bands here.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from scipy.stats import beta

from pyro_vmtl.analysis.calibration.calibrated_hits import calibrated_hits
from pyro_vmtl.analysis.calibration.uniform_bands import UniformBands, fault_in_words
from pyro_vmtl.analysis.calibration.uniform_histogram import draw_uniform_histogram, fault_and_size
from pyro_vmtl.analysis.canvas import COLORS, INK, MUTED, dressed, on_axes
from pyro_vmtl.analysis.metrics import expected_calibration_error

__all__ = ["binomial_interval", "ece_interval", "plot_coverage", "plot_pit", "plot_reliability"]

FEWEST_HITS = 10
"""Rows from which it is judged whether predicted classes are too sure."""

FEWEST_TARGETS = 8
"""Rows from which predictive distributions are judged."""


def binomial_interval(
    hits: np.ndarray, trials: np.ndarray, ci_prob: float
) -> tuple[np.ndarray, np.ndarray]:
    """Exact interval of a probability, from how often things were so (Clopper and Pearson 1934).

    Parameters
    ----------
    hits, trials
        How often, and of how many, arrays of one shape.
    ci_prob
        Probability that the interval holds at least.

    Returns
    -------
    tuple of ndarray
        Lower and upper ends.

    Examples
    --------
    >>> low, high = binomial_interval(np.array([0, 5]), np.array([10, 10]), 0.9)
    >>> low.round(2), high.round(2)
    (array([0.  , 0.22]), array([0.26, 0.78]))
    """
    tail = (1 - ci_prob) / 2
    # A beta distribution needs two positive numbers: at the ends the interval ends too.
    low = np.where(hits > 0, beta.ppf(tail, np.maximum(hits, 1), trials - hits + 1), 0.0)
    missed = np.maximum(trials - hits, 1)
    high = np.where(hits < trials, beta.ppf(1 - tail, hits + 1, missed), 1.0)
    return low, high


def ece_interval(
    proba: np.ndarray,
    y: np.ndarray,
    *,
    num_bins: int = 15,
    ci_prob: float = 0.9,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Expected calibration error, with a bootstrap interval from resampled rows.

    Chance gaps of bins make the error larger than that of infinitely many rows, and those of a
    resample make it larger again. Their mean is therefore moved to the error itself: the interval
    says how much other rows would move it, and not that it has no such share.

    Parameters
    ----------
    proba
        (rows, C), class probabilities.
    y
        (rows,), index of the true class.
    num_bins
        Number of bins of the largest probability.
    ci_prob
        Probability of the interval.
    num_resamples
        Number of resamples.
    seed
        Seed of the resamples.

    Returns
    -------
    tuple of float
        The error as of :func:`expected_calibration_error`, and both ends of its interval.

    Raises
    ------
    ValueError
        If there are no rows.

    Examples
    --------
    >>> proba = np.array([[0.9, 0.1]] * 200)
    >>> ece, low, high = ece_interval(proba, np.arange(200) % 2)  # right in half of the rows
    >>> round(ece, 2), bool(0.3 < low < 0.4 < high < 0.5)
    (0.4, True)
    """
    if not len(y):
        raise ValueError("There are no rows, expected at least one with a known class.")
    ece = expected_calibration_error(proba, y, num_bins=num_bins)
    bins = _bins(proba.max(1), num_bins)
    gap = (proba.argmax(1) == y) - proba.max(1).astype(float)
    random = np.random.default_rng(seed)
    resampled = np.empty(num_resamples)
    for i in range(num_resamples):
        rows = random.integers(len(y), size=len(y))
        resampled[i] = np.abs(np.bincount(bins[rows], weights=gap[rows])).sum() / len(y)
    ends = np.quantile(resampled, [(1 - ci_prob) / 2, (1 + ci_prob) / 2]) - resampled.mean()
    low, high = np.clip(ece + ends, 0.0, 1.0)
    return ece, float(low), float(high)


def plot_reliability(
    data: xr.DataTree, ax: Axes | None = None, *, num_bins: int = 10, ci_prob: float = 0.9
) -> Axes:
    """Reliability diagram: how often predicted classes are right, by how sure predictions are.

    Parameters
    ----------
    data
        Tree with ``proba`` and ``y`` in the group ``predictions``.
    ax
        Axes to draw on; new ones by default.
    num_bins
        Number of bins of equal width, in the picture and in the calibration error.
    ci_prob
        Probability of all intervals.

    Returns
    -------
    Axes
        A marker for each bin that has rows, at its mean confidence, with a binomial interval of how
        often its classes are right. Its area grows with the number of rows. It is a cross where the
        interval misses the mean confidence. The title says whether the predictions of 10 or more
        rows are too sure on average: more so than all but 1 - ``ci_prob`` of calibrated ones. It
        has the calibration error with its bootstrap interval, and the interval that calibrated
        predictions of these rows would have by chance.

    Raises
    ------
    ValueError
        If the tree has no predicted probabilities, or no known classes for them.
    """
    proba, y = _predicted(data, "proba"), _predicted(data, "y").astype(int)
    confidence, hit = proba.max(1).astype(float), proba.argmax(1) == y
    bins = _bins(confidence, num_bins)
    rows = np.bincount(bins, minlength=num_bins)
    some = rows > 0
    rows = rows[some]
    hits = np.bincount(bins, weights=hit, minlength=num_bins)[some].astype(int)
    at = np.bincount(bins, weights=confidence, minlength=num_bins)[some] / rows
    low, high = binomial_interval(hits, rows, ci_prob)
    off = (at < low) | (at > high)
    ax = on_axes(ax, (6.4, 4.8))
    ax.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1.5, zorder=1)
    area = 25 + 275 * rows / rows.max()
    for kept, color, marker in ((~off, COLORS[0], "o"), (off, COLORS[1], "X")):
        ax.vlines(at[kept], low[kept], high[kept], color=color, linewidth=2, zorder=2)
        ax.scatter(
            *(at[kept], hits[kept] / rows[kept]),
            s=area[kept], c=color, marker=marker, edgecolors="white", zorder=3,
        )  # fmt: skip
    ece, *ends = ece_interval(proba, y, num_bins=num_bins, ci_prob=ci_prob)
    gap = (confidence - hit).mean()
    chance = calibrated_hits(confidence, bins)
    found = "As often right as they say, on average"
    if len(y) < FEWEST_HITS:
        found = f"Too few rows to judge: {len(y)}"
    elif chance.p_value(hit.sum()) <= 1 - ci_prob:
        found = f"{'Too sure' if gap > 0 else 'Not sure enough'} by {abs(gap):.1%}"
    usual = np.quantile(chance.ece, [(1 - ci_prob) / 2, (1 + ci_prob) / 2])
    title = f"{found}\nECE {ece:.3f}, {ci_prob:.0%} interval {ends[0]:.3f} to {ends[1]:.3f}"
    title += f"\n(by chance, if calibrated: {usual[0]:.3f} to {usual[1]:.3f})"
    # The largest of C probabilities is at least 1 / C.
    left = max(0.0, min(1 / proba.shape[1], at.min()) - 0.05)
    ax.set(xlim=(left, 1.03), ylim=(-0.03, 1.03))
    xlabel = "confidence (probability of the predicted class)"
    notes = [f"area: rows, {len(y)} in all", "dashed: calibrated"]
    if off.any():
        cross = "\N{MULTIPLICATION SIGN}"
        notes.append(f"{cross}: {off.sum()} of {len(off)} bins are off")
    text = ax.text(0.02, 0.98, "\n".join(notes), fontsize=11, color=INK, va="top")
    text.set_transform(ax.transAxes)
    return dressed(ax, title=title, xlabel=xlabel, ylabel="accuracy (share that is right)")


def plot_coverage(data: xr.DataTree, ax: Axes | None = None, *, ci_prob: float = 0.9) -> Axes:
    """How many targets central predictive intervals hold, for intervals of any probability.

    Parameters
    ----------
    data
        Tree with ``pit`` in the group ``predictions``.
    ax
        Axes to draw on; new ones by default.
    ci_prob
        Probability that the coverage of right intervals lies in the band, everywhere at once.

    Returns
    -------
    Axes
        The coverage of central intervals over their probability, on the band about the diagonal.
        Below it intervals are too narrow, above it too wide. Dots at 50 and 90 %. Fewer than 8 rows
        are not judged.

    Raises
    ------
    ValueError
        If the tree has no probability integral transforms, or some are NaN.
    """
    # The central interval that a target is on the edge of.
    edges = np.sort(np.abs(2 * _predicted(data, "pit") - 1))
    bands = UniformBands.of(len(edges))
    low, high = bands.limits(ci_prob)
    actual = np.searchsorted(edges, bands.places, side="right") / len(edges)
    ax = on_axes(ax, (6.4, 4.8))
    ax.fill_between(bands.places, low, high, color=MUTED, alpha=0.35, linewidth=0)
    ax.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1.5)
    held = actual[[49, 89]]
    ax.plot([0, *bands.places, 1], [0, *actual, 1], color=COLORS[0], linewidth=2)
    ax.plot([0.5, 0.9], held, "o", color=COLORS[0], markersize=8)
    below, above = actual < low, actual > high
    found = "Intervals hold what they say"
    if len(edges) < FEWEST_TARGETS:
        found = "Too few rows to judge"
    elif below.any() or above.any():
        found = f"Intervals are too {'narrow' if below.sum() >= above.sum() else 'wide'}"
    found += f": {held[1]:.0%} of {len(edges)} targets"
    title = f"{found}\nare in those of 90%, {held[0]:.0%} in those of 50%"
    notes = f"band: {ci_prob:.0%} if calibrated\nabove: too wide\nbelow: too narrow"
    text = ax.text(0.02, 0.98, notes, fontsize=11, color=INK, va="top")
    text.set_transform(ax.transAxes)
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
    xlabel = "probability of the central predictive interval"
    return dressed(ax, title=title, xlabel=xlabel, ylabel="share of targets inside")


def plot_pit(data: xr.DataTree, ax: Axes | None = None, *, ci_prob: float = 0.9) -> Axes:
    """Histogram of the predictive probabilities below the targets (Dawid 1984).

    Parameters
    ----------
    data
        Tree with ``pit`` in the group ``predictions``.
    ax
        Axes to draw on; new ones by default.
    ci_prob
        Probability that right predictions pass, and that no bar of them leaves the band.

    Returns
    -------
    Axes
        Bars, hatched where they leave the band. High at both ends: predictions are too narrow; high
        in the middle: too wide; high at one end: biased. The title says which, for 8 rows or more.

    Raises
    ------
    ValueError
        If the tree has no probability integral transforms, or some are NaN.
    """
    pit = _predicted(data, "pit")
    ax = on_axes(ax)
    draw_uniform_histogram(ax, pit, len(pit), ci_prob)
    title = f"No fault found in the predictions of {len(pit)} rows"
    if len(pit) < FEWEST_TARGETS:
        title = f"Too few rows to judge: {len(pit)}"
    elif UniformBands.of(len(pit)).p_value(pit) <= 1 - ci_prob:
        title = f"Predictions: {fault_and_size(pit, fault_in_words(pit, len(pit)))}"
    xlabel = "predictive probability below the target (PIT)"
    return dressed(ax, title=title, xlabel=xlabel, ylabel="density")


def _bins(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    """Give the bin of every row, as in the calibration error."""
    bins: np.ndarray = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    return bins


def _predicted(data: xr.DataTree, variable: str) -> np.ndarray:
    """Get a quantity of all predicted rows, or say why there is none."""
    found = list(data["predictions"].data_vars) if "predictions" in data.children else []
    if variable in found and data["predictions"][variable].size:
        values = np.asarray(data["predictions"][variable].values)
        lacking = np.isnan(values).reshape(len(values), -1).any(1).sum()
        if lacking:
            raise ValueError(
                f"{lacking} of {len(values)} rows in the group 'predictions' have no {variable!r} "
                "(NaN), expected a number for each. Leave these rows out."
            )
        return values
    way_out = {
        "y": "Predict rows whose targets are known",
        "proba": "Take plot_coverage or plot_pit for real targets and counts",
        "pit": "Take plot_reliability for classes, and rows with known targets",
    }
    reason = (
        f"has {sorted(map(str, found))}, expected {variable!r}. {way_out[variable]}."
        if found
        else "is not there or has no rows. Give to_datatree the `rows` to predict."
    )
    raise ValueError(f"The group 'predictions' {reason}")
