"""Batches: some rows of every task at each step, weighed so that the ELBO stays right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.program_handler import TASK_PLATE

__all__ = ["BalancedRows", "Batches", "RandomRows", "check_positive", "scaled_rows"]

DATA_PLATE = "data"
"""Name of the plate over the rows of a task in models and guides."""

Batches = Callable[[TaskData], tuple[TaskData, Tensor]]
"""Draws a batch and gives, for each task (T,), the weight of one of its rows."""

SMALL_PART = 8
"""Rows of the longest task per row of a batch from which on the rows are not shuffled anew."""


@dataclass(frozen=True)
class RandomRows:
    """Some rows of every task.

    Each row counts as (rows of the task) / (rows in the batch), so that the ELBO of a batch is an
    unbiased estimate of that of all rows. Rows are drawn without replacement. Where a batch is a
    small part of the longest task, each task is cut into as many equal parts as the batch has rows,
    and one row is drawn of each: all rows need not be sorted for that. A row where two parts meet
    can then be drawn twice.

    Parameters
    ----------
    num_rows
        Rows of each task; all of them where a task has fewer.
    max_total
        The most rows of all tasks together: with many tasks, fewer of each.

    Examples
    --------
    >>> data = TaskData.regression(torch.zeros(12, 1), torch.zeros(12), ["a"] * 10 + ["b"] * 2)
    >>> batch, weight = RandomRows(4)(data)
    >>> batch.mask.sum(1).tolist(), weight.tolist()
    ([4, 2], [2.5, 1.0])
    """

    fixed_graph = True
    num_rows: int
    max_total: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_positive(num_rows=self.num_rows, max_total=self.max_total)

    def __call__(self, data: TaskData) -> tuple[TaskData, Tensor]:
        """Draw a batch and the weight of each task's rows."""
        size = min(self.num_rows, data.num_rows)
        if self.max_total is not None:
            size = max(1, min(size, self.max_total // data.num_tasks))
        if size * SMALL_PART < data.num_rows:
            return _one_of_each_part(data, size)
        index = _shuffled(data)[:, :size]
        mask = data.mask.gather(1, index)
        counts = torch.stack([data.mask.sum(1), mask.sum(1)]).to(data.x)
        return data.take(index, mask), counts[0] / counts[1].clamp(min=1)


@dataclass(frozen=True)
class BalancedRows:
    """As many rows of every class in every task, repeated where a class has fewer.

    The rows of a task together count as one, as in a loss that is a mean over rows. This is how the
    authors' code of VMTL draws its batches.

    Parameters
    ----------
    num_per_class
        Rows of each class in each task.

    Examples
    --------
    >>> X, y = torch.zeros(5, 1), ["cat", "cat", "cat", "dog", "cat"]
    >>> data = TaskData.classification(X, y, ["home"] * 3 + ["zoo"] * 2)
    >>> batch, weight = BalancedRows(2)(data)
    >>> batch.y.tolist(), batch.mask.tolist()
    ([[0, 0, 0, 0], [0, 0, 1, 1]], [[True, True, False, False], [True, True, True, True]])
    >>> weight.tolist()
    [0.5, 0.25]
    """

    fixed_graph = True
    num_per_class: int

    def __post_init__(self) -> None:
        """Check the number."""
        check_positive(num_per_class=self.num_per_class)

    def __call__(self, data: TaskData) -> tuple[TaskData, Tensor]:
        """Draw a batch and the weight of each task's rows."""
        if data.classes is None or data.y is None:
            raise ValueError("BalancedRows needs classes, use RandomRows for real targets.")
        shuffled = _shuffled(data)
        labels = data.y.masked_fill(~data.mask, data.num_classes).gather(1, shuffled)
        by_class = shuffled.gather(1, labels.argsort(dim=1, stable=True))
        counts = labels.new_zeros(data.num_tasks, data.num_classes + 1)
        counts = counts.scatter_add(1, labels, torch.ones_like(labels))[:, :-1, None]
        starts = counts.cumsum(1) - counts
        place = torch.arange(self.num_per_class, device=labels.device) % counts.clamp(min=1)
        place = (starts + place).clamp(max=data.num_rows - 1).flatten(1)
        mask = (counts > 0).expand(-1, -1, self.num_per_class).flatten(1)
        index = by_class.gather(1, place)
        batch = data.take(index, mask)
        batch.y.masked_fill_(~mask, 0)  # type: ignore[union-attr]
        return batch, 1 / mask.sum(1).clamp(min=1).to(data.x)


def check_positive(**numbers: int | None) -> None:
    """Check that numbers of rows or tasks are at least 1, where they are given."""
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}, expected at least 1.")


def _shuffled(data: TaskData) -> Tensor:
    """Positions of each task's rows in random order, the padding last, (T, N)."""
    keys = torch.rand(data.mask.shape, device=data.x.device)
    return keys.masked_fill(~data.mask, 2.0).argsort(dim=1)


def _one_of_each_part(data: TaskData, size: int) -> tuple[TaskData, Tensor]:
    """Draw one row of each of ``size`` equal parts of every task, without sorting all rows.

    A row of a task with n rows is drawn size / n times on average, whatever the rounding: the
    places (j + u) n / size with u uniform from 0 to 1 are uniform from 0 to n.
    """
    # Padding comes last, and a search is much faster than a sum over all rows.
    one = torch.ones(data.num_tasks, 1, dtype=torch.uint8, device=data.x.device)
    counts = torch.searchsorted((~data.mask).view(torch.uint8), one)  # (T, 1)
    part = torch.arange(size, device=data.x.device)
    place = part + torch.rand(data.num_tasks, size, dtype=torch.float64, device=data.x.device)
    index = (place * (counts.double() / size)).long().minimum(counts - 1).clamp(min=0)
    index = torch.where(counts > size, index, part.expand_as(index))
    mask = part < counts
    at = torch.arange(data.num_tasks, device=data.x.device)[:, None], index
    # Whole rows are copied faster than by `take`, which looks up each number.
    batch = data.map_rows(lambda values: values[at])
    batch = replace(batch, mask=mask, row=batch.row.masked_fill(~mask, -1))
    weight = (counts / mask.sum(1, keepdim=True).clamp(min=1)).squeeze(1)
    return batch, weight.to(data.x)


@contextmanager
def scaled_rows(weight: Tensor | None) -> Iterator[None]:
    """Weigh the sites inside the plate over rows.

    Parameters
    ----------
    weight
        (T,), weight of a row of each task, or (T, N), of each row; None for no change.

    Raises
    ------
    ValueError
        If a program that ran in here has no site in a plate ``data``, or an autoguide has numbers
        for every row.
    """
    if weight is None:
        yield
        return
    messenger = _ScaleRows(weight)
    with messenger:
        yield
    if not messenger.met:
        raise ValueError(
            f"The programs have no site in a plate {DATA_PLATE!r}, so that a batch of rows cannot "
            f"be weighed. Sample rows inside `with pyro.plate({DATA_PLATE!r}, N, dim=-1)`."
        )


class _ScaleRows(Messenger):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.met = False

    def _pyro_sample(self, msg: Any) -> None:
        dims = {frame.name: frame.dim for frame in msg["cond_indep_stack"] if frame.vectorized}
        if DATA_PLATE in dims and TASK_PLATE in dims:
            self.met = True
            if msg["infer"].get("is_auxiliary"):
                raise ValueError(
                    f"The guide has numbers of its own for every row at site {msg['name']!r}, as "
                    "Pyro's autoguides do, and rows are weighed. Fit without `batches` and weights "
                    "of rows, or with a guide that makes them from the features, such as "
                    "EncodedNormal."
                )
            # tasks and rows at the places that their plates have
            shape = [1] * -min(dims.values())
            shape[dims[TASK_PLATE]] = self.weight.shape[0]
            if self.weight.ndim == 2:
                shape[dims[DATA_PLATE]] = self.weight.shape[1]
            weight = self.weight.reshape(shape)
            msg["scale"] = msg["scale"] * pyro.subsample(weight, event_dim=0)
