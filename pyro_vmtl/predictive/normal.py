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
        """Invert the distribution function by Newton's method inside a bracket."""
        loc, scale = components.loc.double(), components.scale.double()
        return [_quantile(weights, loc, scale, probability) for probability in probabilities]


def _quantile(weight: Tensor, loc: Tensor, scale: Tensor, probability: float) -> Tensor:
    """Invert mixtures of normals, (rows, K) to (rows,)."""
    # The quantile of a mixture is between the least and the largest of its components.
    normal = torch.special.ndtri(loc.new_tensor(probability))
    each = loc + scale * normal
    low, high, shortest = each.amin(1), each.amax(1), PRECISION * scale.amin(1)
    mean = (weight * loc).sum(1)
    spread = (weight * ((loc - mean[:, None]) ** 2 + scale**2)).sum(1).sqrt()
    value = torch.clamp(mean + spread * normal, low, high)
    for _ in range(MAX_NEWTON_STEPS):  # or bisection, where a step would leave the bracket
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
