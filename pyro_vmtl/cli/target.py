"""The target and the tasks of the user's rows, from columns of a table."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types

from pyro_vmtl.cli.column_types import (
    kind_of,
    looks_like_dates,
    looks_like_ids,
    looks_like_numbers,
    normalize,
    to_numbers,
    with_placeholders,
)
from pyro_vmtl.cli.user_errors import InputError, did_you_mean, row_numbers
from pyro_vmtl.estimators.outliers import describe_outliers

__all__ = ["Target", "TargetKind", "check_column", "match_labels", "read_target", "read_tasks"]

TargetKind = Literal["classification", "regression", "counts"]


class Target(NamedTuple):
    """The target of every row, and what the user should know, a sentence each.

    Values (rows,) are labels, or None where missing, for classification; else float64 or NaN.
    """

    values: np.ndarray
    kind: TargetKind
    notices: tuple[str, ...]


def check_column(table: pd.DataFrame, name: str, option: str) -> None:
    """Raise an error if a table does not have the column that an option names."""
    if name not in table:
        raise InputError(
            f"{option} names {name!r}, which is not a column of the table. "
            f"{did_you_mean(name, [str(column) for column in table])}"
        )


def read_target(
    table: pd.DataFrame, target: str, kind: TargetKind | None = None, *, to_learn: bool = True
) -> Target:
    """Read the target.

    A ``kind`` of None is guessed: text and booleans are classes, numbers with fractions real
    values. Whole numbers are classes if there are two of them, or at most 20 in at least
    five times as many rows; else they are real values. Counts are never guessed. With
    ``to_learn``, there must be at least two values, and classes must recur.
    """
    check_column(table, target, "--target")
    column, role = normalize(table[target]), f"Column {target!r}, the target,"
    contents, missing = kind_of(column), int(column.isna().sum())
    if missing == len(column):
        raise InputError(f"{role} has no value in any row.")
    if contents in ("date", "other") or (contents == "text" and looks_like_dates(column)):
        found = "values of an unknown kind" if contents == "other" else "dates"
        raise InputError(
            f"{role} holds {found}, expected numbers or classes. Derive one of them from it."
        )
    if contents == "text" and kind is None and looks_like_numbers(column):
        to_numbers(column, target)  # raises, and names the entries that are not
    notices = []
    if kind is None:
        kind, reason, others = _guess_kind(column)
        way_out = f"; --kind {others} overrides this" if others else ""
        notices.append(f"Column {target!r} is taken for {kind}, as it holds {reason}{way_out}.")
    notices += with_placeholders(column, target)
    if missing:
        notices.append(f"{role} has no value in {missing} of {len(column)} rows.")
    if kind == "classification":
        values = _classes(column, target, to_learn=to_learn)
    else:
        values = _numbers(column, target, kind)
        if to_learn:
            notices += describe_outliers(values, f"Column {target!r}", np.arange(len(values)) + 2)
    known = values[pd.notna(values)]
    if to_learn and (known == known[0]).all():
        raise InputError(
            f"{role} is {known[0]!s} in every row, expected at least two "
            f"{'classes' if kind == 'classification' else 'values'}: there is nothing to learn."
        )
    return Target(values, kind, tuple(notices))


def read_tasks(table: pd.DataFrame, task: str) -> list[Hashable]:
    """Return the task label of every row, as written: text, int or bool."""
    check_column(table, task, "--task")
    column, role = normalize(table[task]), f"Column {task!r}, the task,"
    missing = np.flatnonzero(column.isna())
    if len(missing):
        raise InputError(
            f"{role} has no label in {row_numbers(missing.tolist())}. Enter one or delete the "
            "rows. (Empty cells are missing, and beside numbers NA, null and None.)"
        )
    if kind_of(column) in ("date", "other"):
        raise InputError(
            f"{role} is of type {column.dtype}, expected labels such as text or whole numbers. "
            "Write them as text."
        )
    if types.is_float_dtype(column.dtype):
        row = int((~(column % 1 == 0) | (column.abs() >= 2**63)).to_numpy(bool).argmax())
        raise InputError(
            f"{role} has {column[row]} in row {row + 2}, expected labels such as text or whole "
            "numbers below 2**63. Is it a feature? Choose another with --task."
        )
    return column.tolist()


def match_labels(labels: Iterable[Hashable], known: Sequence[Hashable]) -> list[Hashable]:
    """Replace labels by known labels that are written in the same way: the number 7 by ``"7"``."""
    same = {label: label for label in known}
    written = {str(label): label for label in known}
    return [same.get(label, written.get(str(label), label)) for label in labels]


def _guess_kind(column: pd.Series) -> tuple[TargetKind, str, str]:
    """Guess the kind of a target; also return the reason, and other kinds that it may be."""
    distinct = column.nunique()
    if kind_of(column) == "text":
        return "classification", f"{distinct} labels", ""
    if types.is_bool_dtype(column.dtype):
        return "classification", f"{distinct} labels", "regression or counts"
    if not (column.dropna() % 1 == 0).all():
        return "regression", "numbers with fractions", "classification"
    reason = f"{distinct} different whole numbers"
    if _recurs(column):
        return "classification", reason, "regression or counts"
    return "regression", reason, "classification or counts"


def _recurs(column: pd.Series) -> bool:
    """Return whether there are few distinct values for the number of rows."""
    distinct = column.nunique()
    return distinct <= 2 or (distinct <= 20 and column.count() >= 5 * distinct)


def _classes(column: pd.Series, target: str, *, to_learn: bool) -> np.ndarray:
    text, role = kind_of(column) == "text", f"Column {target!r}, the target,"
    if to_learn and looks_like_ids(column):
        way_out = "Choose another with --target." if text else "Use --kind regression."
        raise InputError(
            f"{role} has {column.nunique()} classes in {column.count()} rows, expected classes "
            f"that recur. {way_out}"
        )
    if types.is_float_dtype(column.dtype):
        values = to_numbers(column, target)  # raises for infinite ones
        bad = np.flatnonzero(values % 1 > 0)
        if to_learn and len(bad) and not _recurs(column):
            raise InputError(
                f"{role} has {values[bad[0]]} in row {bad[0] + 2}, expected classes. "
                "Use --kind regression."
            )
    return np.array([None if pd.isna(value) else value for value in column.tolist()], dtype=object)


def _numbers(column: pd.Series, target: str, kind: TargetKind) -> np.ndarray:
    try:
        values = to_numbers(column, target)
    except InputError as error:
        if kind_of(column) == "text" and not looks_like_numbers(column):
            raise InputError(f"{error} Or use --kind classification.") from None
        raise
    bad = np.flatnonzero((values < 0) | (values % 1 > 0))
    if kind == "counts" and len(bad):
        raise InputError(
            f"Column {target!r}, the target, has {values[bad[0]]:g} in row {bad[0] + 2}, expected "
            "counts: 0, 1, 2, ... Correct it, or use --kind regression."
        )
    return values
