"""From the user's columns to numbers: what is learned from the rows of a fit, and kept for others.

Numbers get the median where they are missing. Text becomes a column of zeros and ones for every
category; a missing entry is the category ``missing``, and one that the fit has not seen is zero in
all. What is learned is medians and categories, so that it can be kept as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder

from pyro_vmtl.cli.errors import InputError, did_you_mean, listed
from pyro_vmtl.cli.kinds import (
    kind_of,
    like_an_id,
    mostly_dates,
    mostly_numbers,
    plain,
    read_numbers,
)
from pyro_vmtl.cli.target import read_tasks

__all__ = ["Columns"]

MOST_CATEGORIES = 1000
"""More would become as many columns."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are the target, the task and the features, and how to read these.

    Attributes
    ----------
    target, task
        names of columns.
    medians
        for each column of numbers what stands for a missing one.
    categories
        for each column of text what it may be, in the order of the columns it becomes.
    notices
        what the user should know, a sentence each.

    Examples
    --------
    >>> table = pd.DataFrame(
    ...     {"age": [7, None, 9], "sex": ["f", "m", "f"], "school": [1, 1, 2], "score": [1, 2, 3]}
    ... )
    >>> columns = Columns.learn(table, target="score", task="school")
    >>> X, names = columns.features(table)
    >>> names, X.tolist()
    (['age', 'sex=f', 'sex=m'], [[7.0, 1.0, 0.0], [8.0, 0.0, 1.0], [9.0, 1.0, 0.0]])
    >>> Columns.from_json(columns.to_json()) == columns
    True
    """

    target: str
    task: str
    medians: Mapping[str, float]
    categories: Mapping[str, Sequence[str]]
    notices: tuple[str, ...] = ()

    @classmethod
    def learn(
        cls,
        table: pd.DataFrame,
        *,
        target: str,
        task: str,
        features: Sequence[str] | None = None,
    ) -> Columns:
        """Find out how to read the features of a table.

        Parameters
        ----------
        table
            The rows to fit.
        target, task
            Names of columns.
        features
            Names of the columns to learn from; None takes all others. Columns that are constant or
            equal to an earlier one are left out, with a notice.

        Raises
        ------
        InputError
            If a column is not there, or cannot be a feature: dates, text that is an id or free
            text or meant to be numbers, infinite or no values. The message names column and row.
        """
        names = _feature_names(table, target, task, features)
        tasks = read_tasks(table, task)
        if len(set(tasks)) == len(tasks) >= 20:
            raise InputError(
                f"Column {task!r}, the task, has another label in each of {len(tasks)} rows, "
                "expected tasks of several rows. Is it an id? Choose another with --task."
            )
        if not len(table):
            raise InputError("The table has no rows, expected at least one.")
        medians: dict[str, float] = {}
        categories: dict[str, list[str]] = {}
        notices: list[str] = []
        seen: dict[object, str] = {}
        for name in names:
            column = plain(table[name])
            same: object
            if kind_of(column) == "number":
                numbers = read_numbers(column, name)
                if np.isnan(numbers).all():
                    raise InputError(
                        f"Column {name!r} has no value in any row, expected numbers. {_LEAVE_OUT}"
                    )
                median = float(np.nanmedian(numbers))
                distinct = len(np.unique(np.where(np.isnan(numbers), median, numbers)))
                same = numbers.tobytes()
            else:
                _check_categories(column, name)
                entries = _written(column)
                distinct = len(set(entries))
                same = tuple(entries)
            if distinct == 1:
                notices.append(f"Column {name!r} is left out, as it is the same in every row.")
            elif same in seen:
                notices.append(
                    f"Column {name!r} is left out, as it is {seen[same]!r} over again in every row."
                )
            elif kind_of(column) == "number":
                medians[name] = median
                absent = int(np.isnan(numbers).sum())
                if absent:
                    notices.append(
                        f"Column {name!r} has no value in {absent} of {len(table)} rows, where its "
                        f"median {median:g} is used."
                    )
            else:
                categories[name] = sorted(set(entries))
                notices.append(
                    f"Column {name!r} is text and becomes {distinct} columns, one for each of "
                    f"{listed(categories[name], most=5)}."
                )
            seen.setdefault(same, name)
        if not medians and not categories:
            why = f" {' '.join(notices)}" if notices else ""
            raise InputError(f"There are no columns to learn from, expected at least one.{why}")
        return cls(target, task, medians, categories, tuple(notices))

    def features(self, table: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
        """Read the features of the rows of a table.

        Parameters
        ----------
        table
            Rows with the columns that were learned, in any order; others are ignored.

        Returns
        -------
        X, names
            (rows, F) float64, all finite, and (F,) what its columns are: first the columns of
            numbers, then ``name=category``.

        Raises
        ------
        InputError
            If a column is missing, or has text, dates or infinite values where numbers were.
        """
        missing = [name for name in (*self.medians, *self.categories) if name not in table]
        if missing:
            raise InputError(
                f"The table has no column {listed(missing)}, which the fit learned from. "
                f"{did_you_mean(missing[0], [str(column) for column in table])}"
            )
        inputs = {name: pd.Series(read_numbers(table[name], name)) for name in self.medians}
        for name in self.categories:
            column = plain(table[name])
            if kind_of(column) in ("date", "other"):
                raise InputError(f"Column {name!r} is of type {column.dtype}, expected text.")
            inputs[name] = pd.Series(_written(column), dtype=object)
        X = np.asarray(self._transformer.transform(pd.DataFrame(inputs)), dtype=np.float64)
        names = list(self.medians)
        for name, known in self.categories.items():
            names += [f"{name}={category}" for category in known]
        return X, names

    def unusual(self, table: pd.DataFrame) -> list[str]:
        """Say what :meth:`features` fills in, and which categories it does not know."""
        found = []
        for name, median in self.medians.items():
            absent = int(np.isnan(read_numbers(table[name], name)).sum())
            if absent:
                found.append(
                    f"Column {name!r} has no value in {absent} of {len(table)} rows, where the "
                    f"median of the fit, {median:g}, is used."
                )
        for name, known in self.categories.items():
            entries = _written(plain(table[name]))
            new = sorted(set(entries) - set(known))
            if new:
                rows = sum(entry in new for entry in entries)
                found.append(
                    f"Column {name!r} has {listed(new, most=5)} in {rows} of {len(table)} rows, "
                    "which the fit has not seen: there it says nothing."
                )
        return found

    def to_json(self) -> dict[str, Any]:
        """Give what :meth:`from_json` reads, of types that JSON has."""
        return {**asdict(self), "notices": list(self.notices)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Columns:
        """Read what :meth:`to_json` gave.

        Raises
        ------
        InputError
            If it is something else.
        """
        try:
            return cls(
                str(stored["target"]),
                str(stored["task"]),
                {str(name): float(median) for name, median in stored["medians"].items()},
                {
                    str(name): [str(category) for category in known]
                    for name, known in stored["categories"].items()
                },
                tuple(str(notice) for notice in stored["notices"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"These are not the columns of a fit ({type(error).__name__}: {error}), expected "
                "target, task, medians, categories and notices. Fit again."
            ) from None

    @cached_property
    def _transformer(self) -> ColumnTransformer:
        """Scikit-learn's transformers, from the stored numbers: one row fits them."""
        row = {name: [median] for name, median in self.medians.items()}
        first = {name: [known[0]] for name, known in self.categories.items()}
        encoder = OneHotEncoder(
            categories=[np.array(known, dtype=object) for known in self.categories.values()],
            handle_unknown="ignore",
            sparse_output=False,
        )
        transformer = ColumnTransformer(
            [
                ("numbers", SimpleImputer(strategy="median"), list(self.medians)),
                ("categories", encoder, list(self.categories)),
            ]
        )
        return transformer.fit(pd.DataFrame({**row, **first}))


