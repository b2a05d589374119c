"""Labels of tasks, classes, features and rows, as coordinates that files can hold."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from torch import Tensor

from pyro_vmtl.data.task_data import TaskData

__all__ = ["Labels", "Variable", "as_labels", "source_labels"]

BASE = "base"


class Variable(NamedTuple):
    """Numbers with names for their dimensions."""

    dims: tuple[str, ...]
    values: np.ndarray

    def __truediv__(self, number: float) -> Variable:
        """Divide the numbers."""
        return self._replace(values=self.values / number)


def as_labels(labels: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """Make coordinates of labels: whole numbers stay such, others become texts.

    Examples
    --------
    >>> as_labels([3, 7]).tolist(), as_labels(["a", 7]).tolist(), as_labels([1, "1"]).tolist()
    ([3, 7], ['a', '7'], ['1', "'1'"])
    """
    plain = [label.item() if isinstance(label, np.generic) else label for label in labels]
    if plain and all(type(label) is int for label in plain):
        return np.array(plain, dtype=np.int64)
    texts = [str(label) for label in plain]
    if len(set(texts)) < len(set(plain)):
        texts = [repr(label) for label in plain]
    return np.array(texts, dtype=str)


class Labels:
    """What is known of the dimensions of a tree.

    Parameters
    ----------
    rows
        The rows that the programs run on, if they run on rows of tasks.
    coords
        The user's own coordinates: for each dimension its labels.
    row_tasks
        The same rows by task, where the programs take all for one task.

    Attributes
    ----------
    coords
        for each known dimension its labels.
    row_task
        (rows,), the task of each row.
    """

    def __init__(
        self,
        rows: TaskData | None = None,
        coords: Mapping[str, Any] | None = None,
        row_tasks: TaskData | None = None,
    ) -> None:
        self.rows = rows
        self.given = {name: as_labels(values) for name, values in (coords or {}).items()}
        self.coords: dict[str, np.ndarray] = {}
        if rows is not None:
            tasks = as_labels(rows.task_labels)
            self.coords |= {
                "task": tasks,
                "source": source_labels(tasks),
                "feature": _features(rows),
            }
            self.coords["row"] = np.sort(rows.row[rows.mask].cpu().numpy())
            if rows.classes is not None:
                self.coords["class"] = as_labels(rows.classes)
            by_task = rows if row_tasks is None else row_tasks
            index, order = by_task.mask.nonzero()[:, 0].cpu().numpy(), _order(by_task)
            self.row_task = as_labels(by_task.task_labels)[index[order.numpy()]]
            self._places = rows.mask.flatten().nonzero()[:, 0].cpu()[_order(rows)]

    def of_rows(self, values: Tensor) -> Tensor:
        """Take values (S, T, N, ...) of padded rows to the user's order, (S, rows, ...)."""
        return values.flatten(1, 2)[:, self._places.to(values.device)]

    def dataset(self, variables: Mapping[str, Variable], **attrs: Any) -> xr.Dataset:
        """Make a dataset, with coordinates of all its dimensions, draws as one chain.

        Raises
        ------
        ValueError
            If the user's own coordinates have another number of labels.
        """
        made = xr.Dataset({name: _in_chain(variable) for name, variable in variables.items()})
        for name, size in made.sizes.items():
            dim = str(name)
            if dim in self.given and len(self.given[dim]) != size:
                raise ValueError(
                    f"coords[{dim!r}] has {len(self.given[dim])} labels, expected {size}."
                )
            known = self.given.get(dim, self.coords.get(dim))
            fits = known is not None and len(known) == size
            made = made.assign_coords({dim: known if fits else np.arange(size)})
        if "row" in made.sizes and "task" not in made.sizes and hasattr(self, "row_task"):
            made = made.assign_coords(task=("row", self.row_task))
        return made.assign_attrs(attrs)


def _in_chain(variable: Variable) -> Variable:
    """Put draws into the one chain that there is."""
    dims, values = variable
    return Variable(("chain", *dims), values[None]) if "draw" in dims else variable


def _order(rows: TaskData) -> Tensor:
    """Give the places of rows, among those that are no padding, in the user's order."""
    return rows.row[rows.mask].argsort(stable=True).cpu()


def source_labels(tasks: np.ndarray) -> np.ndarray:
    """Name the sources of weights: the tasks, and the base last."""
    texts = tasks.astype(str).tolist()
    if BASE in texts:  # a task of that name is not the base
        texts = [repr(text) for text in texts]
    return np.array([*texts, BASE])


def _features(rows: TaskData) -> np.ndarray:
    names = [f"x{i}" for i in range(rows.num_features)]
    if rows.intercept:
        names[-1] = "intercept"
    return np.array(names)
