"""Quantiles of predictive distributions, by inverting what lies below a value.

A quantile of a mixture has no closed form. It is bracketed, and the bracket is halved: for normals
until it is short against their standard deviations, for counts until it holds one whole number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily, Normal

from pyro_vmtl.predictive.overdispersed_poisson import LEAST_EXCESS, OverdispersedPoisson

__all__ = ["at_most", "quantiles"]

MOST_NUMBERS = 2_000_000
"""Components of the rows that are inverted at a time: 16 MB in float64, several times."""

MOST_STEPS = 100

PRECISION = 1e-5
"""Of a quantile of normals, in standard deviations of the narrowest of them."""

ROUNDING = 1e-12
"""Relative error of sums of probabilities, so that a probability near 1 is reached."""


@torch.no_grad()
def quantiles(predictive: Distribution, probabilities: Sequence[float] | Tensor) -> Tensor:
    """Give the values that new targets are at most with given probabilities.

    Parameters
    ----------
    predictive
        What :func:`~pyro_vmtl.predictive_mixture` gives for real targets or counts, batch (T, N).
    probabilities
        (P,), each between 0 and 1: 0.05 and 0.95 for the central interval of 90 %.

    Returns
    -------
    Tensor
        (P, T, N), in the unit of the targets. For real targets to 1e-5 of a standard deviation; for
        counts the smallest whole number that is not exceeded with at least this probability.

    Raises
    ------
    ValueError
        If a probability is not between 0 and 1, or the predictive is of another kind.

    Examples
    --------
    >>> from pyro_vmtl import predictive_mixture
    >>> draws = Normal(torch.zeros(100, 2, 3), torch.ones(100, 2, 3))
    >>> low, high = quantiles(predictive_mixture([draws]), [0.05, 0.95])
    >>> low.shape, round(low[0, 0].item(), 3), round(high[0, 0].item(), 3)
    (torch.Size([2, 3]), -1.645, 1.645)
    """
    values = torch.as_tensor(probabilities, dtype=torch.float64).tolist()
    for value in values:
        if not 0 < value < 1:
            raise ValueError(f"probabilities has {value:g}, expected numbers between 0 and 1.")
    parts = getattr(predictive, "component_distribution", None)
    invert: Callable[..., Tensor]
    if isinstance(parts, Normal):
        invert, numbers = _of_normals, (parts.loc, parts.scale)
    elif isinstance(parts, OverdispersedPoisson):
        invert, numbers = _of_counts, (parts.rate, parts.excess)
    else:
        raise ValueError(
            f"The predictive is {_kind(predictive)}, expected a mixture of Normal or Counts, as "
            "`predictive_mixture` returns it for real targets and counts. Classes have `probs`."
        )
    mixture: Any = predictive
    batch, size = parts.batch_shape[:-1], parts.batch_shape[-1]
    weights = mixture.mixture_distribution.probs
    rows = [each.expand(parts.batch_shape).reshape(-1, size) for each in (weights, *numbers)]
    found = parts.mean.new_empty(len(values), len(rows[0]))
    step = max(1, MOST_NUMBERS // size)
    for start in range(0, len(rows[0]), step):
        chunk = slice(start, start + step)
        weight, first, second = (each[chunk].double() for each in rows)
        weight = weight / weight.sum(1, keepdim=True)
        for p, value in enumerate(values):
            found[p, chunk] = invert(weight, first, second, value).to(found)
    return found.reshape(len(values), *batch)


def _of_normals(weight: Tensor, loc: Tensor, scale: Tensor, probability: float) -> Tensor:
    """Invert mixtures of normals, (rows, K) to (rows,)."""
    # The quantile of a mixture is between the least and the largest of its components.
    normal = torch.special.ndtri(loc.new_tensor(probability))
    each = loc + scale * normal
    low, high, shortest = each.amin(1), each.amax(1), PRECISION * scale.amin(1)
    mean = (weight * loc).sum(1)
    spread = (weight * ((loc - mean[:, None]) ** 2 + scale**2)).sum(1).sqrt()
    value = torch.clamp(mean + spread * normal, low, high)
    for _ in range(MOST_STEPS):  # Newton's, and halves of the bracket where these would leave it
        z = (value[:, None] - loc) / scale
        excess = (weight * torch.special.ndtr(z)).sum(1) - probability
        density = (weight * (-(z**2) / 2).exp() / scale).sum(1) / math.sqrt(2 * math.pi)
        low, high = value.where(excess < 0, low), high.where(excess < 0, value)
        step = value - excess / density
        new = step.where((step >= low) & (step <= high), (low + high) / 2)
        left, value = torch.minimum((new - value).abs(), high - low), new
        if (left <= torch.maximum(shortest, ROUNDING * high.abs())).all():
            break
    return value


def _of_counts(weight: Tensor, rate: Tensor, excess: Tensor, probability: float) -> Tensor:
    """Invert mixtures of counts, (rows, K) to (rows,)."""
    numbers = [each.cpu().numpy() for each in (weight, rate, excess)]

    def is_reached(count: np.ndarray, rows: np.ndarray) -> np.ndarray:
        weights, rates, excesses = (each[rows] for each in numbers)
        below = (weights * at_most(count[:, None], rates, excesses)).sum(1)
        return below >= probability * (1 - ROUNDING)

    high = np.ceil((numbers[0] * numbers[1]).sum(1))  # the mean
    low = np.full_like(high, -1.0)
    open_ = np.arange(len(high))
    while len(open_):
        open_ = open_[~is_reached(high[open_], open_)]
        low[open_], high[open_] = high[open_], 2 * high[open_] + 1
    while len(open_ := np.flatnonzero(high - low > 1)):
        middle = np.floor((low[open_] + high[open_]) / 2)
        reached = is_reached(middle, open_)
        high[open_[reached]] = middle[reached]
        low[open_[~reached]] = middle[~reached]
    return torch.as_tensor(high)


def at_most(count: np.ndarray, rate: np.ndarray, excess: np.ndarray) -> np.ndarray:
    """Give the probability that counts are at most some number."""
    poisson = excess <= LEAST_EXCESS
    below = np.empty(rate.shape)
    count = np.broadcast_to(count, rate.shape)
    below[poisson] = special.pdtr(count[poisson], rate[poisson])
    count, rate, excess = count[~poisson], rate[~poisson], excess[~poisson]
    below[~poisson] = special.betainc(rate / excess, count + 1, 1 / (1 + excess))
    return below


def _kind(predictive: Distribution) -> str:
    if isinstance(predictive, MixtureSameFamily):
        return f"a mixture of {type(predictive.component_distribution).__name__}"
    return type(predictive).__name__
