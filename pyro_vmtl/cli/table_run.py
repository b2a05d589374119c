"""A run on a table: an estimator, and how it reads columns."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyro_vmtl.cli.columns import Columns
from pyro_vmtl.cli.errors import InputError, did_you_mean
from pyro_vmtl.cli.target import TargetKind, match_labels, read_target, read_tasks
from pyro_vmtl.estimators import VMTLClassifier, VMTLRegressor

__all__ = ["ESTIMATOR", "TABLE", "Rows", "TableRun"]

TABLE = "table.json"
ESTIMATOR = "estimator"


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a table, as an estimator takes them.

    Attributes
    ----------
    X
        (rows, F), features.
    tasks
        (rows,), labels.
    y
        (rows,), targets; None where they were not asked for.
    """

    X: np.ndarray
    tasks: list[Hashable]
    y: Any = None

    def take(self, rows: np.ndarray) -> Rows:
        """Take some of them."""
        y = None if self.y is None else np.asarray(self.y)[rows]
        return Rows(self.X[rows], [self.tasks[row] for row in rows.tolist()], y)


@dataclass(frozen=True, eq=False)
class TableRun:
    """An estimator, and how it reads columns.

    Attributes
    ----------
    columns
        how features are read.
    kind
        what the target is.
    estimator
        what was fitted.
    """

    columns: Columns
    kind: TargetKind
    estimator: VMTLClassifier | VMTLRegressor

    def save(self, folder: Path) -> None:
        """Write it into a folder that is there."""
        content = {"kind": self.kind, "columns": self.columns.to_json()}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (folder / TABLE).write_text(text, encoding="utf-8")
        self.estimator.save(folder / ESTIMATOR)

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> TableRun:
        """Read it from a run directory; nothing in there is executed.

        Raises
        ------
        InputError
            If it is none, is broken, or was changed.
        """
        if not folder.is_dir():
            raise InputError(
                f"{folder} is no folder, expected a run directory that `pyro-vmtl fit` wrote."
            )
        if not (folder / TABLE).is_file():
            raise InputError(
                f"{folder} has no {TABLE}, expected a run of `pyro-vmtl fit TABLE`. Predictions "
                "need one of these."
            )
        try:
            content = json.loads((folder / TABLE).read_text(encoding="utf-8"))
            columns, kind = Columns.from_json(content["columns"]), content["kind"]
            load = VMTLClassifier.load if kind == "classification" else VMTLRegressor.load
            return cls(columns, kind, load(folder / ESTIMATOR, device=device))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder} cannot be read: {error}") from error

    def read(self, table: pd.DataFrame, *, with_target: bool = False) -> Rows:
        """Read rows of a table with the same columns, missing values and new categories included.

        Parameters
        ----------
        table
            As it stands in a file.
        with_target
            Read the target, too? Rows without one are left out.

        Raises
        ------
        InputError
            If columns are missing, or hold what cannot be used.
        """
        needed = [self.columns.task, *([self.columns.target] if with_target else [])]
        for name in needed:
            if name not in table:
                raise InputError(
                    f"The table has no column {name!r}, which the run needs. "
                    f"{did_you_mean(name, [str(column) for column in table])}"
                )
        X, _ = self.columns.features(table)
        tasks = match_labels(read_tasks(table, self.columns.task), self.estimator.tasks_)
        rows = Rows(X, tasks)
        if not with_target:
            return rows
        y = read_target(table, self.columns.target, self.kind, to_learn=False).values
        if self.kind == "classification":
            known = self.estimator.classes_.tolist()
            y = match_labels(y, known)  # type: ignore[arg-type]
            for row, label in enumerate(y):
                if label is not None and label not in known:
                    raise InputError(
                        f"Column {self.columns.target!r} has class {label!r} in row {row + 2}, "
                        f"expected one of {known}, the classes of the fit."
                    )
        values = np.array(y, dtype=object if self.kind == "classification" else float)
        has = np.flatnonzero(pd.notna(values))
        return Rows(X, tasks, values).take(has)
