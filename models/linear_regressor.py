r"""The linear regressor: linear regression with normal noise in every task.

================= ==================================== ============ ====================
symbol            meaning                              site         shape
================= ==================================== ============ ====================
:math:`x_{tn}`    features of row n of task t          (given)      ``data.x`` (T, N, F)
:math:`w_t`       coefficients of task t               ``w``        (T, 1, F)
:math:`\sigma_t`  standard deviation of the noise      ``noise``    (T, 1)
:math:`y_{tn}`    target of row n of task t            ``y``        ``data.y`` (T, N)
================= ==================================== ============ ====================

.. math:: w_t \sim p(w), \qquad y_{tn} \sim N(w_t^\top x_{tn}, \sigma_t^2)

The 1 in the shape of ``w`` is the place of the data plate (dim -1), right of the task plate.
"""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
from pyro import poutine
from torch import Tensor, nn

from pyro_vmtl.data.plates import subsample_tasks
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.linear_predictor import linear_predictor

__all__ = ["LinearRegressor"]


class LinearRegressor(nn.Module):
    """Linear regression in every task, with a prior that all tasks have in common.

    Parameters
    ----------
    prior
        Returns the prior of one task's ``w``, a normal with event shape (F,), for example
        :class:`~pyro_vmtl.models.ZeroMeanNormal`.
    noise
        Returns the standard deviations of the noise, (T, 1), inside a plate over tasks:
        :class:`~pyro_vmtl.models.TaskNoise` or :class:`~pyro_vmtl.models.LogNormalNoise`.

    See Also
    --------
    LatentRegressor : The same on learned representations.

    Examples
    --------
    >>> from pyro_vmtl.models import StandardNormal, TaskNoise
    >>> model = LinearRegressor(StandardNormal([2]), TaskNoise(3))
    >>> poutine.trace(model).get_trace(data).nodes["y"]["fn"].batch_shape
    torch.Size([3, 12])
    """

    fixed_graph = True

    def __init__(self, prior: Callable[[], dist.Independent], noise: Callable[[], Tensor]) -> None:
        super().__init__()
        self.prior = prior
        self.noise = noise

    def forward(self, data: TaskData) -> None:
        """Sample coefficients and targets; condition on the targets where they are known."""
        prior = self.prior()
        with pyro.plate("task", data.num_tasks, dim=-2):
            w, rows = pyro.sample("w", prior), subsample_tasks(data)
            mean = linear_predictor(rows.x, w).to(w.dtype)
            noise_scale = self.noise()
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=rows.mask):
                pyro.sample("y", dist.Normal(mean, noise_scale), obs=rows.y)
