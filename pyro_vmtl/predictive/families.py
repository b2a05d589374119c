"""Predictive distributions: what draws predict, cut, joined and mixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, MixtureSameFamily, Normal, Poisson

from pyro_vmtl.predictive.overdispersed_poisson import OverdispersedPoisson

__all__ = ["check_known", "concat_draws", "predictive_mixture"]

NUMBERS: dict[type[Distribution], tuple[str, ...]] = {
    Categorical: ("logits",),
    Normal: ("loc", "scale"),
    Poisson: ("rate",),
    OverdispersedPoisson: ("rate", "dispersion"),
}
"""What a likelihood is made of."""


def check_known(likelihood: Distribution, name: str = "The target") -> None:
    """Check that a likelihood is one of those that can be calibrated and mixed.

    Parameters
    ----------
    likelihood
        Of any kind.
    name
        What the error calls it.

    Raises
    ------
    ValueError
        If it is none of them.
    """
    if not isinstance(likelihood, tuple(NUMBERS)):
        raise ValueError(
            f"{name} is {type(likelihood).__name__}, expected Categorical, Normal or Poisson."
        )


def concat_draws(
    parts: Sequence[Distribution], join: Callable[[list[Tensor]], Tensor]
) -> Distribution:
    """Make one distribution of the numbers of others, all of one kind.

    Parameters
    ----------
    parts
        The others.
    join
        Makes one tensor of theirs: for their logits, for their means and standard deviations, or
        for their rates.
    """
    kind: Any = next(kind for kind in NUMBERS if isinstance(parts[0], kind))
    numbers = {name: join([getattr(part, name) for part in parts]) for name in NUMBERS[kind]}
    return kind(**numbers, validate_args=False)


def predictive_mixture(
    parts: Sequence[Distribution], weights: Tensor | None = None
) -> Distribution:
    """Mix what the draws of one or more fits predict.

    Parameters
    ----------
    parts
        For each fit its draws: categorical, normal, Poisson or
        :class:`~pyro_vmtl.OverdispersedPoisson`, batch (S, T, N).
    weights
        (T, number of parts), rows on the simplex; even by default.

    Returns
    -------
    Distribution
        Batch (T, N). For classes it has ``probs``, for real targets ``mean``, ``variance``,
        ``log_prob`` and ``cdf``, for counts the same but ``cdf``.
        :func:`~pyro_vmtl.quantiles` are there for both.

    Raises
    ------
    ValueError
        If the parts are of another kind.

    Examples
    --------
    >>> draws = Normal(torch.zeros(100, 2, 3), torch.ones(100, 2, 3))
    >>> predictive_mixture([draws]).mean.shape
    torch.Size([2, 3])
    """
    first = parts[0]
    check_known(first)
    if weights is None:
        weights = torch.full((first.batch_shape[1], len(parts)), 1 / len(parts))
    if isinstance(first, Categorical):
        means = torch.stack([part.probs.mean(0) for part in parts])  # type: ignore[attr-defined]
        weights = weights.to(means)
        return Categorical(probs=torch.einsum("mtnc,tm->tnc", means, weights), validate_args=False)
    if not isinstance(first, Normal):
        parts = [as_overdispersed(part) for part in parts]
    all_draws: Any = concat_draws(
        parts, lambda each: torch.cat([numbers.movedim(0, -1) for numbers in each], dim=-1)
    )
    mean = all_draws.mean  # (T, N, draws of all parts)
    num_draws = torch.tensor([part.batch_shape[0] for part in parts], device=mean.device)
    each = (weights.to(mean) / num_draws).repeat_interleave(num_draws, dim=-1)
    which = Categorical(probs=each[:, None].expand(mean.shape), validate_args=False)
    return MixtureSameFamily(which, all_draws, validate_args=False)


def as_overdispersed(draws: Distribution) -> OverdispersedPoisson:
    """Give counts, also of a Poisson distribution."""
    if isinstance(draws, OverdispersedPoisson):
        return draws
    assert isinstance(draws, Poisson)
    return OverdispersedPoisson(draws.rate, validate_args=False)