_LEAVE_OUT = "Leave it out: name the columns to learn from with --features."


def _feature_names(
    table: pd.DataFrame, target: str, task: str, features: Sequence[str] | None
) -> list[str]:
    """Names of the columns to learn from, if all names are right."""
    there = [str(column) for column in table]
    for role, name in (("target", target), ("task", task)):
        if name not in there:
            raise InputError(
                f"--{role} is {name!r}, which is not a column of the table. "
                f"{did_you_mean(name, there)}"
            )
    if target == task:
        raise InputError(f"--target and --task are both {target!r}, expected different columns.")
    if features is None:
        return [name for name in there if name not in (target, task)]
    for name in features:
        if name not in there:
            raise InputError(
                f"--features has {name!r}, which is not a column of the table. "
                f"{did_you_mean(name, there)}"
            )
        if name in (target, task):
            role = "target" if name == target else "task"
            raise InputError(f"--features has {name!r}, which is the {role}. Leave it out.")
        if list(features).count(name) > 1:
            raise InputError(f"--features has {name!r} more than once, expected every column once.")
    return list(features)


def _check_categories(column: pd.Series, name: str) -> None:
    """Check that a column that is not of numbers can be one of categories."""
    kind = kind_of(column)
    if kind == "date" or (kind == "text" and mostly_dates(column)):
        raise InputError(
            f"Column {name!r} holds dates or times, expected numbers or categories. Derive numbers "
            f"from it, such as the year or the days since the first. Or l{_LEAVE_OUT[1:]}"
        )
    if kind == "other":
        raise InputError(
            f"Column {name!r} holds values of type {column.dtype}, expected numbers or text. "
            f"{_LEAVE_OUT}"
        )
    if mostly_numbers(column):
        read_numbers(column, name)  # tells which are not
    distinct = column.nunique()
    if distinct > MOST_CATEGORIES or like_an_id(distinct, column.count()):
        raise InputError(
            f"Column {name!r} is text with {distinct} different entries in {column.count()} rows, "
            f"expected categories that come again. Is it an id or free text? {_LEAVE_OUT}"
        )


def _written(column: pd.Series) -> list[str]:
    """Entries as text; a missing one is a category."""
    return ["missing" if pd.isna(entry) else str(entry) for entry in column.tolist()]
