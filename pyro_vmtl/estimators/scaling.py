"""Features and targets in standard units, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.utils import gen_batches
from torch import Tensor

from pyro_vmtl.estimators.reading import dense

__all__ = ["Scaling"]

LARGEST = 1e15
"""Of a scaled feature: further off than any row to learn from, and its square is finite."""

BATCH = 50_000
"""Rows that are scaled at once: scikit-learn copies them."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """Means and standard deviations of columns.

    Attributes
    ----------
    mean, scale
        (F,), in the units of the columns; that of a constant is 1, or of its size.

    Examples
    --------
    >>> scaling = Scaling.learn(np.array([[1.0], [3.0]]))
    >>> scaling(np.array([[5.0]]))
    tensor([[3.]])
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def learn(
        cls, X: Any, weight: np.ndarray | None = None, *, unit_variance: bool = True
    ) -> Scaling:
        """Learn them from rows.

        Parameters
        ----------
        X
            (rows, F), an array or a sparse array.
        weight
            (rows,), how much each row counts.
        unit_variance
            Whether to scale columns, rather than only to centre them.
        """
        # By a power of two, which loses nothing, so that the squares of all columns are finite.
        largest = np.zeros(X.shape[1])
        for rows in gen_batches(X.shape[0], BATCH):
            np.maximum(largest, np.abs(dense(X, rows)).max(axis=0), out=largest)
        unit = np.ldexp(1.0, np.frexp(largest)[1] - 1)
        scaler = StandardScaler()
        for rows in gen_batches(X.shape[0], BATCH):
            scaler.partial_fit(
                dense(X, rows) / unit, sample_weight=None if weight is None else weight[rows]
            )
        constant = (scaler.scale_ == 1) & (scaler.var_ != 1)
        # What rounding leaves of a large constant is to be small.
        scale = np.where(constant, np.maximum(unit, 1.0), scaler.scale_ * unit)
        return cls(scaler.mean_ * unit, scale if unit_variance else np.ones_like(scale))

    def __call__(self, X: Any) -> Tensor:
        """Scale rows (rows, F), as float32."""
        scaled = torch.empty(X.shape, dtype=torch.float32)
        for rows in gen_batches(X.shape[0], BATCH):
            with np.errstate(over="ignore"):
                values = (dense(X, rows) - self.mean) / self.scale
            scaled[rows] = torch.from_numpy(values.clip(-LARGEST, LARGEST))
        return scaled
