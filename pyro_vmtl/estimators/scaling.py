"""Standardization of features that does not overflow, whatever their unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.utils import gen_batches
from torch import Tensor

from pyro_vmtl.estimators.rows import to_dense

__all__ = ["Scaling"]

LARGEST = 1e15
"""Bound of standardized features: beyond all training rows, and its square is finite."""

BATCH = 50_000
"""Rows scaled at once, as scikit-learn copies them."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """Means and standard deviations of columns, (F,), in their units."""

    mean: np.ndarray
    scale: np.ndarray  # of a constant 1, or its magnitude

    @classmethod
    def learn(
        cls, X: Any, weight: np.ndarray | None = None, *, unit_variance: bool = True
    ) -> Scaling:
        """Compute weighted means and standard deviations of rows (rows, F), dense or sparse."""
        batches = list(gen_batches(X.shape[0], BATCH))
        # Divide by a power of two, which is exact, so that the squares of all columns are finite.
        largest = np.max([np.abs(to_dense(X, rows)).max(axis=0) for rows in batches], axis=0)
        unit = np.ldexp(1.0, np.frexp(largest)[1] - 1)
        scaler = StandardScaler()
        for rows in batches:
            of_rows = None if weight is None else weight[rows]
            scaler.partial_fit(to_dense(X, rows) / unit, sample_weight=of_rows)
        constant = (scaler.scale_ == 1) & (scaler.var_ != 1)
        # The rounding error of a large constant should be small.
        scale = np.where(constant, np.maximum(unit, 1.0), scaler.scale_ * unit)
        return cls(scaler.mean_ * unit, scale if unit_variance else np.ones_like(scale))

    def __call__(self, X: Any) -> Tensor:
        """Standardize rows (rows, F), as float32."""
        scaled = torch.empty(X.shape, dtype=torch.float32)
        for rows in gen_batches(X.shape[0], BATCH):
            with np.errstate(over="ignore"):
                values = (to_dense(X, rows) - self.mean) / self.scale
            scaled[rows] = torch.from_numpy(values.clip(-LARGEST, LARGEST))
        return scaled
