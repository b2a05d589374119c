r"""Calibration of predictions, learned on held-out rows.

A draw :math:`s` from the posterior predicts logits, or the mean and standard deviation of a real
target. Two numbers correct them, the same for all rows:

.. math:: l_s \to \frac{\bar l + \kappa\,(l_s - \bar l)}{\tau}, \qquad
    (m_s, \sigma_s) \to (\bar m + \kappa\,(m_s - \bar m),\ \tau\sigma_s)

The posterior scale :math:`\kappa` is below 1 where the posterior is too wide for prediction, as
mean-field posteriors of many correlated coefficients are. The temperature :math:`\tau` divides
logits (Guo et al. 2017) and multiplies the noise of real targets. Both maximise the predictive
density of the held-out rows.

Rates :math:`\lambda_s` of counts are scaled on the logarithmic scale, :math:`l_s = \log\lambda_s`,
and their temperature is the dispersion, the variance over the mean, at least that of a Poisson
distribution: 1.

References
----------
Guo, Pleiss, Sun and Weinberger (2017). On calibration of modern neural networks. ICML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.distributions import Distribution

from pyro_vmtl.predictive.families import family_of

__all__ = ["Calibration", "calibrate"]


@dataclass(frozen=True)
class Calibration:
    """Correct the predictions of posterior draws.

    Parameters
    ----------
    posterior_scale
        Factor of the distances of draws from their mean, at least 0.
    temperature
        Divisor of logits, or factor of the noise, above 0. For counts the variance over the mean,
        at least 1.

    Examples
    --------
    >>> from torch.distributions import Normal
    >>> draws = Normal(torch.tensor([[0.0], [2.0]]), torch.ones(2, 1))
    >>> corrected = Calibration(posterior_scale=0.5, temperature=3.0)(draws)
    >>> corrected.loc.flatten().tolist(), corrected.scale.flatten().tolist()
    ([0.5, 1.5], [3.0, 3.0])
    """

    posterior_scale: float = 1.0
    temperature: float = 1.0

    def __call__(self, draws: Distribution) -> Distribution:
        """Correct predictions, with draws along the first dimension.

        Raises
        ------
        ValueError
            If the temperature is below the least of the family, such as 1 for counts.
        """
        family = family_of(draws)
        if family.min_temperature is not None and self.temperature < family.min_temperature:
            raise ValueError(
                f"temperature is {self.temperature}, expected at least {family.min_temperature:g} "
                f"for {type(draws).__name__}."
            )
        return family.calibrate(draws, self.posterior_scale, self.temperature)

    @classmethod
    def learn(cls, draws: Distribution, y: Tensor, *, weight: Tensor | None = None) -> Calibration:
        """Maximise the predictive density of held-out rows.

        A weak prior bounds both numbers where rows are few: log-normal about 1, with scale 1.

        Parameters
        ----------
        draws
            Predictions of the held-out rows, batch (S, rows).
        y
            (rows,), their targets.
        weight
            (rows,), weight of each row; all 1 by default.

        Returns
        -------
        Calibration
            Without effect for families that are not calibrated.
        """
        family = family_of(draws)
        if family.min_temperature is None:
            return cls()
        # A temperature of at least 1 has a logarithm that is a square.
        power = 2 if family.min_temperature >= 1 else 1

        def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
            given = torch.tensor(values, dtype=torch.float, device=y.device, requires_grad=True)
            log_scale, log_temperature = given[0], given[1] ** power
            corrected = family.calibrate(draws, log_scale.exp(), log_temperature.exp())
            density = corrected.log_prob(y).logsumexp(0) - math.log(draws.batch_shape[0])
            density = density if weight is None else weight * density
            value = 0.5 * (log_scale**2 + log_temperature**2) - density.double().sum()
            (gradient,) = torch.autograd.grad(value, given)
            return value.item(), gradient.double().cpu().numpy()

        start = [0.0, 0.5 if power == 2 else 0.0]
        with torch.enable_grad():  # torch's optimizer would import its compiler, for two seconds
            found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-7})
        log_scale, log_temperature = found.x[0], found.x[1] ** power
        if not math.isfinite(found.fun):
            return cls()
        return cls(math.exp(log_scale), math.exp(log_temperature))


def calibrate(
    draws: Mapping[str, Distribution], calibrations: Mapping[str, Calibration]
) -> list[Distribution]:
    """Correct the predictions of members that have a calibration; leave others as they are."""
    return [calibrations[name](d) if name in calibrations else d for name, d in draws.items()]
