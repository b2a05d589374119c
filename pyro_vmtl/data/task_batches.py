"""Batches of tasks: which tasks go through the programs together at each step of a fit.

A step on all T tasks compares each of them with all sources, T x T numbers, and pads all to the
longest. On some tasks at a time it needs less memory; their sources are still all other tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from pyro_vmtl.data.arrays import check_positive
from pyro_vmtl.data.task_data import TaskData

__all__ = ["Part", "RandomTasks", "TaskBatches", "TaskBlocks", "first_rows"]

BLOCK_COST = 2e6
"""Numbers of padded rows that take as long as an additional block."""


@dataclass(frozen=True)
class Part:
    """Tasks that go through a step together, and the number of rows of the longest of them."""

    tasks: Tensor  # (B,), in ascending order, on the device of the rows
    num_rows: int


TaskBatches = Callable[[TaskData], Iterator[list[Part]]]
"""Yields, for the rows of all tasks, the parts of one step after the other."""


@dataclass(frozen=True)
class RandomTasks:
    """Random tasks at each step, drawn without replacement.

    Each counts as T / ``num_tasks``, so that the ELBO of a step is an unbiased estimate of that of
    all tasks.

    Parameters
    ----------
    num_tasks
        Number of tasks in a step; all of them where there are fewer.

    See Also
    --------
    TaskBlocks : All tasks at each step, in less memory.

    Examples
    --------
    >>> data = TaskData.regression(torch.zeros(9, 1), torch.zeros(9), range(9))
    >>> [part] = next(RandomTasks(3)(data))
    >>> part.tasks.shape
    torch.Size([3])
    """

    num_tasks: int

    def __post_init__(self) -> None:
        check_positive(num_tasks=self.num_tasks)

    def __call__(self, data: TaskData) -> Iterator[list[Part]]:
        """Yield the parts of each step."""
        while True:
            tasks = torch.randperm(data.num_tasks, device=data.x.device)[: self.num_tasks]
            yield [Part(tasks.sort().values, data.num_rows)]


@dataclass(frozen=True)
class TaskBlocks:
    """All tasks at each step, block by block: the same step in less memory.

    Tasks of very unequal sizes go into different blocks, each padded to its longest task, where
    that saves more time than another block costs.

    Parameters
    ----------
    num_tasks
        Maximum number of tasks in a block.

    See Also
    --------
    RandomTasks : Only some of the tasks at each step.

    Examples
    --------
    >>> data = TaskData.regression(torch.zeros(9, 1), torch.zeros(9), range(9))
    >>> [part.tasks.tolist() for part in next(TaskBlocks(5)(data))]
    [[0, 1, 2, 3, 4], [5, 6, 7, 8]]
    """

    num_tasks: int

    def __post_init__(self) -> None:
        check_positive(num_tasks=self.num_tasks)

    def __call__(self, data: TaskData) -> Iterator[list[Part]]:
        """Yield the parts of each step."""
        counts = data.mask.sum(1).cpu()
        by_size = counts.argsort(descending=True, stable=True)
        parts = []
        for block in _split_by_size(by_size, counts, BLOCK_COST / data.num_features):
            for tasks in block.tensor_split(-(-len(block) // self.num_tasks)):
                num_rows = max(1, int(counts[tasks].max()))
                parts.append(Part(tasks.sort().values.to(data.x.device), num_rows))
        return repeat(parts)


def _split_by_size(tasks: Tensor, counts: Tensor, cost: float) -> list[Tensor]:
    """Split tasks, sorted from the longest, where that saves more than ``cost`` padded rows."""
    rows = counts[tasks]
    saved = torch.arange(len(tasks), 0, -1) * (rows[0] - rows)
    place = int(saved.argmax())
    if saved[place] <= cost:
        return [tasks]
    halves = tasks[:place], tasks[place:]
    return [block for half in halves for block in _split_by_size(half, counts, cost)]


def first_rows(data: TaskData, num_rows: int) -> TaskData:
    """Select the first rows of every task, to leave padding out."""
    if num_rows >= data.num_rows:
        return data
    return data.map_rows(lambda values: values[:, :num_rows])
