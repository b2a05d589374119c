"""Rows of many tasks in one padded container.

Tasks have different numbers of rows. Models compute one batched product over all of them, so the
rows are arranged as ``(T, N, F)``: task, row within the task, feature. Tasks shorter than the
longest are padded, and a mask marks the real rows. The user's own labels of tasks and classes are
kept throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vmtl.data.arrays import label_index, read_labels, read_targets, sorted_unique
from pyro_vmtl.data.columns import check_columns
from pyro_vmtl.data.padding import pad_arrays

__all__ = ["Attended", "TaskData"]

UNKNOWN_CLASS = (
    "y has class {!r} in row {}, expected one of {}. Add it to `classes=` or drop the row."
)


@dataclass(frozen=True, eq=False)
class Attended:
    """Counterparts of every row in the other tasks, from :func:`~pyro_vmtl.attend`.

    Attributes
    ----------
    x
        (rows, T - 1, F), features of the counterparts, the other tasks in order; rows as in the
        user's arrays. 0 where there is none.
    present
        (rows, T - 1), False where the other task has no row of the class.
    """

    x: Tensor
    present: Tensor

    def of(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features (T, N, T - 1, F) and presence of padded rows (T, N)."""
        return self.x[row], self.present[row]

    def to(self, device: torch.device | str) -> Attended:
        """Copy to a device."""
        return Attended(self.x.to(device), self.present.to(device))


