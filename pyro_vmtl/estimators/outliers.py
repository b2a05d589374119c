"""Values so far from all others that they alone decide the unit of a column."""

from __future__ import annotations

import numpy as np

__all__ = ["describe_outliers"]

FAR = 50.0
"""Interquartile ranges from the median: of a normal distribution not one value in 10^1000."""

SHARE = 0.9
"""Part of the sum of squares that these values hold together: few of all then count at all."""


def describe_outliers(values: np.ndarray, name: str, row_names: np.ndarray) -> list[str]:
    """Return a sentence if some values spoil a column of numbers, (rows,); NaN is left out.

    Heavy tails alone do not count: with 1,000 values of a Cauchy distribution it takes luck.

    Examples
    --------
    >>> describe_outliers(np.array([0.0, 1, 2, 3, 4, 5, 6, 1e9]), "y", np.arange(8))[0][:46]
    'y has 1e+09 in row 7, far from all others, of '
    """
    rows = np.flatnonzero(np.isfinite(values))
    if len(rows) < 8:
        return []
    known = values[rows]
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
    off = np.abs(known / 2 - middle / 2)  # halves do not overflow
    far = off > FAR * (high / 2 - low / 2)
    squares = (off / (off.max() or 1.0)) ** 2
    if low == high or not far.any() or squares[far].sum() < SHARE * squares.sum():
        return []
    worst = rows[off.argmax()]
    more = f" (and {far.sum() - 1} such values more)" if far.sum() > 1 else ""
    return [
        f"{name} has {values[worst]:g} in row {row_names[worst]}{more}, far from all others, of "
        f"which half are from {low:g} to {high:g}. It spoils the predictions of all rows: correct "
        "it, leave it out, or fit a robust model, such as variants/robust.py."
    ]
