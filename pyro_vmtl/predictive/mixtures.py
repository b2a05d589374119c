"""Mixtures of what posterior draws predict, whatever their likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily

__all__ = ["FamilyMixture", "MixtureOfFamilies", "pit"]


class FamilyMixture(MixtureSameFamily):
    """A mixture within one family, which computes its distribution function."""

    family: Any

    def cdf(self, value: Tensor) -> Tensor:
        """Compute the probability of at most this value, (T, N)."""
        weights = self.mixture_distribution.probs
        below: Tensor = self.family.cdf(self.component_distribution, weights, value)
        return below


class MixtureOfFamilies(Distribution):
    """A mixture of predictions of several families, all of real targets or all of counts.

    Parameters
    ----------
    parts
        The predictions to mix, each with batch (T, N).
    weights
        (T, number of parts), rows on the simplex.
    """

    arg_constraints = {}  # noqa: RUF012, as torch has it

    def __init__(self, parts: Sequence[Any], weights: Tensor) -> None:
        self.parts = tuple(parts)
        self.weights = weights.to(parts[0].mean)
        super().__init__(parts[0].batch_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """That of the first part."""
        return self.parts[0].support

    @property
    def mean(self) -> Tensor:
        """Means, (T, N)."""
        return self._average([part.mean for part in self.parts])

    @property
    def variance(self) -> Tensor:
        """Variances, by the law of total variance, (T, N)."""
        mean = self.mean
        return self._average([part.variance + (part.mean - mean) ** 2 for part in self.parts])

    def log_prob(self, value: Tensor) -> Tensor:
        """Compute log densities, (T, N)."""
        each = torch.stack([part.log_prob(value) for part in self.parts], dim=-1)
        return (each + self.weights.log()[:, None]).logsumexp(-1)

    def cdf(self, value: Tensor) -> Tensor:
        """Compute the probability of at most this value, (T, N)."""
        return self._average([part.cdf(value) for part in self.parts])

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draw: a part, and a value of it."""
        each = torch.stack([part.sample(sample_shape) for part in self.parts], dim=-1)
        weights = self.weights[:, None].expand(*each.shape)
        chosen = torch.multinomial(weights.flatten(0, -2), 1).reshape(each.shape[:-1])
        return each.gather(-1, chosen[..., None]).squeeze(-1)

    def _average(self, values: Sequence[Tensor]) -> Tensor:
        return torch.einsum("tnm,tm->tn", torch.stack(list(values), dim=-1), self.weights)


def pit(predictive: Any, y: Tensor, generator: torch.Generator) -> Tensor:
    """Compute the probability integral transform of targets, (T, N): uniform if calibrated.

    For counts it is the randomised one (Czado et al. 2009), by numbers of the generator.
    """
    up_to = predictive.cdf(y)
    if predictive.support.is_discrete:
        place = torch.rand(y.shape, generator=generator, dtype=torch.float64).to(up_to)
        below = predictive.cdf(y - 1)
        up_to = below + place * (up_to - below)
    found: Tensor = up_to.clamp(0, 1)
    return found
