"""Folds of the rows of every task: to fit on some, and to look at predictions of the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pyro_vmtl.data import TaskData
from pyro_vmtl.isolated import isolated

__all__ = ["folds"]


def folds(data: TaskData, num_folds: int, *, seed: int = 0) -> Iterator[tuple[TaskData, TaskData]]:
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

    Yields
    ------
    tuple of TaskData
        The other rows, to fit, and the rows held out, each with all tasks.

    Examples
    --------
    >>> data = TaskData.regression([[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0], ["a", "a", "b"])
    >>> [(int(train.mask.sum()), int(held.mask.sum())) for train, held in folds(data, 3)]
    [(2, 1), (2, 1), (2, 1)]
    """
    fold = _deal(data, num_folds, seed)
    for k in range(min(num_folds, int(data.mask.sum()))):
        yield _rows(data, data.mask & (fold != k)), _rows(data, data.mask & (fold == k))


def _deal(data: TaskData, num_folds: int, seed: int) -> Tensor:
    """Give the fold of every row, (T, N): one after the other, by task and class."""
    with isolated(seed):
        shuffled = torch.rand(data.mask.shape)
    task = torch.arange(data.num_tasks)[:, None].expand(data.mask.shape)
    label = torch.zeros_like(task)
    if data.classes is not None and data.y is not None:
        label = data.y.cpu()
    # Keys are sorted from the last to the first, each sort keeping the order of the one before.
    order = shuffled.flatten().argsort()
    for key in (label, task, (~data.mask).cpu().int()):
        order = order[key.flatten()[order].argsort(stable=True)]
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order)) % num_folds
    return fold.reshape(data.mask.shape).to(data.mask.device)


def _rows(data: TaskData, chosen: Tensor) -> TaskData:
    """Take the chosen rows, (T, N), of every task."""
    counts = chosen.sum(1)
    index = (~chosen).int().argsort(dim=1, stable=True)[:, : max(1, int(counts.max()))]
    mask = torch.arange(index.shape[1], device=index.device) < counts[:, None]
    taken = data.take(index, mask)
    return replace(taken, x=taken.x * mask[..., None].to(taken.x))  # padding is zero
