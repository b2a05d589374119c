"""The interface of a likelihood family: what a method has to know of its targets' distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.predictive.mixtures import FamilyMixture

__all__ = ["Family", "sample_mixture", "scale_about_mean", "weighted_quantiles"]

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
    ordered
        Whether targets have an order, and so quantiles and a distribution function.

    Examples
    --------
    >>> from torch.distributions import Gumbel
    >>> family = Family(Gumbel, ["loc", "scale"])
    >>> family.map(lambda values: values[0] + 1, Gumbel(0.0, 1.0)).loc
    tensor(1.)
    """

    min_temperature: float | None = None
    ordered: bool = True

    def __init__(self, distribution: type[Distribution], parameters: Sequence[str]) -> None:
        self.distribution: Any = distribution
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
        values = {name: function([getattr(d, name) for d in draws]) for name in self.parameters}
        return self.distribution(**values, validate_args=False)

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
        mixture = FamilyMixture(component, components, validate_args=False)
        mixture.family = self
        return mixture

    def quantile(
        self, components: Any, weights: Tensor, probabilities: Sequence[float]
    ) -> list[Tensor]:
        """Compute quantiles of a mixture, (rows,) for each probability, here by Monte Carlo.

        ``components`` have batch (rows, K), and so have the ``weights``, rows on the simplex.
        """
        return weighted_quantiles(*sample_mixture(components, weights), probabilities)

    def cdf(self, components: Any, weights: Tensor, value: Tensor) -> Tensor:
        """Compute the distribution function of a mixture, with batch (..., K), of the same weights.

        Exactly where the distribution has one, as not all of torch have, else by Monte Carlo.
        """
        try:
            below: Tensor = (weights * components.cdf(value[..., None])).sum(-1)
        except NotImplementedError:
            values, mass = sample_mixture(components, weights)
            below = (mass * (values <= value[..., None])).sum(-1)
        return below


def weighted_quantiles(
    values: Tensor, mass: Tensor, probabilities: Sequence[float]
) -> list[Tensor]:
    """Compute quantiles of draws (..., draws) by their probability mass."""
    values, order = values.sort(dim=-1)
    below = mass.gather(-1, order).cumsum(-1)
    last = values.shape[-1] - 1
    places = (
        torch.searchsorted(below, torch.full_like(below[..., :1], p)).clamp(max=last)
        for p in probabilities
    )
    return [values.gather(-1, place).squeeze(-1) for place in places]


def sample_mixture(components: Any, weights: Tensor) -> tuple[Tensor, Tensor]:
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
