"""Quantiles of predictive distributions: those of a mixture have no closed form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_vmtl.predictive.families import family_of
from pyro_vmtl.predictive.family import Family, sample_mixture, weighted_quantiles

__all__ = ["quantiles"]

MAX_NUMBERS = 250_000
"""Components that are inverted at a time: 2 MB in float64, which processors keep at hand."""


@torch.no_grad()
def quantiles(predictive: Any, probabilities: Sequence[float] | Tensor) -> Tensor:
    """Compute quantiles of a predictive distribution.

    Parameters
    ----------
    predictive
        What :func:`~pyro_vmtl.predictive_mixture` returns for real targets, counts or ordered
        classes, batch (T, N).
    probabilities
        (P,), each between 0 and 1: 0.05 and 0.95 for the central interval of 90 %.

    Returns
    -------
    Tensor
        (P, T, N), in the unit of the targets. For normal likelihoods to 1e-5 of a standard
        deviation; for counts the smallest whole number that is not exceeded with at least this
        probability; for other likelihoods by 4,000 draws.

    Raises
    ------
    ValueError
        If a probability is not between 0 and 1, or classes have no order.

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
    parts = getattr(predictive, "parts", [predictive])
    found = [_as_rows(part) for part in parts]
    num_rows, size = len(found[0][2]), sum(weights.shape[1] for _, _, weights in found)
    inverted = found[0][2].new_empty(len(values), num_rows)
    step = max(1, MAX_NUMBERS // size)
    for start in range(0, num_rows, step):
        chunk = slice(start, start + step)
        some = [(f, f.map(partial(_take, chunk), rows), w[chunk].double()) for f, rows, w in found]
        some = [(f, rows, w / w.sum(1, keepdim=True)) for f, rows, w in some]
        if len(some) == 1:
            ((family, rows, weight),) = some
            each = family.quantile(rows, weight, values)
        else:  # of several families
            of_part = predictive.weights[:, None].expand(*predictive.batch_shape, -1).flatten(0, 1)
            draws = [sample_mixture(rows, weight) for _, rows, weight in some]
            mass = [m * of_part[chunk, i, None] for i, (_, m) in enumerate(draws)]
            each = weighted_quantiles(
                torch.cat([v for v, _ in draws], 1), torch.cat(mass, 1), values
            )
        inverted[:, chunk] = torch.stack(each).to(inverted)
    return inverted.reshape(len(values), *predictive.batch_shape)


def _as_rows(predictive: Any) -> tuple[Family, Any, Tensor]:
    """Return family, components and weights of a predictive, both with batch (rows, K)."""
    components = getattr(predictive, "component_distribution", None)
    if components is None:  # of one component
        family, batch = family_of(predictive), predictive.batch_shape
        rows = family.map(lambda v: v[0].flatten(0, len(batch) - 1).unsqueeze(1), predictive)
        return family, rows, torch.ones(batch.numel(), 1)
    family, batch = family_of(components), components.batch_shape
    weights = predictive.mixture_distribution.probs.expand(batch).reshape(-1, batch[-1])
    rows = family.map(lambda v: v[0].expand(batch).reshape(-1, batch[-1]), components)
    return family, rows, weights


def _take(rows: slice, values: list[Tensor]) -> Tensor:
    return values[0][rows]
