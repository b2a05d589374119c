"""The interface of a likelihood family: what a method has to know of its targets' distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import isolated

__all__ = ["Family", "scale_about_mean"]

MIN_DRAWS = 4000
"""Draws of a row for a quantile: a probability of 0.05 has a standard error of 0.003."""


class Family:
    """A likelihood family.

    The defaults serve any univariate distribution of torch or Pyro. Subclass it to calibrate
    predictions, to check targets, or to offer a linear model, and pass the result to
    :func:`~pyro_vmtl.predictive.families.register_family`.

    Parameters
    ----------
    distribution
        Class of the likelihood.
    parameters
        Names of the parameters that make one, each of the batch's shape or, for logits, with one
        dimension more.

    Attributes
    ----------
    min_temperature
        Least temperature of a calibration; None where predictions are not calibrated.
    """

    min_temperature: float | None = None

    def __init__(self, distribution: type[Distribution], parameters: Sequence[str]) -> None:
        self.distribution = distribution
        self.parameters = tuple(parameters)

    def map(self, function: Callable[[list[Tensor]], Tensor], *draws: Distribution) -> Distribution:
        """Make one distribution of others of this family.

        Parameters
        ----------
        function
            Takes the values of one parameter in all of ``draws`` and returns the new value.
        *draws
            Distributions of this family.
        """
        kind: Any = self.distribution
        values = {name: function([getattr(d, name) for d in draws]) for name in self.parameters}
        return kind(**values, validate_args=False)

    def check(self, data: TaskData) -> None:
        """Check that the targets of training rows have this distribution.

        Raises
        ------
        ValueError
            If they do not. The message names row and task.
        """

    def linear_model(self, prior: Callable[[], Any], data: TaskData) -> nn.Module:
        """Return the linear model of the features of training rows with this likelihood.

        ``prior`` is a function that returns the prior of one task's coefficients.
        """
        raise ValueError(
            f"{type(self).__name__} has no linear model. Define `linear_model`, or fit programs of "
            "your own with `Programs`."
        )

    def initialize(
        self, model: Any, data: TaskData, kl_weight: float
    ) -> tuple[Tensor, Tensor] | None:
        """Return initial means and scales of the linear model's coefficients, (T, ...) each.

        ``model`` is what :meth:`linear_model` returned, and ``kl_weight`` the weight of the KL from
        the prior. None starts at the guide's own values.
        """
        return None

    def calibrate(
        self, draws: Distribution, posterior_scale: Tensor | float, temperature: Tensor | float
    ) -> Distribution:
        """Scale the spread of draws, along the first dimension, and the likelihood's own.

        See :class:`~pyro_vmtl.Calibration` for the two factors.
        """
        return draws

    def mixture(self, parts: Sequence[Distribution], weights: Tensor) -> Distribution:
        """Mix the predictions of posterior draws, as :func:`~pyro_vmtl.predictive_mixture` does."""
        components: Any = self.map(
            lambda values: torch.cat([value.movedim(0, -1) for value in values], dim=-1), *parts
        )
        batch = components.batch_shape  # (T, N, draws of all parts)
        num_draws = torch.tensor([part.batch_shape[0] for part in parts], device=weights.device)
        each = (weights / num_draws).repeat_interleave(num_draws, dim=-1)
        each = each.to(getattr(components, self.parameters[0]))
        component = Categorical(probs=each[:, None].expand(batch), validate_args=False)
        return MixtureSameFamily(component, components, validate_args=False)

    def quantile(
        self, components: Any, weights: Tensor, probabilities: Sequence[float]
    ) -> list[Tensor]:
        """Compute quantiles of a mixture, (rows,) for each probability, here by Monte Carlo.

        ``components`` have batch (rows, K), and so have the ``weights``, rows on the simplex.
        """
        values, mass = _sample_mixture(components, weights)
        values, order = values.sort(dim=-1)
        below = mass.gather(-1, order).cumsum(-1)
        last = values.shape[-1] - 1
        places = (
            torch.searchsorted(below, torch.full_like(below[..., :1], p)).clamp(max=last)
            for p in probabilities
        )
        return [values.gather(-1, place).squeeze(-1) for place in places]

    def pit(self, predictive: Any, y: Tensor, generator: torch.Generator) -> Tensor:
        """Compute the probability integral transform of targets under a mixture, (T, N).

        Without a distribution function of the family, it is estimated by Monte Carlo. The generator
        randomises the transform of discrete targets.
        """
        try:
            below: Tensor = predictive.cdf(y)
        except NotImplementedError:
            weights = predictive.mixture_distribution.probs
            values, mass = _sample_mixture(predictive.component_distribution, weights)
            place = torch.rand(y.shape, generator=generator).to(values)[..., None]
            at_y = values == y[..., None]
            below = (mass * ((values < y[..., None]) + place * at_y)).sum(-1)
        return below.clamp(0, 1)


def _sample_mixture(components: Any, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Draw from every component, (..., draws), each draw with its probability mass."""
    num_each = max(1, MIN_DRAWS // weights.shape[-1])
    with isolated(0):
        values = components.sample((num_each,)).movedim(0, -1).flatten(-2)
    mass = (weights / num_each).repeat_interleave(num_each, dim=-1)
    return values, mass.to(values)


def scale_about_mean(values: Tensor, factor: Tensor | float) -> Tensor:
    """Multiply the distances of draws, along the first dimension, from their mean."""
    mean = values.mean(0, keepdim=True)
    return mean + factor * (values - mean)
