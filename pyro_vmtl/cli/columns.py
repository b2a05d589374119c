"""The features in a table: which columns they are, and how they become numbers.

Missing numbers are replaced by the median. Text becomes an indicator column for every category; a
missing entry is a category of its own, ``None``, and one that the fit has not seen is zero in all.
Only medians and categories are learned, so that they can be stored as JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import FiniteFloat

from pyro_vmtl.cli.column_types import (
    kind_of,
    looks_like_dates,
    looks_like_ids,
    looks_like_numbers,
    normalize,
    to_numbers,
    with_placeholders,
)
from pyro_vmtl.cli.target import check_column, read_tasks
from pyro_vmtl.cli.user_errors import InputError, did_you_mean, quote_names
from pyro_vmtl.estimators.outliers import describe_outliers

__all__ = ["Columns", "learn_features"]

MAX_CATEGORIES = 1000
"""Largest number of indicator columns of a text column."""

LEAVE_OUT = "Leave it out: name the columns to learn from with --features."


@dataclass(frozen=True)
class Columns:
    """Names of the target, task and feature columns of a table, and how to read the features."""

    target: str
    task: str
    medians: Mapping[str, FiniteFloat]  # in place of missing values, of each numeric column
    categories: Mapping[str, Sequence[str | None]]  # of each text column, sorted; None: missing
    missing: Sequence[str] = ()  # entries that the user declared missing

    @classmethod
    def learn(
        cls,
        table: pd.DataFrame,
        *,
        target: str,
        task: str,
        features: Sequence[str] | None = None,
        missing: Sequence[str] = (),
        rows: np.ndarray | None = None,
    ) -> tuple[Columns, list[str]]:
        """Learn how to read the features; also return what the user should know, a sentence each.

        ``features`` of None takes all other columns, ``missing`` is only kept, and ``rows`` are
        the numbers of the rows in the file. Constant columns, and those equal to an
        earlier one, are left out with a notice.
        """
        names = _feature_names(table, target, task, features)
        rows = np.arange(len(table)) + 2 if rows is None else rows
        labels = read_tasks(table, task)
        if len(set(labels)) == len(labels) >= 20:
            raise InputError(
                f"Column {task!r}, the task, has another label in each of {len(labels)} rows, "
                "expected tasks of several rows. Is it an id? Choose another with --task."
            )
        medians, categories, notices = learn_features(table, names, rows)
        columns = cls(target, task, medians, categories, list(missing))
        if not columns.feature_names:
            why = f" {' '.join(notices)}" if notices else ""
            raise InputError(f"There are no columns to learn from, expected at least one.{why}")
        return columns, notices

    @property
    def feature_names(self) -> list[str]:
        """Names of the features: numeric columns, then ``column=category``, quoted if need be."""
        pairs = [(name, category) for name, known in self.categories.items() for category in known]
        names = [f"{name}={_name(category)}" for name, category in pairs]
        if len(set(names)) < len(names):
            names = [f"{name!r}={category!r}" for name, category in pairs]
        while not set(self.medians).isdisjoint(names):
            names = [f"({name})" for name in names]
        return [*self.medians, *names]

    def features(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the features of rows, (rows, F) float64, all finite, as :attr:`feature_names`."""
        missing = [name for name in (*self.medians, *self.categories) if name not in table]
        if missing:
            raise InputError(
                f"The table has no column {quote_names(missing)}, which the fit learned from. "
                f"{did_you_mean(missing[0], [str(column) for column in table])}"
            )
        arrays = []
        for name, median in self.medians.items():
            values = to_numbers(table[name], name)
            arrays.append(np.where(np.isnan(values), median, values)[:, None])
        for name, known in self.categories.items():
            column = normalize(table[name])
            if kind_of(column) in ("date", "other"):
                raise InputError(f"Column {name!r} is of type {column.dtype}, expected text.")
            entries = _entries(column).to_numpy(object)
            arrays.append(entries[:, None] == np.array(known, dtype=object))
        X = np.concatenate(arrays, axis=1, dtype=np.float64)
        return pd.DataFrame(X, columns=self.feature_names)

    def unusual(self, table: pd.DataFrame) -> list[str]:
        """Describe the missing values that :meth:`features` replaces, and unseen categories."""
        found = []
        for name, median in self.medians.items():
            missing = int(np.isnan(to_numbers(table[name], name)).sum())
            if missing:
                found.append(
                    f"Column {name!r} has no value in {missing} of {len(table)} rows, where the "
                    f"median of the fit, {median:g}, is used."
                )
        for name, known in self.categories.items():
            entries = _entries(table[name])
            new = entries[~entries.isin(known)]
            if len(new):
                some = quote_names(map(_name, _sorted(new)), limit=5)
                found.append(
                    f"Column {name!r} has {some} in {len(new)} of {len(table)} rows, which the fit "
                    "has not seen: all its indicators are 0 there."
                )
        return found


