"""The distribution of source weights: Concrete, with draws that stay inside the simplex."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

__all__ = ["SourceWeights"]


class SourceWeights(TorchDistribution):
    r"""Concrete distribution (Maddison, Mnih and Teh, ICLR 2017, eq. 10).

    A draw is the softmax of (logits + Gumbel noise) / temperature. It differs from Pyro's
    ``RelaxedOneHotCategorical`` in what happens at a low temperature, where a softmax underflows to
    an exact 0: draws are lifted to the smallest normal number, and their density is that of the
    logarithms they came from, which each draw carries along. Taken from the lifted numbers it would
    make the KL of the weights fall without bound.

    Parameters
    ----------
    temperature
        scalar, above 0.
    logits
        (\*batch, K), up to a constant in each row.

    Examples
    --------
    >>> SourceWeights(torch.tensor(0.5), logits=torch.zeros(4, 3)).sample().shape
    torch.Size([4, 3])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "temperature": constraints.positive,
        "logits": constraints.real_vector,
    }
    support = constraints.simplex
    has_rsample = True

    def __init__(
        self, temperature: Tensor, logits: Tensor, validate_args: bool | None = None
    ) -> None:
        self.temperature = temperature
        self.logits = logits
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> SourceWeights:
        """Repeat the distribution."""
        logits = self.logits.expand(torch.Size(batch_shape) + self.event_shape)
        return SourceWeights(self.temperature, logits, validate_args=False)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        r"""Draw weights, (\*sample_shape, \*batch, K), with gradients to the logits."""
        uniform = torch.rand(
            self._extended_shape(sample_shape), dtype=self.logits.dtype, device=self.logits.device
        )
        eps = torch.finfo(uniform.dtype).eps
        noise = uniform.clamp_(eps, 1 - eps).log_().neg_().log_()  # minus that of Gumbel
        scores = (self.logits - noise) / self.temperature
        # The exp of the logarithms would sum to 1 up to some 1e-5 only.
        draw = scores.softmax(-1).clamp_min(torch.finfo(scores.dtype).tiny)
        draw.log_weights = scores.log_softmax(-1)  # type: ignore[attr-defined]
        # At its own draws, the score in the density is the noise, up to a constant.
        draw.drawn = (self.logits, self._shape_term(noise))  # type: ignore[attr-defined]
        return draw

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Draw weights, as :meth:`rsample` without gradients."""
        return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of weights, from their logarithms where they are drawn ones."""
        log_weights: Tensor | None = getattr(value, "log_weights", None)
        if log_weights is None:
            if self._validate_args:
                self._validate_sample(value)
            log_weights = value.log()
        logits, shape_term = getattr(value, "drawn", (None, None))
        if shape_term is None or logits is not self.logits:
            shape_term = self._shape_term(self.logits - self.temperature * log_weights)
        num = self.event_shape[0]
        constant = math.lgamma(num) + (num - 1) * self.temperature.log()
        return shape_term - log_weights.sum(-1) + constant

    def _shape_term(self, score: Tensor) -> Tensor:
        """Give the part of the density that does not change when a constant is added."""
        return score.sum(-1) - self.event_shape[0] * score.logsumexp(-1)
