"""Classes in order, such as grades, which have a mean and quantiles as their numbers have."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Categorical

__all__ = ["OrdinalCategorical"]


class OrdinalCategorical(Categorical):
    """Ordered classes 0, 1, and so on, as numbers.

    Draws of a site that is Pyro's ``OrderedLogistic`` are of this distribution.

    Examples
    --------
    >>> grades = OrdinalCategorical(probs=torch.tensor([0.2, 0.5, 0.3]))
    >>> round(grades.mean.item(), 4), round(grades.cdf(torch.tensor(1.0)).item(), 4)
    (1.1, 0.7)
    """

    @property
    def mean(self) -> Tensor:
        """Means of the numbers."""
        return (self.probs * self._numbers()).sum(-1)

    @property
    def variance(self) -> Tensor:
        """Variances of the numbers."""
        return (self.probs * (self._numbers() - self.mean[..., None]) ** 2).sum(-1)

    def cdf(self, value: Tensor) -> Tensor:
        """Compute the probability of at most this number."""
        return (self.probs * (self._numbers() <= value[..., None])).sum(-1)

    def icdf(self, value: Tensor) -> Tensor:
        """Find the least number that is not exceeded with at least this probability."""
        below = self.probs.cumsum(-1)
        reached = (below < value[..., None] * (1 - 1e-6)).sum(-1)
        return reached.clamp(max=below.shape[-1] - 1).to(below)

    def _numbers(self) -> Tensor:
        return torch.arange(self.probs.shape[-1]).to(self.probs)
