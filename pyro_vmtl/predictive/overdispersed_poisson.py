r"""The overdispersed Poisson distribution of counts.

With rate :math:`\mu` and dispersion :math:`\tau \ge 1` the mean is :math:`\mu` and the variance
:math:`\tau\mu`. Above 1 this is a negative binomial of shape :math:`r = \mu / (\tau - 1)`,

.. math:: \log p(y) = \log\frac{\Gamma(r + y)}{\Gamma(r)\, r^y}
    - \Big(\frac{\mu}{\tau - 1} + y\Big)\log\tau + y \log\mu - \log y!

and at 1, its limit, a Poisson distribution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Gamma, constraints
from torch.distributions.utils import broadcast_all

__all__ = ["OverdispersedPoisson"]

LEAST_EXCESS = 1e-4
"""Least dispersion − 1. The clamp changes the log density by at most
half of ``1e-4 * ((y - rate)**2 - y) / rate``, while nearer to 1 that of a negative binomial is a
small difference of large numbers, below 1e-4 here up to rates of a million."""


class OverdispersedPoisson(Distribution):
    """Counts with a variance of at least that of a Poisson distribution.

    Parameters
    ----------
    rate
        Means, above 0.
    dispersion
        Variances over means, from 1 on, of a shape that goes with that of ``rate``.

    Examples
    --------
    >>> counts = OverdispersedPoisson(torch.tensor([2.0, 5.0]), 3.0)
    >>> counts.mean.tolist(), counts.variance.tolist()
    ([2.0, 5.0], [6.0, 15.0])
    """

    arg_constraints = {  # noqa: RUF012, as torch has it
        "rate": constraints.positive,
        "dispersion": constraints.greater_than_eq(1.0),
    }
    support = constraints.nonnegative_integer

    def __init__(
        self,
        rate: Tensor | float,
        dispersion: Tensor | float = 1.0,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.rate, self.dispersion = broadcast_all(rate, dispersion)
        super().__init__(self.rate.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> OverdispersedPoisson:
        """Expand to a larger batch."""
        rate, dispersion = (v.expand(batch_shape) for v in (self.rate, self.dispersion))
        return OverdispersedPoisson(rate, dispersion, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Means, the rates."""
        return self.rate

    @property
    def variance(self) -> Tensor:
        """Variances, dispersion times rate."""
        return self.dispersion * self.rate

    @property
    def excess(self) -> Tensor:
        """Dispersion − 1 in float64, clamped for stability."""
        return (self.dispersion.double() - 1).clamp(min=LEAST_EXCESS)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probabilities, of the batch's shape."""
        if self._validate_args:
            self._validate_sample(value)
        y, rate, excess = value.double(), self.rate.double(), self.excess
        shape = rate / excess
        # For a Poisson distribution the first line is 0, and the logarithm over the excess is 1.
        log_prob = torch.lgamma(shape + y) - torch.lgamma(shape) - torch.xlogy(y, shape)
        log_prob = log_prob - (shape + y) * excess.log1p()
        log_prob = log_prob + torch.xlogy(y, rate) - torch.lgamma(y + 1)
        return log_prob.to(self.rate)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draw: a Poisson count whose rate is from a gamma distribution."""
        shape = self._extended_shape(sample_shape)
        with torch.no_grad():
            rate, excess = self.rate.double().expand(shape), self.excess.expand(shape)
            drawn = Gamma(rate / excess, 1 / excess, validate_args=False).sample()
            return torch.poisson(drawn).to(self.rate)
