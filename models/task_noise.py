r"""Normal noise with a learned standard deviation in every task.

================= ================================== ======================= =======
symbol            meaning                            code                    shape
================= ================================== ======================= =======
:math:`\sigma_t`  standard deviation of the noise    ``noise_scale``         (T, 1)
:math:`s_t`       its own logarithm, learned         ``raw_noise_scale``     (T, 1)
:math:`m`         usual logarithm                                            ()
================= ================================== ======================= =======

A handful of rows is fitted nearly exactly, and what is left of them says little about the noise. So
a task with fewer than 12 rows has at least the usual noise,

.. math:: \log\sigma_t = \max(s_t, m),

where :math:`m` is the mean of :math:`s_t` over the tasks with at least 12 rows. Without such tasks
it is the median over all tasks: half of them then learn noise of their own, and bound the others.
(The mean could not: tasks at the bound raise it.) :math:`m` has no gradient, so that small tasks do
not pull at the noise of the others.
"""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

__all__ = ["LogNormalNoise", "TaskNoise"]

FEW_ROWS = 12
"""Tasks with fewer rows have at least the noise of the others."""


class TaskNoise(nn.Module):
    """Normal noise with a learned standard deviation in every task.

    ``rows_per_task`` (T,) are numbers of training rows, or sums of their weights; None for noise
    without a lower bound in all tasks.

    Examples
    --------
    >>> TaskNoise(3)().shape
    torch.Size([3, 1])
    """

    fixed_graph = True

    few_rows: Tensor | None

    def __init__(
        self, num_tasks: int, init_noise_scale: float = 1.0, rows_per_task: Tensor | None = None
    ) -> None:
        super().__init__()
        self.raw_noise_scale = nn.Parameter(torch.full((num_tasks, 1), init_noise_scale).log())
        few = None if rows_per_task is None else (rows_per_task < FEW_ROWS)[:, None]
        self.register_buffer("few_rows", few)
        self._counted: tuple[Tensor | None, int, int] = (None, 0, 0)

    def forward(self) -> Tensor:
        """Return the standard deviations of the tasks in the enclosing plate ``task``."""
        noise_scale: Tensor = pyro.subsample(self.noise_scale, event_dim=0)
        return noise_scale

    @property
    def noise_scale(self) -> Tensor:
        """Standard deviation of each task's noise, (T, 1), in the unit of the targets."""
        return self.log_noise_scale.exp()

    @property
    def log_noise_scale(self) -> Tensor:
        """Logarithm of each task's standard deviation, (T, 1)."""
        raw, few = self.raw_noise_scale, self.few_rows
        if few is None:
            return raw
        num_usual = self._count_usual(few)
        if num_usual == len(few):  # nothing to do, and no operation more than without a bound
            return raw
        fixed = raw.detach()
        if num_usual:
            floor = fixed.masked_fill(few, 0.0).sum() / num_usual
        else:
            floor = fixed.flatten().sort().values[len(fixed) // 2]
        return torch.where(few, _AtLeast.apply(raw, floor), raw)

    def _count_usual(self, few: Tensor) -> int:
        """Count the tasks with enough rows, once: reading it in each step would wait for a GPU."""
        counted, version, number = self._counted
        if counted is not few or version != few._version:
            number = [is_few for (is_few,) in few.tolist()].count(False)
            self._counted = few, few._version, number
        return number


class _AtLeast(torch.autograd.Function):
    """Clamp from below, with gradients for values below the bound that would rise."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, bound: Tensor) -> Tensor:
        ctx.save_for_backward(values, bound)
        return torch.maximum(values, bound)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        values, bound = ctx.saved_tensors
        gradient = gradients[0]
        return gradient.where((values >= bound) | (gradient < 0), 0.0), None


class LogNormalNoise(nn.Module):
    """Normal noise with a latent standard deviation in every task, a site ``noise_scale``.

    Its prior is log-normal with a learned location: tasks of few rows have about the usual noise.
    ``init_scale`` is the initial median, and ``spread`` the standard deviation of the logarithm,
    learned by default.

    Examples
    --------
    >>> import pyro
    >>> with pyro.plate("task", 3, dim=-2):
    ...     scale = LogNormalNoise()()
    >>> scale.shape
    torch.Size([3, 1])
    """

    fixed_graph = True

    def __init__(self, init_scale: float = 0.6, spread: float | None = None) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(init_scale).log())
        raw_spread = torch.tensor(spread or 0.3).log()
        self.raw_spread = nn.Parameter(raw_spread, requires_grad=spread is None)

    def forward(self) -> Tensor:
        """Sample the standard deviations, inside a plate over tasks."""
        prior = dist.LogNormal(self.loc, self.raw_spread.exp())
        noise_scale: Tensor = pyro.sample("noise_scale", prior)
        return noise_scale
