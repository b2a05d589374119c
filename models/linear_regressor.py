r"""The linear regressor: linear regression with normal noise in every task.

================= ==================================== ============ ====================
symbol            meaning                              site         shape
================= ==================================== ============ ====================
:math:`x_{tn}`    features of row n of task t          (given)      ``data.x`` (T, N, F)
:math:`w_t`       coefficients of task t               ``w``        (T, 1, F)
:math:`\sigma_t`  standard deviation of the noise      (learned)    ``noise_scale`` (T, 1)
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
from torch import Tensor

from pyro_vmtl.data.plates import subsample_tasks
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.models.task_noise import TaskNoise

__all__ = ["LinearRegressor"]


class LinearRegressor(TaskNoise):
    """Linear regression in every task, with a prior that all tasks have in common.

    Parameters
    ----------
    prior
        Returns the prior of one task's ``w``, a normal with event shape (F,), such as
        :class:`~pyro_vmtl.models.ZeroMeanNormal`.
    num_tasks
        T.
    init_noise_scale
        Initial standard deviation of the noise, in the unit of the targets.
    rows_per_task
        (T,), ``data.rows_per_task``: tasks with fewer than 12 have at least the others' noise.

    See Also
    --------
    LatentRegressor : The same on learned representations.
    """

    fixed_graph = True

    def __init__(
        self,
        prior: Callable[[], dist.Independent],
        num_tasks: int,
        *,
        init_noise_scale: float = 1.0,
        rows_per_task: Tensor | None = None,
        noise: Callable[[], Tensor] | None = None,
    ) -> None:
        super().__init__(num_tasks, init_noise_scale, rows_per_task)
        self.prior = prior
        self.noise = noise

    def forward(self, data: TaskData) -> None:
        """Sample coefficients and targets; condition on the targets where they are known."""
        prior = self.prior()
        with pyro.plate("task", data.num_tasks, dim=-2):
            w, rows = pyro.sample("w", prior), subsample_tasks(data)
            mean = (rows.x @ w.mT).squeeze(-1).to(w.dtype)  # (T, N, F) @ (T, F, 1)
            if self.noise is None:
                noise_scale = pyro.subsample(self.noise_scale, event_dim=0)
            else:
                noise_scale = self.noise()
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=rows.mask):
                pyro.sample("y", dist.Normal(mean, noise_scale), obs=rows.y)
