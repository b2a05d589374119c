"""Source weights as probabilities: which single source a task borrows from is a discrete variable.

Its expectation needs no draws where a loss is linear in it, as that of the logarithmic pool is: the
expected KL from the prior of the chosen source is the KL from the pool with the probabilities as
weights. So the ELBO does not depend on draws of the weights, and their KL has a closed form. It is
the limit of the Concrete distribution at temperature 0.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.distributions.util import broadcast_shape
from torch import Tensor
from torch.distributions import constraints, register_kl
from torch.types import _size

__all__ = ["ExpectedOneHot"]


class ExpectedOneHot(TorchDistribution):
    r"""A ``OneHotCategorical`` with its expectation, on a log scale, in place of draws.

    ``logits`` are (\*batch, K). The log density is the expected one, so that its difference between
    posterior and prior is the KL of the two categorical distributions.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    def __init__(self, logits: Tensor, batch_shape: _size | None = None) -> None:
        self.logits = logits
        shape = logits.shape[:-1] if batch_shape is None else torch.Size(batch_shape)
        super().__init__(shape, logits.shape[-1:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """All real vectors."""
        return constraints.real_vector

    def expand(self, batch_shape: _size, _instance: Any = None) -> ExpectedOneHot:
        """Return the distribution with its batch expanded, and the same logits.

        What they say, as probabilities at all fixed points of other sites, is computed once.
        """
        return ExpectedOneHot(self.logits, batch_shape)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        r"""Return the log probabilities, (\*sample_shape, \*batch, K)."""
        return self.logits.log_softmax(-1).expand(self._extended_shape(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Compute the expected log probability of a choice that has these log probabilities."""
        expected = (value.exp() * self.logits.log_softmax(-1)).sum(-1)
        return expected.expand(broadcast_shape(expected.shape, self.batch_shape))


@register_kl(ExpectedOneHot, ExpectedOneHot)
def _kl(p: ExpectedOneHot, q: ExpectedOneHot) -> Tensor:
    log_p = p.logits.log_softmax(-1)
    kl = (log_p.exp() * (log_p - q.logits.log_softmax(-1))).sum(-1)
    return kl.expand(p.batch_shape)
