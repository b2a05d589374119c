"""The target and the tasks of the user's rows, from columns of a table."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from pyro_vmtl.cli.errors import InputError, did_you_mean, rows_at
from pyro_vmtl.cli.kinds import (
    kind_of,
    like_an_id,
    mostly_dates,
    mostly_numbers,
    plain,
    read_numbers,
)

__all__ = ["Target", "TargetKind", "match_labels", "read_target", "read_tasks"]

TargetKind = Literal["classification", "regression", "counts"]


class Target(NamedTuple):
    """What is to be predicted.

    Attributes
    ----------
    values
        (rows,): labels (text, int, bool or float), None where missing, for classification; else
        float64, NaN where missing.
    kind
        classification, regression or counts.
    notices
        what the user should know, a sentence each.
    """

    values: list[Hashable] | np.ndarray
    kind: TargetKind
    notices: tuple[str, ...]


def read_target(
    table: pd.DataFrame, target: str, kind: TargetKind | None = None, *, to_learn: bool = True
) -> Target:
    """Read the target.

    Parameters
    ----------
    table
        The rows.
    target
        Name of the column.
    kind
        What kind of target it is. None guesses: text, true and false are classes. Numbers with
        fractions are real values. Whole numbers are classes if there are two of them, or at most
        20 in at least five times as many rows; else they are real values. Counts are never guessed.
    to_learn
        Must a model be able to learn from it: are there two values or more, and classes that come
        again?

    Raises
    ------
    InputError
        If there is no such column, it has no values, or values that do not go with the kind.

    Examples
    --------
    >>> table = pd.DataFrame({"score": [1.5, None, 2.0]})
    >>> read_target(table, "score").values.tolist(), read_target(table, "score").kind
    ([1.5, nan, 2.0], 'regression')
    """
    column = _column(table, target, "target")
    held = kind_of(column)
    missing = np.flatnonzero(column.isna())
    if len(missing) == len(column):
        raise InputError(f"Column {target!r}, the target, has no value in any row.")
    if held in ("date", "other") or (held == "text" and mostly_dates(column)):
        what = "values of an unknown kind" if held == "other" else "dates"
        raise InputError(
            f"Column {target!r}, the target, holds {what}, expected numbers or classes. "
            "Derive one of them from it."
        )
    notices = []
    if kind is None:
        kind = _guessed(column, target)
        others = {"classification": "regression or counts", "regression": "classification"}
        if kind == "regression" and not np.any(read_numbers(column, target) % 1 > 0):
            others["regression"] = "classification or counts"
        way_out = "" if held == "text" else f"; --kind {others[kind]} overrides this"
        notices.append(
            f"Column {target!r} is taken for {kind}, as it holds {_described(column)}{way_out}."
        )
    if len(missing):
        notices.append(
            f"Column {target!r}, the target, has no value in {len(missing)} of {len(column)} rows."
        )
    values: list[Hashable] | np.ndarray
    if kind == "classification":
        if to_learn:
            _check_classes(column, target)
        values = _classes(column, target)
        distinct = len({value for value in values if value is not None})
    else:
        values = _numbers(column, target, kind)
        distinct = len(np.unique(values[~np.isnan(values)]))
    if to_learn and distinct < 2:
        only = next(value for value in values if value is not None and value == value)
        raise InputError(
            f"Column {target!r}, the target, is {only!s} in every row, expected two or more "
            f"{'classes' if kind == 'classification' else 'values'}: there is nothing to learn."
        )
    return Target(values, kind, tuple(notices))


def read_tasks(table: pd.DataFrame, task: str) -> list[Hashable]:
    """Read the task of every row.

    Returns
    -------
    list
        (rows,), labels as they are written: text, int or bool.

    Raises
    ------
    InputError
        If there is no such column, a row has no task, or it holds fractions or dates.

    Examples
    --------
    >>> read_tasks(pd.DataFrame({"school": ["007", "011"]}), "school")
    ['007', '011']
    """
    column = _column(table, task, "task")
    missing = np.flatnonzero(column.isna())
    if len(missing):
        raise InputError(
            f"Column {task!r}, the task, has no label in {rows_at(missing.tolist())}. Fill it in "
            "or delete the rows. (Empty cells, NA, null and None are missing.)"
        )
    if kind_of(column) in ("date", "other"):
        raise InputError(
            f"Column {task!r}, the task, is of type {column.dtype}, expected labels such as text "
            "or whole numbers. Write them as text."
        )
    if column.dtype == np.float64:
        bad = np.flatnonzero(~(column % 1 == 0))
        if len(bad):
            raise InputError(
                f"Column {task!r}, the task, has {column[bad[0]]} in row {bad[0] + 2}, expected "
                "labels such as text or whole numbers. Is it a feature? Choose another with --task."
            )
        return [int(value) for value in column]
    return column.tolist()


def match_labels(labels: Sequence[Hashable], known: Sequence[Hashable]) -> list[Hashable]:
    """Give labels that are written like known ones the type of these.

    A column of another file may hold ``7`` where that of the fit held ``7`` beside ``x``, as text.

    Parameters
    ----------
    labels
        Labels, None where missing. Those that are not known stay as they are.
    known
        The labels of a fit.

    Examples
    --------
    >>> match_labels([7, "x", None], ["7", "x"])
    ['7', 'x', None]
    """
    same = {label: label for label in known}
    written = {str(label): label for label in known}
    return [same.get(label, written.get(str(label), label)) for label in labels]


def _column(table: pd.DataFrame, name: str, role: str) -> pd.Series:
    if name not in table:
        raise InputError(
            f"--{role} is {name!r}, which is not a column of the table. "
            f"{did_you_mean(name, [str(column) for column in table])}"
        )
    return plain(table[name])


def _guessed(column: pd.Series, target: str) -> TargetKind:
    if kind_of(column) == "text":
        if mostly_numbers(column):
            read_numbers(column, target)  # tells which are not
        return "classification"
    if column.dtype in ("bool", "boolean"):
        return "classification"
    return "classification" if _whole(column) and _few(column) else "regression"


def _described(column: pd.Series) -> str:
    if kind_of(column) == "text" or column.dtype in ("bool", "boolean"):
        return f"{column.nunique()} labels"
    if not _whole(column):
        return "numbers with fractions"
    return f"{column.nunique()} different whole numbers"


def _whole(column: pd.Series) -> bool:
    return bool((column.dropna() % 1 == 0).all())


def _few(column: pd.Series) -> bool:
    distinct = column.nunique()
    return distinct <= 2 or (distinct <= 20 and column.count() >= 5 * distinct)


def _check_classes(column: pd.Series, target: str) -> None:
    if like_an_id(column.nunique(), column.count()):
        text = kind_of(column) == "text"
        way_out = "Choose another with --target." if text else "Use --kind regression."
        raise InputError(
            f"Column {target!r}, the target, has {column.nunique()} classes in {column.count()} "
            f"rows, expected classes that come again. {way_out}"
        )
    if column.dtype == np.float64 and not _whole(column) and not _few(column):
        bad = np.flatnonzero(column % 1 > 0)[0]
        raise InputError(
            f"Column {target!r}, the target, has {column[bad]} in row {bad + 2}, expected "
            "classes. Use --kind regression."
        )


def _classes(column: pd.Series, target: str) -> list[Hashable]:
    if column.dtype == np.float64:
        read_numbers(column, target)  # tells of infinite ones
        if _whole(column):
            return [None if np.isnan(value) else int(value) for value in column]
    return [None if pd.isna(value) else value for value in column.tolist()]


def _numbers(column: pd.Series, target: str, kind: TargetKind) -> np.ndarray:
    try:
        values = read_numbers(column, target)
    except InputError as error:
        if kind_of(column) == "text" and not mostly_numbers(column):
            raise InputError(f"{error} Or use --kind classification.") from None
        raise
    if kind == "counts":
        bad = np.flatnonzero((values < 0) | (values % 1 > 0))
        if len(bad):
            raise InputError(
                f"Column {target!r}, the target, has {values[bad[0]]:g} in row {bad[0] + 2}, "
                "expected counts: 0, 1, 2, ... Correct it, or use --kind regression."
            )
    return values
