"""What calibrated predictions of so many rows would do by chance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["CalibratedHits", "calibrated_hits"]

NUM_DRAWS = 2000
"""Data sets to draw: they know a tail of 5 % to 0.5 %."""


class CalibratedHits(NamedTuple):
    """How often classes are right, in data sets where confidence is the chance of it.

    Attributes
    ----------
    hits
        (S,), how many rows are right.
    ece
        (S,), the calibration error over bins. It is above 0: bins have gaps by chance.
    """

    hits: np.ndarray
    ece: np.ndarray

    def p_value(self, hits: int) -> float:
        """Give the two-sided probability of as few or as many rows that are right."""
        # What was seen counts as a draw: no p-value is 0.
        tail = 1 + min((self.hits <= hits).sum(), (self.hits >= hits).sum())
        return float(min(1.0, 2 * tail / (1 + len(self.hits))))


def calibrated_hits(confidence: np.ndarray, bins: np.ndarray, *, seed: int = 0) -> CalibratedHits:
    """Draw which rows would be right if confidence were right.

    Unlike the spread of the rows at hand, this one is known where all of few rows are right
    (Spiegelhalter 1986).

    Parameters
    ----------
    confidence
        (rows,), probability of the predicted class.
    bins
        (rows,), bin of each row, integers from 0.
    seed
        Seed of the draws.

    Examples
    --------
    >>> drawn = calibrated_hits(np.full(20, 0.9), np.zeros(20, int))
    >>> bool(abs(drawn.hits.mean() - 18) < 0.1), round(drawn.p_value(20), 1)
    (True, 0.3)
    """
    random = np.random.default_rng(seed)
    hits, ece = np.empty(NUM_DRAWS, int), np.empty(NUM_DRAWS)
    for s in range(NUM_DRAWS):
        hit = random.uniform(size=len(confidence)) < confidence
        hits[s] = hit.sum()
        ece[s] = np.abs(np.bincount(bins, weights=hit - confidence)).sum() / len(confidence)
    return CalibratedHits(hits, ece)
