"""The plates ``task`` and ``data`` of programs: run them on some tasks, and weigh their rows.

Models and guides sample in a plate ``task`` over the tasks and, inside of it, a plate ``data`` over
the rows of a task. A program runs on some of the tasks by Pyro's own subsampling: the plate holds
their indices and scales what they add to the loss, and ``pyro.subsample`` selects their part of
values that exist for every task.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vmtl.data.task_data import TaskData

__all__ = [
    "DATA_PLATE",
    "TASK_PLATE",
    "sample_posterior",
    "scaled_rows",
    "some_tasks",
    "subsample_tasks",
]

TASK_PLATE = "task"
"""Name of the plate over tasks in models and guides."""

DATA_PLATE = "data"
"""Name of the plate over the rows of a task in models and guides."""


def subsample_tasks(data: TaskData) -> TaskData:
    """Select the rows of the tasks in the enclosing plate ``task``, at dimension -2."""
    if pyro.subsample(data.mask, event_dim=0) is data.mask:
        return data
    return data.map_rows(lambda values: pyro.subsample(values, event_dim=values.ndim - 2))


def sample_posterior(site: str, posterior: dist.TorchDistribution) -> Tensor:
    """Sample a site of a guide for the tasks in the enclosing plate ``task``.

    When the plate holds only some of the tasks, sharing still finds its sources among all of them.

    Parameters
    ----------
    site
        Name of the site.
    posterior
        Normal, also with covariances, or log-normal, of every task, batch shape (T, ...).

    See Also
    --------
    pyro_vmtl.share : Assign a site a prior that pools the posteriors of the other tasks.

    Examples
    --------
    >>> import pyro, torch
    >>> with pyro.plate("task", 3, dim=-2):
    ...     w = sample_posterior("w", dist.Normal(torch.zeros(3, 1, 2), 1.0).to_event(1))
    >>> w.shape
    torch.Size([3, 1, 2])
    """
    event_dim, normal = len(posterior.event_shape), posterior
    while isinstance(normal, dist.Independent):
        normal = normal.base_dist
    loc = pyro.subsample(normal.loc, event_dim=event_dim)
    some, infer = posterior, {}
    if loc is not normal.loc:
        if isinstance(normal, dist.MultivariateNormal):
            root = pyro.subsample(normal.scale_tril, event_dim=event_dim + 1)
            some = dist.MultivariateNormal(loc, scale_tril=root).to_event(event_dim - 1)
        else:
            scale = pyro.subsample(normal.scale, event_dim=event_dim)
            some = type(normal)(loc, scale).to_event(event_dim)
        infer = {"sources": lambda: posterior}
    value: Tensor = pyro.sample(site, some, infer=infer)
    return value


def some_tasks(tasks: Tensor | None) -> AbstractContextManager[Any]:
    """Run programs on some of the tasks, (B,) indices in ascending order; None for all."""
    return nullcontext() if tasks is None else _SomeTasks(tasks)


class _SomeTasks(Messenger):
    def __init__(self, tasks: Tensor) -> None:
        super().__init__()
        self.tasks = tasks

    def _pyro_sample(self, msg: Any) -> None:
        # A plate draws its indices in a site that has its name.
        if msg["name"] != TASK_PLATE or type(msg["fn"]).__name__ != "_Subsample":
            return
        if msg["fn"].subsample_size not in (None, len(self.tasks)):
            raise ValueError(
                f"Plate {TASK_PLATE!r} takes {msg['fn'].subsample_size} tasks of its own accord, "
                f"as in Pyro's autoguides, expected the {len(self.tasks)} tasks of this part of "
                "the step. Fit without `tasks`, or with a guide such as MeanFieldNormal."
            )
        msg["value"] = self.tasks


def scaled_rows(weight: Tensor | None) -> AbstractContextManager[Any]:
    """Scale the log densities of sites inside the plate ``data``.

    The weights are (T,), of each row of a task, or (T, N), of every row; None for no change.
    """
    return nullcontext() if weight is None else _ScaleRows(weight)


class _ScaleRows(Messenger):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.met = False

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        if not self.met and exception[0] is None:
            raise ValueError(
                f"The programs have no site in a plate {DATA_PLATE!r}, so that a batch of rows "
                "cannot be weighted. Sample rows inside "
                f"`with pyro.plate({DATA_PLATE!r}, N, dim=-1)`."
            )

    def _pyro_sample(self, msg: Any) -> None:
        dims = {frame.name: frame.dim for frame in msg["cond_indep_stack"] if frame.vectorized}
        if DATA_PLATE not in dims or TASK_PLATE not in dims:
            return
        self.met = True
        if msg["infer"].get("is_auxiliary"):
            raise ValueError(
                f"The guide has parameters for every row at site {msg['name']!r}, as Pyro's "
                "autoguides do, and rows are weighted. Fit without `batches` and sample weights, "
                "or with a guide that computes them from the features, such as EncodedNormal."
            )
        # the dimensions of tasks and rows are those of their plates
        shape = [1] * -min(dims.values())
        shape[dims[TASK_PLATE]] = self.weight.shape[0]
        if self.weight.ndim == 2:
            shape[dims[DATA_PLATE]] = self.weight.shape[1]
        weight = self.weight.reshape(shape)
        msg["scale"] = msg["scale"] * pyro.subsample(weight, event_dim=0)
