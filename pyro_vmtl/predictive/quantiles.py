"""Quantiles of predictive distributions: those of a mixture have no closed form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily

from pyro_vmtl.predictive.families import family_of

__all__ = ["quantiles"]

MAX_NUMBERS = 2_000_000
"""Components that are inverted at a time: 16 MB in float64, several times."""


@torch.no_grad()
def quantiles(predictive: Distribution, probabilities: Sequence[float] | Tensor) -> Tensor:
    """Compute quantiles of a predictive distribution.

    Parameters
    ----------
    predictive
        What :func:`~pyro_vmtl.predictive_mixture` returns for real targets or counts, batch (T, N).
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
        If a probability is not between 0 and 1, or the predictive is no mixture of numbers.

    Examples
    --------
    >>> from torch.distributions import Normal
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
    if not isinstance(predictive, MixtureSameFamily):
        raise ValueError(
            f"The predictive is {type(predictive).__name__}, expected a mixture, as "
            "`predictive_mixture` returns it for real targets and counts. Classes have `probs`."
        )
    components: Any = predictive.component_distribution
    family = family_of(components)
    batch, size = components.batch_shape[:-1], components.batch_shape[-1]
    weights = predictive.mixture_distribution.probs.expand(components.batch_shape)
    weights = weights.reshape(-1, size)
    rows = family.map(lambda v: v[0].expand(*batch, size).reshape(-1, size), components)
    found = components.mean.new_empty(len(values), len(weights))
    step = max(1, MAX_NUMBERS // size)
    for start in range(0, len(weights), step):
        chunk = slice(start, start + step)
        weight = weights[chunk].double()
        some = family.map(partial(_take, chunk), rows)
        inverted = family.quantile(some, weight / weight.sum(1, keepdim=True), values)
        found[:, chunk] = torch.stack(inverted).to(found)
    return found.reshape(len(values), *batch)


def _take(rows: slice, values: list[Tensor]) -> Tensor:
    return values[0][rows]
