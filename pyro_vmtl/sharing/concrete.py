"""The distribution of source weights: the Concrete distribution, on a log scale."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Categorical, Distribution
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical
from torch.types import _size

__all__ = ["LogConcrete"]


class LogConcrete(ExpRelaxedCategorical, TorchDistributionMixin):
    r"""Log of a ``RelaxedOneHotCategorical``: torch's ``ExpRelaxedCategorical`` for Pyro.

    A draw is the log-softmax of (logits + Gumbel noise) / temperature. At a low temperature the
    weights themselves underflow to 0, from where no density can be told; their logarithms do not.
    The Jacobian between the two cancels in log ratios of densities, as in a KL.

    Unlike torch's class it does not normalize the logits, as its density does not depend on a
    constant in each row: for T tasks that saves several passes over T by T numbers.

    References
    ----------
    Maddison, C. J., Mnih, A. and Teh, Y. W. (2017). The Concrete Distribution: A Continuous
    Relaxation of Discrete Random Variables. ICLR, appendix C.3.
    """

    def __init__(
        self, temperature: Tensor, logits: Tensor, validate_args: bool | None = None
    ) -> None:
        self.temperature = temperature
        self.raw_logits = logits
        Distribution.__init__(self, logits.shape[:-1], logits.shape[-1:], validate_args)

    @cached_property
    def _categorical(self) -> Categorical:  # type: ignore[override]
        # what the properties of torch's class are computed from
        return Categorical(logits=self.raw_logits, validate_args=False)

    def expand(self, batch_shape: _size, _instance: Any = None) -> LogConcrete:
        """Return the distribution with its batch expanded."""
        logits = self.raw_logits.expand(torch.Size(batch_shape) + self.event_shape)
        return LogConcrete(self.temperature, logits, validate_args=False)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        r"""Draw log weights, (\*sample_shape, \*batch, K), with gradients to the logits."""
        shape = self._extended_shape(sample_shape)
        uniform = torch.rand(shape, dtype=self.raw_logits.dtype, device=self.raw_logits.device)
        eps = torch.finfo(uniform.dtype).eps
        negative_gumbel = uniform.clamp_(eps, 1 - eps).log_().neg_().log_()
        return ((self.raw_logits - negative_gumbel) / self.temperature).log_softmax(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Compute the log density of log weights."""
        if self._validate_args:
            self._validate_sample(value)
        num = self.event_shape[0]
        score = self.raw_logits - self.temperature * value
        constant = math.lgamma(num) + (num - 1) * self.temperature.log()
        return score.sum(-1) - num * score.logsumexp(-1) + constant
