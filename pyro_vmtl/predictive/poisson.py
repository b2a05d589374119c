"""The family of counts: Poisson, or with a larger variance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from pyro.distributions import GammaPoisson
from scipy import special
from torch import Tensor, nn
from torch.distributions import Distribution, Poisson

from pyro_vmtl.data.counts import check_counts
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.inference.initialization import counts_start, usual_log_rate
from pyro_vmtl.models import LinearCounts
from pyro_vmtl.models.linear_counts import MAX_LOG_RATE
from pyro_vmtl.predictive.family import Family, scale_about_mean
from pyro_vmtl.predictive.overdispersed_poisson import LEAST_EXCESS, OverdispersedPoisson

__all__ = ["PoissonFamily", "count_cdf"]

PARAMETERS: dict[type[Distribution], list[str]] = {
    Poisson: ["rate"],
    GammaPoisson: ["concentration", "rate"],
    OverdispersedPoisson: ["rate", "dispersion"],
}

ROUNDING = 1e-12
"""Relative error of sums of probabilities, so that a probability near 1 is reached."""


class PoissonFamily(Family):
    """Counts, with rates; a calibration or a mixture makes them overdispersed Poisson."""

    min_temperature = 1.0

    def __init__(self, distribution: type[Distribution] = Poisson) -> None:
        super().__init__(distribution, PARAMETERS[distribution])

    def check(self, data: TaskData) -> None:
        """Check that targets are whole numbers from 0."""
        check_counts(data)

    def linear_model(self, prior: Callable[[], Any], data: TaskData) -> nn.Module:
        """Return Poisson regression in every task, about the mean count."""
        overdispersed = self.distribution is not Poisson
        return LinearCounts(prior, log_rate=usual_log_rate(data), overdispersed=overdispersed)

    def initialize(self, model: Any, data: TaskData, kl_weight: float) -> tuple[Tensor, Tensor]:
        """Return iteratively reweighted least-squares estimates of every task."""
        return counts_start(data, kl_weight=kl_weight, log_rate=model.log_rate.item())

    def calibrate(
        self, draws: Any, posterior_scale: Tensor | float, temperature: Tensor | float
    ) -> Distribution:
        """Scale log rates about their mean over draws, and the variance by the temperature."""
        counts = _overdispersed(draws)
        log_rate = scale_about_mean(counts.rate.log(), posterior_scale)
        rate = log_rate.clamp(-MAX_LOG_RATE, MAX_LOG_RATE).exp()
        return OverdispersedPoisson(rate, counts.dispersion * temperature, validate_args=False)

    def mixture(self, parts: Sequence[Any], weights: Tensor) -> Distribution:
        """Mix counts, each overdispersed."""
        if self.distribution is OverdispersedPoisson:
            return super().mixture(parts, weights)
        overdispersed = PoissonFamily(OverdispersedPoisson)
        return overdispersed.mixture([_overdispersed(part) for part in parts], weights)

    def quantile(
        self, components: Any, weights: Tensor, probabilities: Sequence[float]
    ) -> list[Tensor]:
        """Find the smallest count that is not exceeded with at least the probability."""
        rate, excess = components.rate.double(), components.excess
        return [_quantile(weights, rate, excess, probability) for probability in probabilities]

    def cdf(self, components: Any, weights: Tensor, value: Tensor) -> Tensor:
        """Compute the distribution function of a mixture exactly."""
        rate, excess = (v.cpu().double().numpy() for v in (components.rate, components.excess))
        count = np.floor(value.cpu().double().numpy())[..., None]
        below = count_cdf(count.clip(min=0), rate, excess) * (count >= 0)
        mass = weights.cpu().double().numpy()
        return torch.as_tensor((mass * below).sum(-1)).to(components.rate)


def _overdispersed(draws: Any) -> OverdispersedPoisson:
    """Return counts as overdispersed ones, also of a Poisson distribution."""
    if isinstance(draws, OverdispersedPoisson):
        return draws
    if isinstance(draws, GammaPoisson):
        rate, dispersion = draws.concentration / draws.rate, 1 + 1 / draws.rate
        return OverdispersedPoisson(rate, dispersion, validate_args=False)
    return OverdispersedPoisson(draws.rate, validate_args=False)


def _quantile(weight: Tensor, rate: Tensor, excess: Tensor, probability: float) -> Tensor:
    """Invert mixtures of counts, (rows, K) to (rows,)."""
    numbers = [each.cpu().numpy() for each in (weight, rate, excess)]

    def is_reached(count: np.ndarray, rows: np.ndarray) -> np.ndarray:
        weights, rates, excesses = (each[rows] for each in numbers)
        below = (weights * count_cdf(count[:, None], rates, excesses)).sum(1)
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


def count_cdf(count: np.ndarray, rate: np.ndarray, excess: np.ndarray) -> np.ndarray:
    """Compute the probability that counts are at most some number."""
    poisson = excess <= LEAST_EXCESS
    below = np.empty(rate.shape)
    count = np.broadcast_to(count, rate.shape)
    below[poisson] = special.pdtr(count[poisson], rate[poisson])
    count, rate, excess = count[~poisson], rate[~poisson], excess[~poisson]
    below[~poisson] = special.betainc(rate / excess, count + 1, 1 / (1 + excess))
    return below
