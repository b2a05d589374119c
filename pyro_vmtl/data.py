"""Rows of many tasks in one padded container.

Tasks have different numbers of rows. Models want one batched product over all of them, so the
rows are laid out as ``(T, N, F)``: task, row within the task, feature. Tasks shorter than the
longest are padded, and a mask says which rows are real. The user's own task and class labels
are kept to the end.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["TaskData"]


@dataclass(frozen=True, eq=False)
class TaskData:
    """Rows of ``T`` tasks, padded to ``N`` rows each.

    Make one with :meth:`classification`, :meth:`regression` or, for rows to predict,
    :meth:`features`.

    Attributes
    ----------
    x
        (T, N, F), features; zero where padded.
    y
        (T, N), targets: class indices (int64) or real values; zero where padded. None for rows
        whose target is not known.
    mask
        (T, N), True where there is a real row.
    row
        (T, N), position of each row in the arrays the user gave; -1 where padded.
    task_labels
        the user's labels of the tasks, in the order of the first dimension.
    classes
        the user's labels of the classes, in the order of the indices in ``y``; None for
        regression.

    Examples
    --------
    >>> X = [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    >>> data = TaskData.classification(X, ["cat", "dog", "cat"], tasks=["home", "zoo", "zoo"])
    >>> data.x.shape, data.task_labels, data.classes
    (torch.Size([2, 2, 2]), ('home', 'zoo'), ('cat', 'dog'))
    >>> data.mask.tolist()
    [[True, False], [True, True]]
    """

    x: Tensor
    y: Tensor | None
    mask: Tensor
    row: Tensor
    task_labels: tuple[Hashable, ...]
    classes: tuple[Hashable, ...] | None = None

    @classmethod
    def classification(
        cls,
        X: Any,
        y: Sequence[Hashable] | np.ndarray | Tensor,
        tasks: Sequence[Hashable] | np.ndarray,
        *,
        classes: Sequence[Hashable] | None = None,
    ) -> TaskData:
        """Lay out labelled rows for classification.

        Parameters
        ----------
        X
            (rows, F), features.
        y
            (rows,), class labels of any hashable kind.
        tasks
            (rows,), task labels of any hashable kind. Tasks keep the order of first appearance.
        classes
            All classes in the wanted order; by default those found in ``y``, sorted where they
            can be sorted.

        Raises
        ------
        ValueError
            If lengths disagree, a feature is not finite, or ``y`` holds a class that is not in
            ``classes``.
        """
        labels = _labels(y, "y")
        classes = tuple(classes) if classes is not None else _sorted_unique(labels)
        index = {label: i for i, label in enumerate(classes)}
        for row, label in enumerate(labels):
            if label not in index:
                raise ValueError(
                    f"y has class {label!r} in row {row}, expected one of {list(classes)}. "
                    "Add it to `classes=` or drop the row."
                )
        targets = torch.tensor([index[label] for label in labels], dtype=torch.int64)
        return _padded(X, targets, tasks, classes=classes)

    @classmethod
    def regression(cls, X: Any, y: Any, tasks: Sequence[Hashable] | np.ndarray) -> TaskData:
        """Lay out rows with real targets.

        Parameters
        ----------
        X
            (rows, F), features.
        y
            (rows,), real targets.
        tasks
            (rows,), task labels of any hashable kind. Tasks keep the order of first appearance.

        Raises
        ------
        ValueError
            If lengths disagree, or a feature or target is not finite.
        """
        targets = _real(y, "y", ndim=1)
        _check_finite(targets[:, None], _labels(tasks, "tasks"), "y")
        return _padded(X, targets, tasks)

    def features(self, X: Any, tasks: Sequence[Hashable] | np.ndarray) -> TaskData:
        """Lay out rows without targets for the tasks and classes of these data.

        Raises
        ------
        ValueError
            If a task is unknown here, lengths disagree, or ``X`` has another number of features.
        """
        new = _padded(X, None, tasks, task_labels=self.task_labels, classes=self.classes)
        if new.num_features != self.num_features:
            raise ValueError(
                f"X has {new.num_features} columns, expected {self.num_features} as in the "
                "training rows."
            )
        return new

    @property
    def num_tasks(self) -> int:
        """T, the number of tasks."""
        return self.x.shape[0]

    @property
    def num_rows(self) -> int:
        """N, the number of rows of the longest task."""
        return self.x.shape[1]

    @property
    def num_features(self) -> int:
        """F, the number of features."""
        return self.x.shape[2]

    @property
    def num_classes(self) -> int:
        """C, the number of classes; 1 for regression."""
        return 1 if self.classes is None else len(self.classes)

    def with_intercept(self) -> TaskData:
        """Append a feature that is 1 in every row, so that linear models have an intercept."""
        return replace(self, x=torch.cat([self.x, self.mask[..., None].to(self.x)], dim=-1))

    def without_targets(self) -> TaskData:
        """Forget the targets: a model run on these rows draws them."""
        return replace(self, y=None)

    def to(self, device: torch.device | str) -> TaskData:
        """Copy the rows to a device."""
        return replace(
            self,
            x=self.x.to(device),
            y=None if self.y is None else self.y.to(device),
            mask=self.mask.to(device),
            row=self.row.to(device),
        )

    def unpad(self, values: Tensor) -> Tensor:
        """Take (T, N, ...) values back to the order of the user's rows.

        Parameters
        ----------
        values
            (T, N, ...), one value per padded row.

        Returns
        -------
        Tensor
            (rows, ...), one value per row the user gave.
        """
        flat = values[self.mask]
        out = torch.empty_like(flat)
        out[self.row[self.mask]] = flat
        return out


def _padded(
    X: Any,
    targets: Tensor | None,
    tasks: Sequence[Hashable] | np.ndarray,
    *,
    task_labels: tuple[Hashable, ...] | None = None,
    classes: tuple[Hashable, ...] | None = None,
) -> TaskData:
    x = _real(X, "X", ndim=2)
    labels = _labels(tasks, "tasks")
    for name, values in (("tasks", labels), ("y", targets)):
        if values is not None and len(values) != len(x):
            raise ValueError(f"{name} has {len(values)} rows, expected {len(x)} as in X.")
    if not len(x):
        raise ValueError("X has no rows, expected at least one.")
    _check_finite(x, labels, "X")

    if task_labels is None:
        task_labels = tuple(dict.fromkeys(labels))
    index = {label: t for t, label in enumerate(task_labels)}
    for row, label in enumerate(labels):
        if label not in index:
            raise ValueError(
                f"tasks has {label!r} in row {row}, which is not among the tasks of the training "
                f"rows, {list(task_labels)}."
            )
    task = torch.tensor([index[label] for label in labels])
    counts = torch.bincount(task, minlength=len(task_labels))
    order = torch.argsort(task, stable=True)
    starts = counts.cumsum(0) - counts
    task = task[order]
    position = torch.arange(len(order)) - starts[task]

    shape = (len(task_labels), int(counts.max()))
    row_at = torch.full(shape, -1)
    row_at[task, position] = order
    padded_x = x.new_zeros(*shape, x.shape[1])
    padded_x[task, position] = x[order]
    padded_y = None
    if targets is not None:
        padded_y = targets.new_zeros(shape)
        padded_y[task, position] = targets[order]
    return TaskData(padded_x, padded_y, row_at >= 0, row_at, task_labels, classes)


def _real(values: Any, name: str, ndim: int) -> Tensor:
    """Real values as a float tensor of torch's default type (float64 tensors stay so)."""
    if isinstance(values, Tensor):
        tensor = values.detach()
        if not tensor.is_floating_point():
            tensor = tensor.to(torch.get_default_dtype())
    else:
        try:
            array = np.array(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} has values that are not numbers ({error}).") from error
        tensor = torch.as_tensor(array, dtype=torch.get_default_dtype())
    if tensor.ndim != ndim:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, expected {ndim} dimension(s): "
            f"{'(rows, features)' if ndim == 2 else '(rows,)'}."
        )
    return tensor


def _labels(values: Any, name: str) -> list[Hashable]:
    """Labels as plain Python objects, so that they hash and print as the user's own."""
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise ValueError(f"{name} is {type(values).__name__}, expected one label per row.")
    labels = values.tolist() if hasattr(values, "tolist") else list(values)
    for row, label in enumerate(labels):
        if label is None or label != label:
            raise ValueError(f"{name} has no label in row {row}. Fill it in or drop the row.")
        if not isinstance(label, Hashable):
            raise ValueError(
                f"{name} has {label!r} in row {row}, expected a hashable label such as a string."
            )
    return labels


def _check_finite(values: Tensor, tasks: list[Hashable], name: str) -> None:
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        task = f" (task {tasks[row]!r})" if row < len(tasks) else ""
        where = f"row {row}, column {column}" if name == "X" else f"row {row}"
        raise ValueError(
            f"{name} has {values[row, column].item()} in {where}{task}, expected a finite number. "
            "Impute or drop it."
        )


def _sorted_unique(labels: list[Hashable]) -> tuple[Hashable, ...]:
    unique = dict.fromkeys(labels)
    try:
        return tuple(sorted(unique))  # type: ignore[type-var]
    except TypeError:  # labels of mixed kinds have no order of their own
        return tuple(unique)
