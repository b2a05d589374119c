"""Predictive distributions: what draws predict, mixed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, MixtureSameFamily, Normal

__all__ = ["mixed"]


def mixed(parts: Sequence[Distribution], weights: Tensor | None = None) -> Distribution:
    """Mix what the draws of one or more fits predict.

    Parameters
    ----------
    parts
        For each fit its draws: categorical or normal, batch (S, T, N).
    weights
        (T, number of parts), rows on the simplex; even by default.

    Returns
    -------
    Distribution
        Batch (T, N). For classes it has ``probs``, for real targets ``mean``, ``variance``,
        ``log_prob`` and ``cdf``.

    Raises
    ------
    ValueError
        If the parts are neither.

    Examples
    --------
    >>> draws = Normal(torch.zeros(100, 2, 3), torch.ones(100, 2, 3))
    >>> mixed([draws]).mean.shape
    torch.Size([2, 3])
    """
    first = parts[0]
    if weights is None:
        weights = torch.full((first.batch_shape[1], len(parts)), 1 / len(parts))
    if isinstance(first, Categorical):
        means = torch.stack([part.probs.mean(0) for part in parts])  # type: ignore[attr-defined]
        weights = weights.to(means)
        return Categorical(probs=torch.einsum("mtnc,tm->tnc", means, weights), validate_args=False)
    if not isinstance(first, Normal):
        raise ValueError(f"The target is {type(first).__name__}, expected Categorical or Normal.")
    loc, scale = (
        torch.cat([getattr(part, name).movedim(0, -1) for part in parts], dim=-1)
        for name in ("loc", "scale")
    )
    counts = torch.tensor([part.batch_shape[0] for part in parts], device=loc.device)
    weights = weights.to(loc)
    each = (weights / counts).repeat_interleave(counts, dim=-1)  # (T, draws of all parts)
    which = Categorical(probs=each[:, None].expand(loc.shape), validate_args=False)
    return MixtureSameFamily(which, Normal(loc, scale, validate_args=False), validate_args=False)
