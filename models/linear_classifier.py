r"""The linear classifier: softmax regression in every task.

=============== ==================================== ============ ======================
symbol          meaning                              site         shape
=============== ==================================== ============ ======================
:math:`x_{tn}`  features of row n of task t          (given)      ``data.x`` (T, N, F)
:math:`w_t`     coefficients of task t's classes     ``w``        (T, 1, C, F)
:math:`y_{tn}`  class of row n of task t             ``y``        ``data.y`` (T, N)
=============== ==================================== ============ ======================

.. math:: w_t \sim p(w), \qquad y_{tn} \sim \mathrm{Categorical}(\mathrm{softmax}(w_t x_{tn}))

The 1 in the shape of ``w`` is the place of the data plate (dim -1), right of the task plate.
"""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
from pyro import poutine
from torch import nn

from pyro_vmtl.data.plates import subsample_tasks
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.linear_predictor import linear_predictor

__all__ = ["LinearClassifier"]


class LinearClassifier(nn.Module):
    """Softmax regression in every task, with a prior that all tasks have in common.

    Parameters
    ----------
    prior
        Returns the prior of one task's ``w``, a normal with event shape (C, F), such as
        :class:`~pyro_vmtl.models.ZeroMeanNormal`.

    See Also
    --------
    LatentClassifier : The same on learned representations.

    Examples
    --------
    >>> from pyro_vmtl import TaskData
    >>> from pyro_vmtl.models import StandardNormal
    >>> classes = TaskData.classification([[0.0], [1.0]], ["no", "yes"], ["a", "b"])
    >>> model = LinearClassifier(StandardNormal([2, 1]))
    >>> poutine.trace(model).get_trace(classes).nodes["y"]["fn"].batch_shape
    torch.Size([2, 1])
    """

    fixed_graph = True

    def __init__(self, prior: Callable[[], dist.Independent]) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, data: TaskData) -> None:
        """Sample coefficients and classes; condition on the classes where they are known."""
        prior = self.prior()
        with pyro.plate("task", data.num_tasks, dim=-2):
            w, rows = pyro.sample("w", prior), subsample_tasks(data)
            logits = linear_predictor(rows.x, w, 2).to(w.dtype)  # (T, N, C), also under autocast
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=rows.mask):
                pyro.sample("y", dist.Categorical(logits=logits), obs=rows.y)
