r"""Calibration: how far predictions are to be believed, learned from rows that were held out.

A draw :math:`s` from the posterior predicts logits, or the mean and the standard deviation of a
real target. Two numbers correct them, the same for all rows:

.. math:: l_s \to \frac{\bar l + \kappa\,(l_s - \bar l)}{\tau}, \qquad
    (m_s, \sigma_s) \to (\bar m + \kappa\,(m_s - \bar m),\ \tau\sigma_s)

The *spread* :math:`\kappa` says how much of the posterior's width counts: it is below 1 where the
posterior is too wide for prediction, as mean-field posteriors of many correlated coefficients are.
The *temperature* :math:`\tau` is that of Guo et al. (ICML 2017) for logits, and a factor of the
noise for real targets. Both are those of largest predictive density on the rows held out.

Draws of a rate :math:`\lambda_s` of counts are spread on the logarithmic scale,
:math:`l_s = \log\lambda_s`, and the temperature is the dispersion: the
variance of counts of mean :math:`\mu` is :math:`\tau\mu` with :math:`\tau \ge 1`, where a Poisson
distribution has :math:`\tau = 1`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Normal, Poisson

from pyro_vmtl.models.linear_counts import MAX_LOG_RATE
from pyro_vmtl.predictive.families import as_overdispersed, check_known
from pyro_vmtl.predictive.overdispersed_poisson import OverdispersedPoisson

__all__ = ["Calibration"]

OF_COUNTS = (Poisson, OverdispersedPoisson)


@dataclass(frozen=True)
class Calibration:
    """Two numbers that correct what draws from a posterior predict.

    Parameters
    ----------
    spread
        Factor of the draws' distances from their mean, from 0 on.
    temperature
        What logits are divided by, or the noise is multiplied with; above 0. For counts their
        variance over their mean, from 1 on.

    Examples
    --------
    >>> draws = Normal(torch.tensor([[0.0], [2.0]]), torch.ones(2, 1))
    >>> corrected = Calibration(spread=0.5, temperature=3.0)(draws)
    >>> corrected.loc.flatten().tolist(), corrected.scale.flatten().tolist()
    ([0.5, 1.5], [3.0, 3.0])
    """

    spread: float = 1.0
    temperature: float = 1.0

    def __call__(self, draws: Distribution) -> Distribution:
        """Correct draws.

        Parameters
        ----------
        draws
            Categorical, normal or Poisson, the draws along the first dimension.

        Raises
        ------
        ValueError
            If they are of another kind, or are counts and the temperature is below 1.
        """
        check_known(draws)
        if isinstance(draws, OF_COUNTS) and self.temperature < 1:
            raise ValueError(
                f"temperature is {self.temperature}, expected at least 1 for counts: their "
                "variance is that of a Poisson distribution or larger."
            )
        return _corrected(draws, self.spread, self.temperature)

    @classmethod
    def learn(cls, draws: Distribution, y: Tensor, *, weight: Tensor | None = None) -> Calibration:
        """Find the numbers of largest predictive density.

        A weak prior bounds them where there are few rows: log-normal about 1 for the temperature
        and half-normal from 0 for the spread, each with scale 1.

        Parameters
        ----------
        draws
            What draws predict for rows that were held out, batch (S, rows).
        y
            (rows,), their targets.
        weight
            (rows,), how much each row counts; all 1 by default.
        """
        spread = torch.tensor(0.5, device=y.device, requires_grad=True)
        # The dispersion of counts is at least 1, so that its logarithm is a square.
        of_counts = isinstance(draws, OF_COUNTS)
        raw = torch.tensor(0.5 if of_counts else 0.0, device=y.device, requires_grad=True)
        optimizer = torch.optim.LBFGS([spread, raw], max_iter=50, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            log_temperature = raw**2 if of_counts else raw
            corrected = _corrected(draws, spread.abs(), log_temperature.exp())
            density = corrected.log_prob(y).logsumexp(0) - math.log(draws.batch_shape[0])
            density = density if weight is None else weight * density
            value = 0.5 * (spread**2 + log_temperature**2) - density.sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        found = cls(spread.abs().item(), (raw**2 if of_counts else raw).exp().item())
        if math.isfinite(found.spread) and 0 < found.temperature < math.inf:
            return found
        return cls()


def _corrected(
    draws: Distribution, spread: Tensor | float, temperature: Tensor | float
) -> Distribution:
    if isinstance(draws, Categorical):
        logits = _spread(draws.logits, spread) / temperature
        return Categorical(logits=logits, validate_args=False)
    if isinstance(draws, Normal):
        return Normal(_spread(draws.loc, spread), draws.scale * temperature, validate_args=False)
    counts = as_overdispersed(draws)
    log_rate = _spread(counts.rate.log(), spread).clamp(-MAX_LOG_RATE, MAX_LOG_RATE)
    return OverdispersedPoisson(
        log_rate.exp(), counts.dispersion * temperature, validate_args=False
    )


def _spread(values: Tensor, factor: Tensor | float) -> Tensor:
    mean = values.mean(0, keepdim=True)
    return mean + factor * (values - mean)
