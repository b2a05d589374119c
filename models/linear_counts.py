r"""The linear model of counts: Poisson regression in every task.

=============== ==================================== ============ ====================
symbol          meaning                              site         shape
=============== ==================================== ============ ====================
:math:`x_{tn}`  features of row n of task t          (given)      ``data.x`` (T, N, F)
:math:`w_t`     coefficients of task t               ``w``        (T, 1, F)
:math:`b`       logarithm of a typical rate          (given)      ``log_rate`` ()
:math:`y_{tn}`  count of row n of task t             ``y``        ``data.y`` (T, N)
=============== ==================================== ============ ====================

.. math:: w_t \sim p(w), \qquad y_{tn} \sim \mathrm{Poisson}(\exp(b + w_t^\top x_{tn}))

Overdispersed counts are gamma-Poisson (negative binomial) with variance
:math:`\mu + \delta\mu^2`, where :math:`\mu` is the rate, as if what the features do not say
multiplied it; the site of :math:`\delta` is ``overdispersion``.

Real targets can be standardized, counts cannot. So :math:`b` is about the logarithm of their mean:
coefficients are then near 0, the mean of their prior. Log rates are clamped from -30 to 30
(``MAX_LOG_RATE``), so that rates and their squares are finite in float32.

The 1 in the shape of ``w`` is the place of the data plate (dim -1), right of the task plate.
"""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_vmtl.data.plates import subsample_tasks
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.linear_predictor import linear_predictor

__all__ = ["MAX_LOG_RATE", "LinearCounts"]

MAX_LOG_RATE = 30.0
"""In float32 ``exp`` overflows above 88, and its square, in predictive variances and in Adam, above
44. A start near the data keeps fits away from where the clamp has no gradient."""


class LinearCounts(nn.Module):
    """Poisson regression in every task, with a prior that all tasks have in common.

    Parameters
    ----------
    prior
        Returns the prior of one task's ``w``, a normal with event shape (F,), for example
        :class:`~pyro_vmtl.models.ZeroMeanNormal`.
    log_rate
        Logarithm of the rate where all coefficients are 0, such as that of the mean count.
    overdispersed
        Whether the variance may exceed the rate.

    Examples
    --------
    >>> from pyro_vmtl.models import StandardNormal
    >>> model = LinearCounts(StandardNormal([2]))
    >>> poutine.trace(model).get_trace(data.without_targets()).nodes["y"]["fn"].batch_shape
    torch.Size([3, 12])
    """

    fixed_graph = True
    log_rate: Tensor

    def __init__(
        self,
        prior: Callable[[], dist.Independent],
        *,
        log_rate: float = 0.0,
        overdispersed: bool = False,
    ) -> None:
        super().__init__()
        self.prior = prior
        self.overdispersed = overdispersed
        self.register_buffer("log_rate", torch.tensor(log_rate))

    def forward(self, data: TaskData) -> None:
        """Sample coefficients and counts; condition on the counts where they are known."""
        prior = self.prior()
        if self.overdispersed:
            one = self.log_rate.new_ones(())
            overdispersion = pyro.sample("overdispersion", dist.LogNormal(-one, one))
        with pyro.plate("task", data.num_tasks, dim=-2):
            w, rows = pyro.sample("w", prior), subsample_tasks(data)
            linear = linear_predictor(rows.x, w).to(w.dtype)
            log_rate = (self.log_rate + linear).clamp(-MAX_LOG_RATE, MAX_LOG_RATE)
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=rows.mask):
                rate = log_rate.exp()
                if self.overdispersed:
                    shape = (1 / overdispersion).expand_as(rate)
                    counts = dist.GammaPoisson(shape, shape / rate)
                else:
                    counts = dist.Poisson(rate)
                pyro.sample("y", counts, obs=rows.y)
