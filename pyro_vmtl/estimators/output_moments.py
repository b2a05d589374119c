"""What predictions of outputs take from each draw, and make of the averages over draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from pyro_vmtl.data.output_data import OutputData

__all__ = ["all_proba", "std_of_outputs", "take_mean", "take_moments"]


def take_mean(fn: Any) -> Tensor:
    """Return probabilities of all classes, of two that of the second, or the mean, (..., C)."""
    if hasattr(fn, "probs"):
        return fn.probs if fn.probs.ndim > len(fn.batch_shape) else fn.probs[..., None]
    return fn.mean[..., None]


def take_moments(fn: Any) -> Tensor:
    """Return mean and mean square of real outputs, (..., 2), and of classes :func:`take_mean`."""
    if not isinstance(fn, Normal):
        return take_mean(fn)
    return torch.stack([fn.mean, fn.mean.square() + fn.variance], -1)


def all_proba(mean: np.ndarray) -> np.ndarray:
    """Return probabilities of all classes, (rows, C), of two from that of the second."""
    proba = np.hstack([1 - mean, mean]) if mean.shape[1] == 1 else mean
    return proba.astype(np.float64) / proba.sum(axis=1, keepdims=True, dtype=np.float64)


def std_of_outputs(
    moments: Mapping[str, Tensor], rows: OutputData, units: Mapping[str, tuple[float, float]]
) -> dict[str, np.ndarray]:
    """Return those of real outputs in the user's units, (rows,); 0 if known, NaN for classes."""
    found = {}
    for name, labels in rows.classes.items():
        first, second = moments[name][..., 0].double(), moments[name][..., -1].double()
        std = torch.full_like(first, torch.nan)
        if labels is None:
            std = (second - first.square()).clamp(min=0).sqrt() * units[name][1]
            std = std.masked_fill(rows.known[name], 0.0)
        found[name] = std.numpy()
    return found
