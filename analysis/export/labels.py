"""Labels of tasks, classes, features and rows, as coordinates of xarray datasets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from torch import Tensor

from pyro_vmtl.data.arrays import as_labels
from pyro_vmtl.data.task_data import TaskData

__all__ = ["SHARE", "Labels", "Variable", "source_labels"]

BASE = "base"

SHARE = "share of the estimate"
"""What an estimator tells of relatedness; a source weight is a part of the prior only."""


class Variable(NamedTuple):
    """An array with names of its dimensions."""

    dims: tuple[str, ...]
    values: np.ndarray


def source_labels(tasks: np.ndarray) -> np.ndarray:
    """Return the labels of sources: the tasks, and the base last."""
    texts = tasks.astype(str).tolist()
    if BASE in texts:  # a task of that name is not the base
        texts = [repr(text) for text in texts]
    return np.array([*texts, BASE])


class Labels:
    """Label the dimensions of a tree by tasks, classes and features of ``rows``, if any.

    ``row_tasks`` are the same rows by task, where programs treat all as one task.
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
            features = [f"x{i}" for i in range(rows.num_features)]
            if rows.intercept:
                features[-1] = "intercept"
            self.coords = {
                "task": tasks,
                "source": source_labels(tasks),
                "feature": np.array(features),
                "row": np.sort(rows.row[rows.mask].cpu().numpy()),
            }
            if rows.classes is not None:
                self.coords["class"] = as_labels(rows.classes)
            by_task = rows if row_tasks is None else row_tasks
            index = by_task.mask.nonzero()[:, 0][_user_order(by_task)].cpu().numpy()
            self.row_task = as_labels(by_task.task_labels)[index]
            self._places = rows.mask.flatten().nonzero()[:, 0][_user_order(rows)].cpu()

    def of_rows(self, values: Tensor) -> Tensor:
        """Convert values (S, T, N, ...) of padded rows to the user's order, (S, rows, ...)."""
        return values.flatten(1, 2)[:, self._places.to(values.device)]

    def variable(self, values: Tensor, *dims: str) -> Variable:
        """Convert values (T, N, ...) of padded rows to a variable; ``dims`` are after the rows."""
        return Variable(("row", *dims), self.of_rows(values[None])[0].cpu().numpy())

    def constants(self) -> dict[str, Variable]:
        """Return the inputs of programs: features, weights and further columns of rows."""
        if self.rows is None:
            return {}
        found = {"x": self.variable(self.rows.x, "feature")}
        if self.rows.weight is not None:
            found["sample_weight"] = self.variable(self.rows.weight)
        for name, values in self.rows.columns.items():
            more = (f"{name}_dim_{i}" for i in range(values.ndim - 2))
            found[name] = self.variable(values, *more)
        return found

    def note_classes(self, site: str, *groups: xr.Dataset) -> None:
        """Store the labels of classes as an attribute of targets, which are integer codes."""
        for group in groups:
            if "class" in self.coords and site in group:
                group[site].attrs["classes"] = json.dumps(self.coords["class"].tolist())

    def dataset(self, variables: Mapping[str, Variable], **attrs: Any) -> xr.Dataset:
        """Make a dataset with coordinates of all its dimensions, and draws as one chain."""
        made = xr.Dataset({name: _in_chain(variable) for name, variable in variables.items()})
        for name, size in made.sizes.items():
            dim = str(name)
            if len(self.given.get(dim, range(size))) != size:
                raise ValueError(
                    f"coords[{dim!r}] has {len(self.given[dim])} labels, expected {size}."
                )
            known = self.given.get(dim, self.coords.get(dim, np.arange(size)))
            made = made.assign_coords({dim: known if len(known) == size else np.arange(size)})
        if "row" in made.sizes and "task" not in made.sizes and self.rows is not None:
            made = made.assign_coords(task=("row", self.row_task))
        return made.assign_attrs(attrs)


def _in_chain(variable: Variable) -> Variable:
    """Add the chain dimension to draws."""
    dims, values = variable
    return Variable(("chain", *dims), values[None]) if "draw" in dims else variable


def _user_order(rows: TaskData) -> Tensor:
    """Return the places of rows, among those that are not padding, in the user's order."""
    return rows.row[rows.mask].argsort(stable=True)
