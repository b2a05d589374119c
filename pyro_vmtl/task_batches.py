"""Some tasks at a time: memory and time of a step no longer grow with all pairs of tasks.

A step on all T tasks compares all of them with all sources, T x T numbers. Here the programs run on
some tasks only, whose sources are still all others. In a program that is Pyro's own subsampling:
the plate ``task`` holds some tasks, scales what they add to the loss, and ``pyro.subsample`` takes
their part of what there is for every task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vmtl.data import TaskData
from pyro_vmtl.handled import TASK_PLATE

__all__ = ["RandomTasks", "TaskBatches", "TaskBlocks", "of_plate", "sample_of_plate", "some_tasks"]

TaskBatches = Callable[[int], list[Tensor]]
"""Gives the indices of tasks for each part of a step, from the number of all tasks."""


@dataclass(frozen=True)
class RandomTasks:
    """Other tasks at each step, drawn without replacement.

    Each counts as T / ``num_tasks``, so that the ELBO of a step is an unbiased estimate of that of
    all tasks.

    Parameters
    ----------
    num_tasks
        Tasks in a step; all of them where there are fewer.

    Examples
    --------
    >>> [tasks] = RandomTasks(3)(100)
    >>> tasks.shape
    torch.Size([3])
    """

    num_tasks: int

    def __post_init__(self) -> None:
        """Check the number."""
        _check(self.num_tasks)

    def __call__(self, num_tasks: int) -> list[Tensor]:
        """Draw the tasks of a step."""
        return [torch.randperm(num_tasks)[: self.num_tasks].sort().values]


@dataclass(frozen=True)
class TaskBlocks:
    """All tasks at each step, block by block: the same step in less memory.

    Parameters
    ----------
    num_tasks
        The most tasks in a block.

    Examples
    --------
    >>> [tasks.tolist() for tasks in TaskBlocks(2)(5)]
    [[0, 1], [2, 3], [4]]
    """

    num_tasks: int

    def __post_init__(self) -> None:
        """Check the number."""
        _check(self.num_tasks)

    def __call__(self, num_tasks: int) -> list[Tensor]:
        """Give the blocks of a step, of nearly equal size."""
        return list(torch.arange(num_tasks).tensor_split(-(-num_tasks // self.num_tasks)))


def _check(num_tasks: int) -> None:
    if num_tasks < 1:
        raise ValueError(f"num_tasks is {num_tasks}, expected at least 1.")


@contextmanager
def some_tasks(tasks: Tensor | None) -> Iterator[None]:
    """Let programs run on some tasks.

    Parameters
    ----------
    tasks
        (B,), indices in ascending order; None for all tasks.
    """
    if tasks is None:
        yield
    else:
        with _SomeTasks(tasks):
            yield


class _SomeTasks(Messenger):
    def __init__(self, tasks: Tensor) -> None:
        super().__init__()
        self.tasks = tasks

    def _pyro_sample(self, msg: Any) -> None:
        # A plate asks for its indices in a site that has its name.
        if msg["name"] != TASK_PLATE or type(msg["fn"]).__name__ != "_Subsample":
            return
        if msg["fn"].subsample_size not in (None, len(self.tasks)):
            raise ValueError(
                f"Plate {TASK_PLATE!r} takes {msg['fn'].subsample_size} tasks of its own accord, "
                f"as in Pyro's autoguides, expected the {len(self.tasks)} of this part of the "
                "step. Fit without `tasks`, or with a guide such as MeanFieldNormal."
            )
        msg["value"] = self.tasks


def of_plate(data: TaskData) -> TaskData:
    """Take the rows of those tasks that the enclosing plate ``task`` has, at dimension -2.

    Examples
    --------
    >>> data = TaskData.regression(torch.zeros(4, 1), torch.zeros(4), ["a", "b", "b", "c"])
    >>> with pyro.plate("task", 3, subsample=torch.tensor([0, 2]), dim=-2):
    ...     of_plate(data).mask.tolist()
    [[True, False], [True, False]]
    """
    mask = pyro.subsample(data.mask, event_dim=0)
    if mask is data.mask:
        return data
    return replace(
        data,
        x=pyro.subsample(data.x, event_dim=1),
        y=None if data.y is None else pyro.subsample(data.y, event_dim=0),
        mask=mask,
        row=pyro.subsample(data.row, event_dim=0),
    )


def sample_of_plate(site: str, posterior: dist.Independent) -> Tensor:
    """Sample a site of a guide for those tasks that the enclosing plate ``task`` has.

    Where these are not all, sharing still finds its sources in all.

    Parameters
    ----------
    site
        Name of the site.
    posterior
        Normal with the posterior of every task, batch shape (T, ...).
    """
    event_dim, normal = len(posterior.event_shape), posterior.base_dist
    loc = pyro.subsample(normal.loc, event_dim=event_dim)
    some, infer = posterior, {}
    if loc is not normal.loc:
        scale = pyro.subsample(normal.scale, event_dim=event_dim)
        some = dist.Normal(loc, scale).to_event(event_dim)
        infer = {"sources": lambda: posterior}
    value: Tensor = pyro.sample(site, some, infer=infer)
    return value
