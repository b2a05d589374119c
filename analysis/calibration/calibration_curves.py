"""Plot the calibration of predictions on rows with known targets.

Classes predicted with a probability of 70 % should be right in 70 % of rows, and intervals of 90 %
should contain 90 % of targets. All intervals and bands here take rows for independent.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from scipy.stats import binomtest

from pyro_vmtl.analysis.calibration.ranks import POINTS, ecdf, uniform_limits
from pyro_vmtl.analysis.canvas import COLORS, MUTED, add_note, label_axes, on_axes
from pyro_vmtl.analysis.metrics import calibrated_hits, confidence_bins, ece_interval, hits_p_value
from pyro_vmtl.analysis.tree_parts import get_variable

__all__ = ["plot_coverage", "plot_reliability"]

MIN_CLASSES = 10
"""Rows from which predicted classes are judged."""

MIN_TARGETS = 8
"""Rows from which predictive distributions are judged."""


def plot_reliability(
    data: xr.DataTree, ax: Axes | None = None, *, num_bins: int = 10, ci_prob: float = 0.9
) -> Axes:
    """Plot a reliability diagram: accuracy of predicted classes against their confidence.

    Parameters
    ----------
    data
        Tree with ``proba`` and ``y`` in the group ``predictions``.
    ax
        Axes to draw on; new ones by default.
    num_bins
        Number of bins of equal width, in the plot and in the calibration error.
    ci_prob
        Probability of all intervals.

    Returns
    -------
    Axes
        A marker for each bin with rows, at its mean confidence, with a binomial interval of its
        accuracy. The area grows with the number of rows; a cross marks bins whose interval misses
        the mean confidence. The title says whether predictions are overconfident on average, more
        so than all but 1 - ``ci_prob`` of calibrated ones (10 rows or more), and the calibration
        error with its bootstrap interval, beside that of calibrated predictions of the same rows.

    See Also
    --------
    expected_calibration_error, plot_coverage
    arviz_plots.plot_ppc_pava : Calibration of each class against all others, without bins.

    Examples
    --------
    >>> from pyro_vmtl import Preset, TaskData
    >>> from pyro_vmtl.analysis import to_datatree
    >>> classes = TaskData.classification([[0.0], [1.0]] * 8, ["no", "yes"] * 8, [*"aabb"] * 4)
    >>> member = Preset(fitting={"num_steps": 20}).fit(classes)
    >>> plot_reliability(to_datatree(member, classes, rows=classes)).get_xlabel()
    'confidence (probability of the predicted class)'
    """
    proba, y = _predicted(data, "proba"), _predicted(data, "y").astype(int)
    confidence, hit = proba.max(1).astype(float), proba.argmax(1) == y
    bins = confidence_bins(confidence, num_bins)
    by_bin = pd.DataFrame({"confidence": confidence, "hit": hit}).groupby(bins)
    rows, hits = by_bin["hit"].size().to_numpy(), by_bin["hit"].sum().to_numpy()
    at = by_bin["confidence"].mean().to_numpy()
    tests = [binomtest(int(k), int(n)) for k, n in zip(hits, rows, strict=True)]
    low, high = np.array([test.proportion_ci(ci_prob, "exact") for test in tests]).T
    off = (at < low) | (at > high)
    ax = on_axes(ax, (6.4, 4.8))
    ax.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1.5, zorder=1)
    area = 25 + 275 * rows / rows.max()
    for kept, color, marker in ((~off, COLORS[0], "o"), (off, COLORS[1], "X")):
        ax.vlines(at[kept], low[kept], high[kept], color=color, linewidth=2, zorder=2)
        shares = hits[kept] / rows[kept]
        ax.scatter(at[kept], shares, area[kept], color, marker=marker, edgecolors="white", zorder=3)
    # The largest of C probabilities is at least 1 / C.
    left = max(0.0, min(1 / proba.shape[1], at.min()) - 0.05)
    ax.set(xlim=(left, 1.03), ylim=(-0.03, 1.03))
    notes = [f"area: rows, {len(y)} in all", "dashed: calibrated"]
    if off.any():
        cross = "\N{MULTIPLICATION SIGN}"
        notes.append(f"{cross}: {off.sum()} of {len(off)} bins are off")
    add_note(ax, "\n".join(notes))
    ece, *ends = ece_interval(proba, y, num_bins=num_bins, ci_prob=ci_prob)
    gap = (confidence - hit).mean()
    simulated_hits, simulated_ece = calibrated_hits(confidence, bins)
    found = "As often right as predicted, on average"
    if len(y) < MIN_CLASSES:
        found = f"Too few rows to judge: {len(y)}"
    elif hits_p_value(simulated_hits, hit.sum()) <= 1 - ci_prob:
        found = f"{'Overconfident' if gap > 0 else 'Underconfident'} by {abs(gap):.1%}"
    usual = np.quantile(simulated_ece, [(1 - ci_prob) / 2, (1 + ci_prob) / 2])
    title = f"{found}\nECE {ece:.3f}, {ci_prob:.0%} interval {ends[0]:.3f} to {ends[1]:.3f}"
    title += f"\n(by chance, if calibrated: {usual[0]:.3f} to {usual[1]:.3f})"
    xlabel = "confidence (probability of the predicted class)"
    return label_axes(ax, title=title, xlabel=xlabel, ylabel="accuracy (share that is right)")


def plot_coverage(data: xr.DataTree, ax: Axes | None = None, *, ci_prob: float = 0.9) -> Axes:
    """Plot the coverage of central predictive intervals against their probability.

    Parameters
    ----------
    data
        Tree with ``pit``, the probability integral transforms, in the group ``predictions``.
    ax
        Axes to draw on; new ones by default.
    ci_prob
        Probability that the coverage of calibrated intervals lies inside the band, everywhere at
        once.

    Returns
    -------
    Axes
        The coverage on the band about the diagonal: intervals are too narrow below it, and too wide
        above. Dots at 50 and 90 %. Fewer than 8 rows are not judged.

    See Also
    --------
    plot_reliability
    arviz_plots.plot_ecdf_pit : Tell biased predictions, too, by
        ``az.plot_ecdf_pit(data, group="predictions", var_names="pit", sample_dims="row")``.

    Examples
    --------
    >>> plot_coverage(tree).get_xlabel()
    'probability of the central predictive interval'
    """
    # The probability of the central interval that a target is on the edge of.
    edges = np.abs(2 * _predicted(data, "pit") - 1)
    low, high = uniform_limits(len(edges), ci_prob)
    actual = ecdf(edges)
    ax = on_axes(ax, (6.4, 4.8))
    ax.fill_between(POINTS, low, high, color=MUTED, alpha=0.35, linewidth=0)
    ax.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1.5)
    held = actual[[49, 89]]
    ax.plot([0, *POINTS, 1], [0, *actual, 1], color=COLORS[0], linewidth=2)
    ax.plot([0.5, 0.9], held, "o", color=COLORS[0], markersize=8)
    below, above = actual < low, actual > high
    found = "Intervals are calibrated"
    if len(edges) < MIN_TARGETS:
        found = "Too few rows to judge"
    elif below.any() or above.any():
        found = f"Intervals are too {'narrow' if below.sum() >= above.sum() else 'wide'}"
    found += f": {held[1]:.0%} of {len(edges)} targets"
    title = f"{found}\nare in those of 90%, {held[0]:.0%} in those of 50%"
    add_note(ax, f"band: {ci_prob:.0%} if calibrated\nabove: too wide\nbelow: too narrow")
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
    xlabel = "probability of the central predictive interval"
    return label_axes(ax, title=title, xlabel=xlabel, ylabel="share of targets inside")


def _predicted(data: xr.DataTree, variable: str) -> np.ndarray:
    """Return a quantity of all predicted rows."""
    values = np.asarray(get_variable(data, "predictions", variable).values)
    lacking = np.isnan(values).reshape(len(values), -1).any(1).sum()
    if lacking:
        raise ValueError(
            f"{lacking} of {len(values)} rows in the group 'predictions' have no {variable!r} "
            "(NaN), expected a number for each. Leave these rows out."
        )
    return values
