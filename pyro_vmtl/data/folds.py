"""Cross-validation folds and random subsets of the rows of every task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pyro_vmtl.data.task_data import TaskData

__all__ = ["folds", "keep_rows", "needed_folds", "subsample_rows"]


def folds(
    data: TaskData,
    num_folds: int,
    *,
    seed: int = 0,
    enough: int | None = None,
    most: int | None = None,
) -> Iterator[tuple[TaskData, TaskData]]:
    """Split the rows into folds, stratified by task and class, each held out once.

    A task with a single row has none to learn from while that is held out.

    Parameters
    ----------
    data
        Rows with their targets.
    num_folds
        Number of folds, at least 2; with fewer rows than that, one row per fold.
    seed
        Seed of the assignment of rows to folds.
    enough
        Number of held-out rows that suffices: no more folds are yielded once it is reached.
    most
        Number of rows above which only about so many are held out of a single fold, the same
        fraction of every task at random.

    Yields
    ------
    tuple of TaskData
        The other rows, to fit, and the rows held out, each with all tasks. In each, ``row`` counts
        from 0 and there are no counterparts (call :func:`~pyro_vmtl.attend` again).

    Examples
    --------
    >>> data = TaskData.regression([[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0], ["a", "a", "b"])
    >>> [(int(train.mask.sum()), int(held.mask.sum())) for train, held in folds(data, 3)]
    [(2, 1), (2, 1), (2, 1)]
    """
    total = int(data.mask.sum())
    fold = _assign_folds(data, min(num_folds, total), seed)
    fraction = 1.0 if most is None else most * num_folds / total
    generator = torch.Generator().manual_seed(seed)
    for k in range(needed_folds(data, num_folds, enough=enough)):
        held = _thin(data.mask & (fold == k), fraction, generator)
        yield keep_rows(data, data.mask & (fold != k)), keep_rows(data, held)


def needed_folds(data: TaskData, num_folds: int, *, enough: int | None = None) -> int:
    """Return how many folds :func:`folds` yields."""
    total = int(data.mask.sum())
    needed = min(num_folds, total)
    return needed if enough is None else min(needed, -(-enough * num_folds // total))


def subsample_rows(data: TaskData, num_rows: int, *, seed: int = 0) -> TaskData:
    """Select at most about ``num_rows`` rows at random, the same fraction of every task."""
    fraction = num_rows / int(data.mask.sum())
    if fraction >= 1:
        return data
    return keep_rows(data, _thin(data.mask, fraction, torch.Generator().manual_seed(seed)))


def _thin(chosen: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Keep a fraction of the chosen rows, (T, N), of each task, by systematic sampling."""
    if fraction >= 1:
        return chosen
    start = torch.rand(len(chosen), 1, generator=generator, dtype=torch.float64)
    steps = (chosen.cumsum(1) * fraction + start.to(chosen.device)).long()
    before = torch.cat([torch.zeros_like(steps[:, :1]), steps[:, :-1]], dim=1)
    return chosen & (steps > before)


def _assign_folds(data: TaskData, num_folds: int, seed: int) -> Tensor:
    """Assign every row to a fold, (T, N).

    Rows of a class in a task are spread evenly. The remainder goes to the folds with the fewest
    remainders of the task and, among these, of the class, so that a class with one row in each
    task is not held out of all tasks at once.
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
            even, remainder = divmod(len(rows), num_folds)
            fewest = np.lexsort((rng.rand(num_folds), of_class[c], of_task))[:remainder]
            fold[t, rows] = np.concatenate([np.tile(np.arange(num_folds), even), fewest])
            of_task[fewest] += 1
            of_class[c, fewest] += 1
    return torch.as_tensor(fold, device=data.mask.device)


def keep_rows(data: TaskData, chosen: Tensor) -> TaskData:
    """Select the chosen rows, (T, N), of every task, and number them from 0."""
    counts = chosen.sum(1)
    index = (~chosen).int().argsort(dim=1, stable=True)[:, : max(1, int(counts.max()))]
    mask = torch.arange(index.shape[1], device=index.device) < counts[:, None]
    taken = data.take(index, mask)
    assert taken.y is not None
    # What is taken is a copy, and another would be the most memory that a stack needs.
    x, y = taken.x.mul_(mask[..., None]), taken.y.mul_(mask)
    row = torch.full(mask.shape, -1, device=mask.device)
    row[mask] = torch.arange(int(mask.sum()), device=mask.device)
    # Counterparts may be made of rows that are held out here, so they are dropped.
    return replace(taken, x=x, y=y, row=row, attended=None)
