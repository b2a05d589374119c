"""What a fit needs: a table, read, split into training and test rows, and checked."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from pyro_vmtl.cli.column_types import with_placeholders
from pyro_vmtl.cli.columns import Columns
from pyro_vmtl.cli.read_table import read_table
from pyro_vmtl.cli.settings import FitSettings
from pyro_vmtl.cli.target import TargetKind, read_target, read_tasks
from pyro_vmtl.cli.user_errors import InputError
from pyro_vmtl.datasets import rotated_digits

__all__ = ["ANGLE", "DIGITS", "FitProblem", "Rows", "digits_table", "read_problem"]

DIGITS = "digits"
"""Name of the example as the source of a fit."""

DIGIT, ANGLE = "digit", "angle (degrees)"
"""The target column, and the task column."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a table, as an estimator takes them."""

    X: pd.DataFrame
    tasks: list[Hashable]
    numbers: np.ndarray  # of rows in the file, as a spreadsheet counts: the header is row 1
    y: Any = None  # None if the targets were not read

    def take(self, rows: np.ndarray) -> Rows:
        """Select rows by position."""
        y = None if self.y is None else self.y[rows]
        tasks = [self.tasks[row] for row in rows.tolist()]
        return Rows(self.X.iloc[rows], tasks, self.numbers[rows], y)


@dataclass(frozen=True, eq=False)
class FitProblem:
    """A table that is ready to be fitted, with what the user should know, a sentence each."""

    settings: FitSettings
    columns: Columns
    kind: TargetKind
    train: Rows
    test: Rows
    notices: tuple[str, ...]


def read_problem(settings: FitSettings) -> FitProblem:
    """Read the table, and check all that can be checked before a fit."""
    held_out, kind = None, cast(TargetKind | None, settings.kind)
    if settings.source == DIGITS:
        for name in ("target", "task", "features", "kind", "holdout"):
            if getattr(settings, name):
                raise InputError(f"--{name} is for tables, and SOURCE is 'digits'. Leave it out.")
        table, held_out = digits_table(settings.seed)
        target, task, kind = DIGIT, ANGLE, "classification"
    else:
        for role in ("target", "task"):
            if getattr(settings, role) is None:
                raise InputError(
                    f"--{role} is missing, expected a column of {settings.source}: the one that "
                    f"{'is to be predicted' if role == 'target' else 'has the task of each row'}."
                )
        target, task = cast(str, settings.target), cast(str, settings.task)
        table = read_table(Path(settings.source), settings.missing or ())
    tasks = read_tasks(table, task)
    of_tasks = with_placeholders(table[task], task)
    y, kind, notices = read_target(table, target, kind)
    if held_out is None:
        held_out = _draw_test_rows(tasks, pd.notna(y), settings.holdout, settings.seed)
    if kind == "classification":  # a class that was not fitted could not be predicted
        codes = pd.factorize(y)[0]
        held_out &= np.isin(codes, codes[~held_out])
    training = table[~held_out].reset_index(drop=True)
    columns, learned = Columns.learn(
        training,
        target=target,
        task=task,
        features=settings.features,
        missing=settings.missing or (),
        rows=np.flatnonzero(~held_out) + 2,
    )
    rows = Rows(columns.features(table), tasks, np.arange(len(table)) + 2, y)
    train, test = (rows.take(np.flatnonzero(chosen)) for chosen in (~held_out, held_out))
    return FitProblem(settings, columns, kind, train, test, (*of_tasks, *learned, *notices))


def digits_table(seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the rotated digits as a table, and whether each row is a test row."""
    split = rotated_digits(seed=seed)
    table = pd.DataFrame(
        np.concatenate([split.X_train, split.X_test]),
        columns=[f"pixel {row}, {column}" for row in range(8) for column in range(8)],
    )
    table[DIGIT] = np.concatenate([split.y_train, split.y_test])
    table[ANGLE] = np.array([*split.tasks_train, *split.tasks_test])
    return table, np.arange(len(table)) >= len(split.y_train)


def _draw_test_rows(
    tasks: Sequence[Hashable], known: np.ndarray, holdout: float, seed: int
) -> np.ndarray:
    """Draw the rows of every task to hold out, (rows,) bool; at least one of each stays."""
    rng = np.random.RandomState(seed)
    held_out = np.zeros(len(tasks), dtype=bool)
    task = pd.factorize(np.array([*tasks, None], dtype=object))[0][:-1]
    chosen = np.flatnonzero(known)
    chosen = chosen[np.argsort(task[chosen], kind="stable")]
    ends = np.cumsum(np.bincount(task[chosen]))[:-1]
    for rows in np.split(chosen, ends) if holdout else ():
        size = min(round(holdout * len(rows)), len(rows) - 1)
        held_out[rng.permutation(rows)[: max(size, 0)]] = True
    return held_out
