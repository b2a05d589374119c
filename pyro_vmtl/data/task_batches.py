"""Some tasks at a time: a step need not hold all pairs of tasks, nor pad all to the longest.

A step on all T tasks compares all of them with all sources, T x T numbers. Here the programs run on
some tasks only, whose sources are still all others. In a program that is Pyro's own subsampling:
the plate ``task`` holds some tasks, scales what they add to the loss, and ``pyro.subsample`` takes
their part of what there is for every task.
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
"""Numbers of padded rows that take as long as another block does."""

MOST_PLACES = 64
"""Places to look at for cuts between tasks."""


@dataclass(frozen=True)
class Part:
    """Tasks that go through a step together.

    Attributes
    ----------
    tasks
        (B,), indices in ascending order, on the device of the rows.
    num_rows
        Rows of the longest of them.
    """

    tasks: Tensor
    num_rows: int


TaskBatches = Callable[[TaskData], Iterator[list[Part]]]
"""Gives, for the rows of all tasks, the parts of one step after the other."""


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
    >>> data = TaskData.regression(torch.zeros(9, 1), torch.zeros(9), range(9))
    >>> [part] = next(RandomTasks(3)(data))
    >>> part.tasks.shape
    torch.Size([3])
    """

    num_tasks: int

    def __post_init__(self) -> None:
        """Check the number."""
        check_positive(num_tasks=self.num_tasks)

    def __call__(self, data: TaskData) -> Iterator[list[Part]]:
        """Draw the tasks of each step."""
        while True:
            tasks = torch.randperm(data.num_tasks, device=data.x.device)[: self.num_tasks]
            yield [Part(tasks.sort().values, data.num_rows)]


@dataclass(frozen=True)
class TaskBlocks:
    """All tasks at each step, block by block: the same step in less memory.

    Tasks of very unequal sizes go into blocks of their own, each padded to its longest task, where
    that saves more than another block costs.

    Parameters
    ----------
    num_tasks
        The most tasks in a block.

    Examples
    --------
    >>> data = TaskData.regression(torch.zeros(9, 1), torch.zeros(9), range(9))
    >>> [part.tasks.tolist() for part in next(TaskBlocks(5)(data))]
    [[0, 1, 2, 3, 4], [5, 6, 7, 8]]
    """

    num_tasks: int

    def __post_init__(self) -> None:
        """Check the number."""
        check_positive(num_tasks=self.num_tasks)

    def __call__(self, data: TaskData) -> Iterator[list[Part]]:
        """Give the same blocks for each step."""
        counts = data.mask.sum(1).cpu()
        order = counts.argsort(descending=True, stable=True)
        blocks = []
        for alike in order.tensor_split(_cuts(counts[order].tolist(), data.num_features)):
            for block in alike.tensor_split(-(-len(alike) // self.num_tasks)):
                tasks = block.sort().values.to(data.x.device)
                blocks.append(Part(tasks, max(1, int(counts[block].max()))))
        return repeat(blocks)


def _cuts(counts: list[int], num_features: int) -> list[int]:
    """Find where to cut tasks, from the longest to the shortest, into blocks of similar sizes.

    A block costs the numbers that its padded rows hold, and ``BLOCK_COST``. The cheapest cuts of
    the first tasks follow from those of fewer tasks (dynamic programming).
    """
    places = [0, *(t for t in range(1, len(counts)) if counts[t] < counts[t - 1]), len(counts)]
    if len(places) > MOST_PLACES:
        places = [places[i * (len(places) - 1) // MOST_PLACES] for i in range(MOST_PLACES + 1)]
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}
    for i, end in enumerate(places[1:], start=1):
        best[end] = min(
            (
                best[start][0] + BLOCK_COST + (end - start) * counts[start] * num_features,
                [*best[start][1], start],
            )
            for start in places[:i]
        )
    return best[len(counts)][1][1:]


def first_rows(data: TaskData, num_rows: int) -> TaskData:
    """Leave padding out: the first rows of every task."""
    if num_rows >= data.num_rows:
        return data
    return data.map_rows(lambda values: values[:, :num_rows])
