"""Folds of the rows of every task: to fit on some, and to look at predictions of the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pyro_vmtl.data.task_data import TaskData

__all__ = ["at_most", "folds", "needed_folds"]


def folds(
    data: TaskData, num_folds: int, *, seed: int = 0, enough: int | None = None
) -> Iterator[tuple[TaskData, TaskData]]:
    """Split the rows into folds, each held out once.

    Every task is dealt out evenly, and in it every class. A task with a single row has none to
    learn from while that is held out.

    Parameters
    ----------
    data
        Rows with their targets.
    num_folds
        At least 2; with fewer rows than that, one row to a fold.
    seed
        Seed of the order in which rows are dealt out.
    enough
        Rows held out that are enough: no more folds are given once there are so many, and of a
        larger fold about so many only, the same part of every task, drawn at random.

    Yields
    ------
    tuple of TaskData
        The other rows, to fit, and the rows held out, each with all tasks. In each ``row`` counts
        from 0; counterparts (:func:`~pyro_vmtl.attend`) are to be found anew.

    Examples
    --------
    >>> data = TaskData.regression([[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0], ["a", "a", "b"])
    >>> [(int(train.mask.sum()), int(held.mask.sum())) for train, held in folds(data, 3)]
    [(2, 1), (2, 1), (2, 1)]
    """
    total = int(data.mask.sum())
    fold = _deal(data, min(num_folds, total), seed)
    part = 1.0 if enough is None else enough * num_folds / total
    generator = torch.Generator().manual_seed(seed)
    for k in range(needed_folds(data, num_folds, enough=enough)):
        held = _some(data.mask & (fold == k), part, generator)
        yield _rows(data, data.mask & (fold != k)), _rows(data, held)


def needed_folds(data: TaskData, num_folds: int, *, enough: int | None = None) -> int:
    """Give how many folds :func:`folds` gives."""
    total = int(data.mask.sum())
    needed = min(num_folds, total)
    return needed if enough is None else min(needed, -(-enough * num_folds // total))


def at_most(data: TaskData, num_rows: int, *, seed: int = 0) -> TaskData:
    """Take about so many rows where there are more, the same part of every task, at random."""
    part = num_rows / int(data.mask.sum())
    if part >= 1:
        return data
    return _rows(data, _some(data.mask, part, torch.Generator().manual_seed(seed)))


def _some(chosen: Tensor, part: float, generator: torch.Generator) -> Tensor:
    """Keep a part of the chosen rows, (T, N), of each task, at equal distances from one another.

    Each is kept with the same probability, because the first distance is random.
    """
    if part >= 1:
        return chosen
    first = torch.rand(len(chosen), 1, generator=generator, dtype=torch.float64)
    steps = (chosen.cumsum(1) * part + first.to(chosen.device)).long()
    before = torch.cat([torch.zeros_like(steps[:, :1]), steps[:, :-1]], dim=1)
    return chosen & (steps > before)


def _deal(data: TaskData, num_folds: int, seed: int) -> Tensor:
    """Give the fold of every row, (T, N).

    Rows of a class in a task are dealt out evenly. What is left over goes to the folds that have
    the fewest left-over rows of the task, and among these of the class, so that a class with one
    row in each task is not held out of all tasks at once.
    """
    rng = np.random.RandomState(seed)
    fold = np.zeros(data.mask.shape, dtype=int)
    mask = data.mask.cpu().numpy()
    label = np.zeros_like(fold)
    if data.classes is not None and data.y is not None:
        label = data.y.cpu().numpy()
    of_class = np.zeros((data.num_classes, num_folds))
    for t in range(data.num_tasks):
        of_task = np.zeros(num_folds)
        for c in rng.permutation(data.num_classes):
            rows = rng.permutation(np.flatnonzero(mask[t] & (label[t] == c)))
            even, left = divmod(len(rows), num_folds)
            fewest = np.lexsort((rng.rand(num_folds), of_class[c], of_task))[:left]
            fold[t, rows] = np.concatenate([np.tile(np.arange(num_folds), even), fewest])
            of_task[fewest] += 1
            of_class[c, fewest] += 1
    return torch.as_tensor(fold, device=data.mask.device)


def _rows(data: TaskData, chosen: Tensor) -> TaskData:
    """Take the chosen rows, (T, N), of every task."""
    counts = chosen.sum(1)
    index = (~chosen).int().argsort(dim=1, stable=True)[:, : max(1, int(counts.max()))]
    mask = torch.arange(index.shape[1], device=index.device) < counts[:, None]
    taken = data.take(index, mask)
    assert taken.y is not None
    # Counterparts may be made of rows that are held out here, so there are none.
    # What is taken is a copy, and another would be the most memory that a stack needs.
    x, y = taken.x.mul_(mask[..., None]), taken.y.mul_(mask)
    return replace(taken, x=x, y=y, row=_numbered(mask), attended=None)


def _numbered(mask: Tensor) -> Tensor:
    """Number rows from 0 on, as if they were all that the user gave."""
    row = torch.full(mask.shape, -1, device=mask.device)
    row[mask] = torch.arange(int(mask.sum()), device=mask.device)
    return row
