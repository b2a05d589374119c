"""Test ranks and probability integral transforms, which are uniform where all is calibrated.

Their empirical distribution function (ECDF) is compared with the diagonal at 99 points at once:
each point has a binomial band, all of the same probability, chosen so that uniform numbers stay
inside *all* bands with the probability wanted (Säilynoja, Bürkner and Vehtari 2022, arXiv
2103.10522). ArviZ's ``plot_ecdf_pit`` draws the same bands, but has no p-value, takes all numbers
for independent, and its cost grows with the square of their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import binom, norm

__all__ = ["POINTS", "ecdf", "rank_uniformity", "uniform_limits"]

GROUP = "prior_sbc"

POINTS = np.arange(1, 100) / 100
"""Where the ECDF is compared with the diagonal."""

NUM_DRAWS = 4000
"""Uniform samples behind bands and p-values: at 0.99 their error is 0.0016."""

MIN_CLUSTERS = 10
"""With fewer clusters, the correlation within them cannot be estimated."""


def rank_uniformity(
    data: xr.DataTree, *, sample_dims: Sequence[str] | None = None, ci_prob: float = 0.99
) -> pd.DataFrame:
    """Test whether the ranks of every site are uniform, and name the fault where they are not.

    All ranks of a site are pooled, and their ECDF is compared with the diagonal at all points at
    once: of calibrated posteriors, 1 - ``ci_prob`` are rejected, site by site. The ranks of a
    simulation are correlated. They count for as many independent ones as their variation between
    simulations shows, and with fewer than 10 simulations for one per simulation.

    Parameters
    ----------
    data
        Tree from :func:`simulate_ranks`.
    sample_dims
        Dimensions along which ranks are independent; by default those that :func:`simulate_ranks`
        recorded.
    ci_prob
        Probability that a calibrated posterior passes.

    Returns
    -------
    DataFrame
        A row per site: number of ``ranks``, ``effective`` number of independent ones; ``p_value``;
        ``bias`` of the posterior in its own standard deviations, and ``width``, its standard
        deviation as a multiple of the right one, both under a normal approximation and closer to
        right than they are, as ranks do not show how far a value lies outside of all draws;
        ``verdict``, one of "calibrated", "too narrow" (ranks pile up at both ends), "too wide" (in
        the middle), "biased up" (at 0), "biased down" (at 1), "not uniform".

    See Also
    --------
    simulate_ranks
    arviz_plots.plot_ecdf_pit : Plot the ranks, which it takes for independent.

    Examples
    --------
    >>> u = np.random.default_rng(0).beta(0.5, 0.5, size=(200, 1))  # ranks at both ends
    >>> ranks = xr.Dataset({"w": (("simulation", "task"), u)})
    >>> rank_uniformity(xr.DataTree.from_dict({"prior_sbc": ranks})).loc["w", "verdict"]
    'too narrow'
    """
    rows = {}
    for site, clusters in _clusters(data, sample_dims).items():
        values, number = clusters.ravel(), _effective_number(clusters)
        p_value = _p_value(values, number)
        bias, width = _normal_scores(values)
        rows[site] = {
            "ranks": len(values),
            "effective": number,
            "p_value": p_value,
            "bias": bias,
            "width": width,
            "verdict": "calibrated" if p_value > 1 - ci_prob else _fault(bias, width, number),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("site")


def _clusters(data: xr.DataTree, sample_dims: Sequence[str] | None) -> dict[str, np.ndarray]:
    """Return the ranks of each site, (clusters, M): those of a cluster may be correlated."""
    if GROUP not in data.children:
        raise ValueError(
            f"The data have no group {GROUP!r}, found {list(data.children)}. Make it with "
            "`simulate_ranks`."
        )
    ranks = data[GROUP].to_dataset()
    dims = ranks.attrs.get("sample_dims", ["simulation"]) if sample_dims is None else sample_dims
    clusters = {}
    for name in ranks.data_vars:
        independent = [dim for dim in np.atleast_1d(dims) if dim in ranks[name].dims]
        stacked = ranks[name].stack(cluster=independent, create_index=False)
        clusters[str(name)] = stacked.transpose("cluster", ...).values.reshape(
            stacked.sizes["cluster"], -1
        )
    return clusters


def _effective_number(clusters: np.ndarray) -> int:
    """Estimate how many independent numbers are worth as much as those in clusters, (clusters, M).

    The fraction of numbers below a point varies more from cluster to cluster than that of
    independent numbers would if those of a cluster are correlated (design effect; Kish 1965).
    """
    num, size = clusters.shape
    if num < MIN_CLUSTERS or size == 1:
        return num
    points = np.arange(1, 50) / 50
    variance = np.mean([(clusters <= point).mean(1).var(ddof=1) for point in points])
    independent = num * (points * (1 - points)).mean() / max(variance, 1e-12)
    return int(np.clip(independent, num, num * size))


def _normal_scores(values: np.ndarray) -> tuple[float, float]:
    """Estimate bias (in standard deviations) and relative width of the normals behind ranks."""
    scores = norm.ppf(np.clip(values, 1e-9, 1 - 1e-9))
    return float(-scores.mean()), float(1 / max(scores.std(), 1e-9))


def _fault(bias: float, width: float, number: int) -> str:
    """Name how numbers worth n independent ones deviate from uniform ones."""
    # In standard errors: of a mean, and of a variance.
    off = {
        "biased up" if bias > 0 else "biased down": abs(bias) * number**0.5,
        "too narrow" if width < 1 else "too wide": abs(width**-2 - 1) * (number / 2) ** 0.5,
    }
    largest = max(off, key=lambda fault: off[fault])
    return largest if off[largest] > 2 else "not uniform"


def uniform_limits(number: int, ci_prob: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute limits (99,) of the ECDF of n uniform numbers that hold at all points at once."""
    place = min(int((1 - ci_prob) * NUM_DRAWS), NUM_DRAWS - 1)
    tail = _least_tails(number)[place] * (1 - 1e-9)  # tails of equal counts differ by rounding
    low = binom.ppf(tail, number, POINTS)
    high = number - binom.ppf(tail, number, 1 - POINTS)
    return low / number, high / number


def _p_value(values: np.ndarray, number: int) -> float:
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