@dataclass(frozen=True, eq=False, repr=False)
class TaskData:
    """Rows of ``T`` tasks, padded to ``N`` rows each.

    Create one with :meth:`classification` or :meth:`regression` and, for other rows of the same
    tasks, :meth:`new_rows`.

    Attributes
    ----------
    x
        (T, N, F), features; zero where padded.
    y
        (T, N), targets: class indices (int64) or real values; zero where padded. None for rows
        whose targets are not known.
    mask
        (T, N), True for real rows, False for padding.
    row
        (T, N), position of each row in the user's arrays; -1 where padded.
    task_labels
        the user's labels of the tasks, in the order of the first dimension.
    classes
        the user's labels of the classes, in the order of the indices in ``y``; None for
        regression.
    weight
        (T, N), weight of each row in a fit; None for equal weights.
    columns
        (T, N, ...) by name, what programs of one's own need to know of a row beside its features:
        an exposure, an offset, whether it is censored. A value of another row where padded.
    intercept
        whether the last feature is the constant 1 of :meth:`with_intercept`.
    attended
        counterparts of each row in the other tasks, from :func:`~pyro_vmtl.attend`.

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
    weight: Tensor | None = None
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    intercept: bool = False
    attended: Attended | None = None

    def __repr__(self) -> str:
        kind = "regression" if self.classes is None else f"{self.num_classes} classes"
        rows = int(self.mask.sum())
        named = f", with {', '.join(self.columns)}" if self.columns else ""
        return (
            f"TaskData({self.num_tasks} tasks, {rows} rows, at most {self.num_rows} a task, "
            f"{self.num_features} features, {kind if self.y is not None else 'no targets'}{named})"
        )

    @classmethod
    def classification(
        cls,
        X: Any,
        y: Sequence[Hashable] | np.ndarray | Tensor,
        tasks: Sequence[Hashable] | np.ndarray,
        *,
        classes: Sequence[Hashable] | None = None,
        sample_weight: Any = None,
        columns: Any = None,
    ) -> TaskData:
        """Create the rows of a classification.

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
        sample_weight
            (rows,), weights of the rows in a fit, at least 0; all 1 by default.
        columns
            What programs of your own read as ``data.columns[name]``: a mapping of names to arrays
            (rows, ...), or a data frame. They are not standardized, and presets ignore them.

        Raises
        ------
        ValueError
            If lengths disagree, a number is not finite, a weight is negative, or ``y`` holds a
            class that is not in ``classes``.
        """
        labels = read_labels(y, "y")
        classes = tuple(classes) if classes is not None else sorted_unique(labels)
        if len(set(classes)) < len(classes):
            raise ValueError(f"classes has a label twice, expected each once: {list(classes)}.")
        targets = label_index(labels, classes, UNKNOWN_CLASS)
        padded = pad_arrays(X, targets, tasks, sample_weight=sample_weight, columns=columns)
        return cls(**padded, classes=classes)

    @classmethod
    def regression(
        cls,
        X: Any,
        y: Any,
        tasks: Sequence[Hashable] | np.ndarray,
        *,
        sample_weight: Any = None,
        columns: Any = None,
    ) -> TaskData:
        """Create rows with real targets.

        Parameters
        ----------
        X, tasks, sample_weight, columns
            As for :meth:`classification`.
        y
            (rows,), real targets.

        Raises
        ------
        ValueError
            If lengths disagree, a number is not finite, or a weight is negative.

        Examples
        --------
        >>> hours = {"exposure": [8.0, 2.0, 5.0]}
        >>> data = TaskData.regression([[0.0]] * 3, [9, 1, 4], ["a", "b", "b"], columns=hours)
        >>> data.columns["exposure"][data.mask]
        tensor([8., 2., 5.])
        """
        targets = read_targets(y, tasks)
        padded = pad_arrays(X, targets, tasks, sample_weight=sample_weight, columns=columns)
        return cls(**padded)

    def new_rows(
        self, X: Any, tasks: Sequence[Hashable] | np.ndarray, y: Any = None, columns: Any = None
    ) -> TaskData:
        """Create other rows of the same tasks and classes, to predict or to test.

        Tasks keep their place, also those without a row here, and the intercept is added where
        these data have one.

        Parameters
        ----------
        X
            (rows, F), features, without the intercept.
        tasks
            (rows,), task labels among ``task_labels``.
        y
            (rows,), targets where they are known.
        columns
            Those that these rows have, for the new ones.

        Raises
        ------
        ValueError
            If a task or class is not among those of these rows, or columns are missing or others.
        """
        targets = None
        if y is not None and self.classes is not None:
            targets = label_index(read_labels(y, "y"), self.classes, UNKNOWN_CLASS)
        elif y is not None:
            targets = read_targets(y, tasks)
        padded = pad_arrays(X, targets, tasks, task_labels=self.task_labels, columns=columns)
        new = TaskData(**padded, classes=self.classes)
        expected = self.num_features - self.intercept
        if new.num_features != expected:
            raise ValueError(
                f"X has {new.num_features} columns, expected {expected} as in the training rows"
                f"{' (the intercept is added here)' if self.intercept else ''}."
            )
        check_columns(new.columns, self.columns, row_dims=2)
        y = new.y.to(self.y) if new.y is not None and self.y is not None else new.y
        further = {n: v.to(self.x) if v.is_floating_point() else v for n, v in new.columns.items()}
        new = replace(new, x=new.x.to(self.x), y=y, columns=further).to(self.x.device)
        return new.with_intercept() if self.intercept else new

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

    @property
    def rows_per_task(self) -> Tensor:
        """Number of rows of each task, (T,), or the sum of their weights."""
        return (self.mask if self.weight is None else self.weight * self.mask).sum(1)

    def with_intercept(self) -> TaskData:
        """Append a feature that is 1 in every row, so that linear models have an intercept."""
        if self.intercept:
            return self
        if self.attended is not None:
            raise ValueError("The rows have counterparts already. Call attend afterwards.")
        x = torch.cat([self.x, self.mask[..., None].to(self.x)], dim=-1)
        return replace(self, x=x, intercept=True)

    def take(self, index: Tensor, mask: Tensor) -> TaskData:
        """Select rows of every task by their positions, (T, M), in the second dimension.

        The mask, (T, M), is True where a real row is selected.
        """

        def gather(values: Tensor) -> Tensor:
            places = index.reshape(*index.shape, *[1] * (values.ndim - 2))
            return values.gather(1, places.expand(-1, -1, *values.shape[2:]))

        taken = self.map_rows(gather)
        return replace(taken, mask=mask, row=taken.row.masked_fill(~mask, -1))

    def map_rows(self, function: Callable[[Tensor], Tensor]) -> TaskData:
        """Apply a function to features, targets, mask, positions, weights and columns.

        It changes values (T, N), (T, N, F) or (T, N, ...) along the first two dimensions.
        """
        return replace(
            self,
            x=function(self.x),
            y=None if self.y is None else function(self.y),
            mask=function(self.mask),
            row=function(self.row),
            weight=None if self.weight is None else function(self.weight),
            columns={name: function(values) for name, values in self.columns.items()},
        )

    def without_targets(self) -> TaskData:
        """Drop the targets, so that a model run on these rows draws them."""
        return replace(self, y=None)

    def to(self, device: torch.device | str) -> TaskData:
        """Copy the rows to a device."""
        moved = self.map_rows(lambda values: values.to(device))
        attended = None if self.attended is None else self.attended.to(device)
        return replace(moved, attended=attended)

    def unpad(self, values: Tensor) -> Tensor:
        """Arrange values (T, N, ...) in the order of the user's rows, (rows, ...)."""
        flat = values[self.mask]
        out = torch.empty_like(flat)
        out[self.row[self.mask]] = flat
        return out
