"""The family of real targets with normal noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.inference.initialization import least_squares_start
from pyro_vmtl.models import LinearRegressor, LogNormalNoise
from pyro_vmtl.predictive.family import Family, scale_about_mean

__all__ = ["NormalFamily"]

NOISE_SPREAD = 0.3
"""Standard deviation of the log noise between tasks, a priori. Learned, it would fall to 0 or, with
a KL weight below 1, grow without bound."""

MAX_NEWTON_STEPS = 100

PRECISION = 1e-5
"""Of a quantile, in standard deviations of the narrowest component."""

NEAR = 1e-3
"""A Newton step, in the same unit, after which the error is below :data:`PRECISION`: it is that of
the step squared, times half the relative slope of the density, which is some units at most."""

ROUNDING = 1e-12
"""Relative error of sums of probabilities, so that a probability near 1 is reached."""


class NormalFamily(Family):
    """Real targets with normal noise, whose scale is latent in every task."""

    min_temperature = 0.0

    def __init__(self) -> None:
        super().__init__(Normal, ["loc", "scale"])

    def linear_model(self, prior: Callable[[], Any], data: TaskData) -> nn.Module:
        """Return linear regression in every task."""
        return LinearRegressor(prior, LogNormalNoise(spread=NOISE_SPREAD))

    def initialize(self, model: Any, data: TaskData, kl_weight: float) -> tuple[Tensor, Tensor]:
        """Return ridge estimates of every task."""
        return least_squares_start(data, kl_weight=kl_weight)

    def calibrate(
        self, draws: Any, posterior_scale: Tensor | float, temperature: Tensor | float
    ) -> Distribution:
        """Scale means about their mean over draws, and the noise by the temperature."""
        loc = scale_about_mean(draws.loc, posterior_scale)
        return Normal(loc, draws.scale * temperature, validate_args=False)

    def quantile(
        self, components: Any, weights: Tensor, probabilities: Sequence[float]
    ) -> list[Tensor]:
        """Invert the distribution function by Newton's method inside a bracket.

        It starts at the Cornish-Fisher expansion [1]_: a mixture of many draws is nearly normal.

        References
        ----------
        .. [1] E. Cornish, R. Fisher. Moments and Cumulants in the Specification of Distributions.
           Revue de l'Institut International de Statistique 5, 1938.
        """
        loc, scale = components.loc.double(), components.scale.double()
        mean = (weights * loc).sum(1)
        off, var = loc - mean[:, None], scale**2
        square = off**2
        std = (weights * (square + var)).sum(1).sqrt()
        skew = (weights * off * (square + 3 * var)).sum(1) / std**3
        excess = (weights * (square**2 + 6 * square * var + 3 * var**2)).sum(1) / std**4 - 3
        found = []
        for probability in probabilities:
            z = float(torch.special.ndtri(torch.tensor(probability, dtype=torch.float64)))
            start = z + (z**2 - 1) / 6 * skew + (z**3 - 3 * z) / 24 * excess
            start = start - (2 * z**3 - 5 * z) / 36 * skew**2
            found.append(_quantile(weights, loc, scale, probability, z, mean + std * start))
        return found


def _quantile(
    weight: Tensor, loc: Tensor, scale: Tensor, probability: float, normal: float, value: Tensor
) -> Tensor:
    """Invert mixtures of normals, (rows, K) to (rows,), from a first guess."""
    # The quantile of a mixture is between the least and the largest of its components.
    each = loc + scale * normal
    low, high, shortest = each.amin(1), each.amax(1), scale.amin(1)
    value = found = torch.clamp(value, low, high)
    rows = torch.arange(len(value), device=value.device)
    for _ in range(MAX_NEWTON_STEPS):  # or bisection, where a step would leave the bracket
        z = (value[:, None] - loc).div_(scale)
        below = torch.erf(z * math.sqrt(0.5)).mul_(weight).sum(1)  # twice as fast as ndtr
        excess = 0.5 * (below + 1) - probability
        density = z.square_().mul_(-0.5).exp_().mul_(weight).div_(scale).sum(1)
        low, high = value.where(excess < 0, low), high.where(excess < 0, value)
        step = value - excess * math.sqrt(2 * math.pi) / density
        inside = (step >= low) & (step <= high)
        new = step.where(inside, (low + high) / 2)
        moved = (new - value).abs()
        value = found[rows] = new
        enough = torch.maximum(PRECISION * shortest, ROUNDING * high.abs())
        near = inside & (moved <= NEAR * shortest)  # the step squared the error
        left = ~near & (torch.minimum(moved, high - low) > enough)
        if not left.any():
            break
        if not left.all():
            weight, loc, scale, rows = weight[left], loc[left], scale[left], rows[left]
            low, high, shortest, value = low[left], high[left], shortest[left], value[left]
    return found