def learn_features(
    table: pd.DataFrame, names: Sequence[str], rows: np.ndarray
) -> tuple[dict[str, float], dict[str, list[str | None]], list[str]]:
    """Learn medians and categories of columns, and what the user should know, a sentence each."""
    medians: dict[str, float] = {}
    categories: dict[str, list[str | None]] = {}
    notices: list[str] = []
    seen: dict[object, str] = {}
    for name in names:
        column = normalize(table[name])
        num_missing = int(column.isna().sum())
        if num_missing == len(column):
            raise InputError(
                f"Column {name!r} has no value in any row, expected numbers or categories. "
                f"{LEAVE_OUT}"
            )
        numeric = kind_of(column) == "number"
        key: object
        if numeric:
            values = to_numbers(column, name)
            key, median = values.tobytes(), float(np.nanmedian(values))
            constant = bool(np.nanmin(values) == np.nanmax(values))
        else:
            _check_categories(column, name)
            entries = _entries(column)
            key, constant = tuple(entries), entries.nunique(dropna=False) == 1
        same = seen.setdefault(key, name)
        if constant:
            notices.append(f"Column {name!r} is left out, as it is the same in every row.")
        elif same != name:
            notices.append(f"Column {name!r} is left out, as it equals {same!r} in every row.")
        elif numeric:
            medians[name] = median
            notices += describe_outliers(values, f"Column {name!r}", rows)
            if num_missing:
                notices.append(
                    f"Column {name!r} has no value in {num_missing} of {len(table)} rows, "
                    f"where its median {median:g} is used."
                )
        else:
            notices += with_placeholders(column, name)
            known = categories[name] = _sorted(entries)
            notices.append(
                f"Column {name!r} is text and becomes {len(known)} columns, one for each of "
                f"{quote_names(map(_name, known), limit=5)}."
            )
    return medians, categories, notices


def _feature_names(
    table: pd.DataFrame, target: str, task: str, features: Sequence[str] | None
) -> list[str]:
    """Return the names of the columns to learn from, after checking them."""
    check_column(table, target, "--target")
    check_column(table, task, "--task")
    for name in features or ():
        check_column(table, name, "--features")
    if target == task:
        raise InputError(f"--target and --task are both {target!r}, expected different columns.")
    if features is None:
        return [str(name) for name in table if name not in (target, task)]
    for name in features:
        if name in (target, task):
            role = "target" if name == target else "task"
            raise InputError(f"--features has {name!r}, which is the {role}. Leave it out.")
    if repeated := [name for name, count in Counter(features).items() if count > 1]:
        raise InputError(f"--features has {repeated[0]!r} more than once, expected distinct ones.")
    return list(features)


def _check_categories(column: pd.Series, name: str) -> None:
    """Check that a column that is not numeric can be one of categories."""
    kind = kind_of(column)
    if kind == "date" or (kind == "text" and looks_like_dates(column)):
        raise InputError(
            f"Column {name!r} holds dates or times, expected numbers or categories. Derive numbers "
            f"from it, such as the year or the days since the first. Or l{LEAVE_OUT[1:]}"
        )
    if kind == "other":
        raise InputError(
            f"Column {name!r} holds values of type {column.dtype}, expected numbers or text. "
            f"{LEAVE_OUT}"
        )
    if looks_like_numbers(column):
        to_numbers(column, name)  # raises, and names the entries that are not
    if looks_like_ids(column) or column.nunique() > MAX_CATEGORIES:
        raise InputError(
            f"Column {name!r} is text with {column.nunique()} different entries in "
            f"{column.count()} rows, expected categories that recur. Is it an id or free text? "
            f"{LEAVE_OUT}"
        )


def _entries(column: pd.Series) -> pd.Series:
    """Return entries as text, and None where one is missing."""
    text = normalize(column).map(str, na_action="ignore").astype(object)
    return text.where(text.notna(), None)


def _sorted(entries: pd.Series) -> list[str | None]:
    """Return each category once, that of missing entries last."""
    return sorted(set(entries), key=lambda category: (category is None, category))


def _name(category: str | None) -> str:
    return "missing" if category is None else category
