r"""The linear regressor: a straight line with normal noise in every task.

================= ==================================== ============ ====================
symbol            meaning                              site         shape
================= ==================================== ============ ====================
:math:`x_{tn}`    features of row n of task t          (given)      ``data.x`` (T, N, F)
:math:`w_t`       coefficients of task t               ``w``        (T, 1, F)
:math:`\sigma_t`  standard deviation of the noise      (learned)    ``noise_scale`` (T, 1)
:math:`y_{tn}`    target of row n of task t            ``y``        ``data.y`` (T, N)
================= ==================================== ============ ====================

.. math:: w_t \sim p(w), \qquad y_{tn} \sim N(w_t^\top x_{tn}, \sigma_t^2)

The 1 in the shape of ``w`` is the place of the data plate (dim -1), to the right of the task plate
(dim -2).
"""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_vmtl.data.task_batches import of_plate
from pyro_vmtl.data.task_data import TaskData

__all__ = ["LinearRegressor", "TaskNoise"]


FEW_ROWS = 12
"""With fewer, the noise of a task is not its own."""


class TaskNoise(nn.Module):
    """Normal noise with a learned standard deviation in every task.

    Parameters
    ----------
    num_tasks
        T.
    init_noise_scale
        Standard deviation at the start, in the unit of the targets.
    """

    fixed_graph = True

    def __init__(self, num_tasks: int, init_noise_scale: float) -> None:
        super().__init__()
        self.raw_noise_scale = nn.Parameter(torch.full((num_tasks, 1), init_noise_scale).log())

    @torch.no_grad()
    def widen(self, counts: Tensor) -> None:
        """Let tasks with few rows have at least the noise of the others.

        A few rows are fitted nearly exactly, and the noise that is left of them is none of theirs.

        Parameters
        ----------
        counts
            (T,), rows of each task, or the sum of their weights.
        """
        few = (counts < FEW_ROWS)[:, None]
        usual = self.raw_noise_scale[~few] if not few.all() else self.raw_noise_scale
        self.raw_noise_scale.copy_(
            torch.where(few, self.raw_noise_scale.clamp(min=usual.mean()), self.raw_noise_scale)
        )

    @property
    def noise_scale(self) -> Tensor:
        """Standard deviation of each task's noise, (T, 1), in the unit of the targets."""
        return self.raw_noise_scale.exp()


class LinearRegressor(TaskNoise):
    """Linear regression in every task, with a prior that all tasks have in common.

    Parameters
    ----------
    prior
        Gives the prior of one task's ``w``, a normal with event shape (F,), for example
        :class:`~pyro_vmtl.models.ZeroMeanNormal`.
    num_tasks
        T.
    init_noise_scale
        Standard deviation of the noise at the start, in the unit of the targets.
    """

    fixed_graph = True

    def __init__(
        self,
        prior: Callable[[], dist.Independent],
        num_tasks: int,
        *,
        init_noise_scale: float = 1.0,
    ) -> None:
        super().__init__(num_tasks, init_noise_scale)
        self.prior = prior

    def forward(self, data: TaskData) -> None:
        """Draw coefficients and targets; condition on the targets where they are known."""
        prior = self.prior()
        with pyro.plate("task", data.num_tasks, dim=-2):
            w, rows = pyro.sample("w", prior), of_plate(data)
            mean = (rows.x @ w.mT).squeeze(-1).to(w.dtype)  # (T, N, F) @ (T, F, 1)
            noise_scale = pyro.subsample(self.noise_scale, event_dim=0)
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=rows.mask):
                pyro.sample("y", dist.Normal(mean, noise_scale), obs=rows.y)
