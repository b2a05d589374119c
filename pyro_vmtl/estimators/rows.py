"""Laying rows out by tasks: all of them for a fit, and some after the other for predictions."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.utils import gen_batches
from torch import Tensor

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.estimators.notices import DataNotice

__all__ = ["Window", "canonical_order", "capped", "laid_out", "template", "windows"]

MOST_PADDED = 250_000_000
"""Numbers in padded rows, 1 GB: with very unequal tasks, padding is nearly all of them."""

FEW_TASKS = 256
"""So many are predicted together, also where only some have rows."""

MOST_AT_ONCE = 20_000_000
"""Numbers that predictions of a window may have, over all draws."""


def capped(
    labels: Sequence[Hashable], used: np.ndarray, num_features: int, *, seed: int
) -> np.ndarray:
    """Choose the rows to fit: all that can be used, unless a few tasks are far longer than others.

    Tasks are padded to the longest. Where that would not fit into memory, the longest are cut to
    rows drawn at random, and the user is told. Such a task has far more rows than it needs.

    Parameters
    ----------
    labels
        (rows,), their tasks.
    used
        (rows,), can a row be used?
    num_features
        F.
    seed
        Seed of the choice.

    Returns
    -------
    ndarray
        Indices of rows, in ascending order.
    """
    rows = np.flatnonzero(used)
    index: dict[Hashable, int] = {}
    task = np.array([index.setdefault(labels[row], len(index)) for row in rows.tolist()], dtype=int)
    counts = np.bincount(task)
    most = max(
        MOST_PADDED // (len(index) * (num_features + 1)), 2 * len(rows) // max(len(index), 1), 1
    )
    if not len(rows) or counts.max() <= most:
        return rows
    order = np.random.RandomState(seed).permutation(len(rows))
    order = order[np.argsort(task[order], kind="stable")]
    place = np.arange(len(rows)) - (np.cumsum(counts) - counts)[task[order]]
    long = [label for label, t in index.items() if counts[t] > most]
    named = ", ".join(f"{label!r} ({counts[index[label]]})" for label in long[:5])
    warnings.warn(
        f"{most} rows, drawn at random, are used of each of {len(long)} long tasks, as all tasks "
        f"are padded to the longest: {named}{' and more' if len(long) > 5 else ''}.",
        DataNotice,
        stacklevel=4,
    )
    return np.sort(rows[order[place < most]])


def canonical_order(
    x: Tensor, targets: Tensor, labels: Sequence[Hashable], weight: np.ndarray | None = None
) -> tuple[np.ndarray, dict[Hashable, int]]:
    """Order tasks and rows by what is in them, not by their names or places.

    Random numbers belong to places. In this order, a fit does not change when rows are permuted or
    tasks are renamed.

    Parameters
    ----------
    x
        (rows, F), scaled features.
    targets
        (rows,), indices of classes or scaled real targets.
    labels
        (rows,), their tasks.
    weight
        (rows,), how much each row counts.

    Returns
    -------
    tuple
        Indices of rows, and the tasks with their numbers of rows, those that count most first.
    """
    index: dict[Hashable, int] = {}
    task = np.array([index.setdefault(label, len(index)) for label in labels])
    direction = torch.from_numpy(np.random.RandomState(0).normal(size=x.shape[1] + 1))
    key = torch.empty(len(x), dtype=torch.float64)
    for rows in gen_batches(len(x), 50_000):
        key[rows] = x[rows].double() @ direction[1:] + targets[rows].double() * direction[0]
    of_row = key.numpy()
    order = np.lexsort((of_row, task))
    counts = np.bincount(task)
    starts = np.cumsum(counts) - counts
    each = np.ones(len(task)) if weight is None else weight
    total, sums = (np.add.reduceat(v[order], starts) for v in (each, each * of_row))
    tasks = np.lexsort((sums / total, -total))
    rank = np.empty_like(tasks)
    rank[tasks] = np.arange(len(tasks))
    known = list(index)
    return np.lexsort((of_row, rank[task])), {known[t]: int(counts[t]) for t in tasks}


def laid_out(
    x: Tensor,
    targets: Tensor | None,
    labels: Sequence[Hashable],
    task_labels: tuple[Hashable, ...],
    num_classes: int | None,
    weight: np.ndarray | None = None,
) -> TaskData:
    """Lay out rows of tasks in a given order, with an intercept.

    Parameters
    ----------
    x
        (rows, F), scaled features.
    targets
        (rows,), indices of classes or scaled real targets; None where they are not known.
    labels
        (rows,), their tasks.
    task_labels
        All tasks.
    num_classes
        C; None for real targets.
    weight
        (rows,), how much each row counts.
    """
    like = template(x.shape[1], task_labels, num_classes, device="cpu")
    data = like.new_rows(x, labels, targets)
    if weight is None:
        return data
    of_row = torch.as_tensor(weight, dtype=x.dtype)
    return replace(data, weight=of_row[data.row.clamp(min=0)] * data.mask)


def template(
    num_features: int, task_labels: tuple[Hashable, ...], num_classes: int | None, *, device: str
) -> TaskData:
    """Make rows of zeros, of every task and class, that have the form of those of a fit.

    Parameters
    ----------
    num_features
        F, without the intercept.
    task_labels
        The T tasks.
    num_classes
        C; None for real targets.
    device
        Where they are.
    """
    shape = len(task_labels), -(-(num_classes or 1) // len(task_labels))
    row = torch.arange(shape[0] * shape[1]).reshape(shape)
    return TaskData(
        x=torch.zeros(*shape, num_features + 1),
        y=torch.zeros(shape) if num_classes is None else row % num_classes,
        mask=torch.ones(shape, dtype=torch.bool),
        row=row,
        task_labels=task_labels,
        classes=None if num_classes is None else tuple(range(num_classes)),
        intercept=True,
    ).to(device)


@dataclass(frozen=True, eq=False)
class Window:
    """Rows that are predicted together.

    Attributes
    ----------
    rows
        indices of the user's rows.
    labels
        their tasks.
    task_labels
        all tasks of the fit; for rows of new tasks that one.
    tasks
        (B,), indices of the tasks to predict; None for rows of new tasks.
    """

    rows: np.ndarray
    labels: list[Hashable]
    task_labels: tuple[Hashable, ...]
    tasks: Tensor | None

    def lay_out(self, x: Tensor, num_classes: int | None) -> TaskData:
        """Lay out their features, (rows, F)."""
        return laid_out(x, None, self.labels, self.task_labels, num_classes)


def windows(
    labels: Sequence[Hashable], task_labels: tuple[Hashable, ...], num_features: int, cost: int
) -> Iterator[Window]:
    """Cut rows into windows: the first rows of every task, the next, and so on.

    Parameters
    ----------
    labels
        (rows,), their tasks.
    task_labels
        The tasks of the fit; rows of others are taken for those of new ones.
    num_features
        F.
    cost
        Numbers that a row's prediction has.

    Yields
    ------
    Window
        Each row is in one.
    """
    index = {label: t for t, label in enumerate(task_labels)}
    task = np.array([index.get(label, -1) for label in labels])
    new = np.flatnonzero(task < 0)
    size = max(1, MOST_AT_ONCE // (cost + num_features))
    for start in range(0, len(new), size):
        rows = new[start : start + size]
        yield Window(rows, ["new"] * len(rows), ("new",), None)
    order = np.argsort(task, kind="stable")[len(new) :]
    counts = np.bincount(task[order], minlength=len(task_labels))
    place = np.arange(len(order)) - (np.cumsum(counts) - counts)[task[order]]
    start = 0
    while len(order) and start < counts.max():
        present = np.flatnonzero(counts > start)
        if len(task_labels) <= FEW_TASKS:  # all, so that draws do not depend on who is asked for
            present = np.arange(len(task_labels))
        numbers = len(present) * cost + len(task_labels) * num_features
        size = max(1, MOST_AT_ONCE // numbers)
        rows = np.sort(order[(place >= start) & (place < start + size)])
        chosen = torch.from_numpy(present)
        yield Window(rows, [labels[row] for row in rows.tolist()], task_labels, chosen)
        start += size
