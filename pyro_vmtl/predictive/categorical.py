"""The family of class labels, in order or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.inference.initialization import least_squares_start
from pyro_vmtl.models import LinearClassifier
from pyro_vmtl.predictive.family import Family, scale_about_mean
from pyro_vmtl.predictive.ordinal import OrdinalCategorical

__all__ = ["CategoricalFamily"]


class CategoricalFamily(Family):
    """Class labels, with logits."""

    min_temperature = 0.0

    def __init__(self, distribution: type[Categorical] = Categorical) -> None:
        super().__init__(distribution, ["logits"])
        self.ordered = distribution is not Categorical

    def linear_model(self, prior: Callable[[], Any], data: TaskData) -> nn.Module:
        """Return softmax regression in every task."""
        if self.ordered:
            return super().linear_model(prior, data)
        return LinearClassifier(prior)

    def initialize(self, model: Any, data: TaskData, kl_weight: float) -> tuple[Tensor, Tensor]:
        """Return one Newton step from zero in every task."""
        return least_squares_start(data, kl_weight=kl_weight)

    def calibrate(
        self, draws: Any, posterior_scale: Tensor | float, temperature: Tensor | float
    ) -> Distribution:
        """Scale logits about their mean over draws, and divide them by the temperature."""
        logits = scale_about_mean(draws.logits, posterior_scale) / temperature
        return self.distribution(logits=logits, validate_args=False)

    def mixture(self, parts: Sequence[Any], weights: Tensor) -> Distribution:
        """Average probabilities: a mixture of categorical distributions is categorical."""
        means = torch.stack([part.probs.mean(0) for part in parts])
        weights = weights.to(means)
        probs = torch.einsum("mtnc,tm->tnc", means, weights)
        return self.distribution(probs=probs, validate_args=False)

    def quantile(
        self, components: Any, weights: Tensor, probabilities: Sequence[float]
    ) -> list[Tensor]:
        """Invert the distribution function of a mixture of ordered classes."""
        if not self.ordered:
            raise ValueError("Classes without an order have no quantiles. They have `probs`.")
        averaged = OrdinalCategorical(probs=(components.probs * weights[..., None]).sum(-2))
        return [averaged.icdf(torch.full_like(weights[:, 0], p)) for p in probabilities]
