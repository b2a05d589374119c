"""What a column holds: numbers, text or dates, by one rule for all kinds of files.

A column of text is one of numbers if every entry is a number and none is padded with zeros:
``007`` is a name. Whole numbers stay whole, also where some are missing, and those that do not fit
64 bits stay text, so that no id is rounded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.api import types

from pyro_vmtl.cli.errors import InputError, rows_at

__all__ = [
    "Kind",
    "from_text",
    "is_number",
    "kind_of",
    "like_an_id",
    "mostly_dates",
    "mostly_numbers",
    "plain",
    "read_numbers",
]

Kind = Literal["number", "text", "date", "other"]
"""What a column may hold; ``number`` includes true and false."""

NUMBER = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?inf(?:inity)?", re.IGNORECASE
)
WHOLE = re.compile(r"[+-]?[0-9]+")
PADDED = re.compile(r"[+-]?0[0-9]")
# 12,5  1 000  1,000.50  12 %  $12: numbers to people, but not to us
WRITTEN_NUMBER = re.compile(r"[$€£]? ?[+-]?[0-9]+(?:[ .,'\u00a0\u202f][0-9]+)* ?[%$€£]?")
MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
DATE = re.compile(
    r"(?:[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}"
    r"|[0-9]{1,2}[-/.][0-9]{1,2}[-/.](?:[0-9]{2}|[0-9]{4})"
    rf"|[0-9]{{1,2}}[ -]{MONTH}[ -][0-9]{{2,4}}|{MONTH} [0-9]{{1,2}},? [0-9]{{4}})"
    r"(?:[T ][0-9]{1,2}:.*)?|[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}.*)?",
    re.IGNORECASE,
)
LARGEST = float(np.finfo(np.float32).max)


def is_number(text: str) -> bool:
    """Is this how a number is written, such as ``-1.5e3``?"""
    return NUMBER.fullmatch(text.strip()) is not None


def from_text(entries: Sequence[str | None]) -> pd.Series:
    """Turn entries of a text file into a column of numbers, true and false, or text.

    Parameters
    ----------
    entries
        (rows,), what is written in each row; None where it is missing.

    Returns
    -------
    pandas.Series
        (rows,), as :func:`plain` gives them.

    Examples
    --------
    >>> from_text(["1", None, "3"]).tolist()
    [1, <NA>, 3]
    >>> from_text(["007", "11"]).tolist(), from_text(["1", "2.5"]).tolist()
    (['007', '11'], [1.0, 2.5])
    """
    distinct = {entry.strip() for entry in entries if entry is not None}
    if distinct and all(entry.lower() in ("true", "false") for entry in distinct):
        truth = [None if e is None else e.strip().lower() == "true" for e in entries]
        return _whole(truth, "boolean")
    if all(NUMBER.fullmatch(e) for e in distinct) and not any(PADDED.match(e) for e in distinct):
        if not all(WHOLE.fullmatch(entry) for entry in distinct):
            return pd.Series(
                [np.nan if entry is None else float(entry.strip()) for entry in entries]
            )
        if not distinct:
            return pd.Series(np.full(len(entries), np.nan))
        if all(len(entry) <= 20 and _fits(int(entry)) for entry in distinct):
            return _whole(
                [None if entry is None else int(entry.strip()) for entry in entries], "Int64"
            )
    return _text(list(entries))


def plain(column: pd.Series) -> pd.Series:
    """Give a column one of a few types, whatever it was stored as.

    Returns
    -------
    pandas.Series
        (rows,), with rows counted from 0: ``int64`` or ``bool`` (``Int64``, ``boolean`` where some
        are missing), ``float64``, or ``object`` with text and None. A column without any value is
        one of floats. Dates and other things stay what they are.
    """
    column = column.reset_index(drop=True)
    if column.dtype in (np.dtype(bool), np.dtype(np.int64), np.dtype(np.float64)):
        return column
    if types.is_float_dtype(column.dtype):
        return pd.Series(column.to_numpy(dtype=np.float64, na_value=np.nan))
    looked_into = (
        types.is_bool_dtype,
        types.is_integer_dtype,
        types.is_object_dtype,
        types.is_string_dtype,
    )
    is_categories = isinstance(column.dtype, pd.CategoricalDtype)
    if not is_categories and not any(holds(column.dtype) for holds in looked_into):
        return column
    values = column.astype(object).tolist()
    inferred = types.infer_dtype(values, skipna=True)
    if inferred == "string":
        return _text(values)
    if inferred == "boolean":
        return _whole(values, "boolean")
    if inferred == "integer":
        fits = all(_fits(value) for value in values if not pd.isna(value))
        return _whole(values, "Int64") if fits else _text(values)
    if inferred in ("floating", "mixed-integer-float", "decimal", "empty"):
        return pd.Series([np.nan if pd.isna(v) else float(v) for v in values], dtype=np.float64)
    simple = (str, bool, int, float, np.number, np.bool_)
    if all(isinstance(value, simple) or value is None or value is pd.NA for value in values):
        return _text(values)
    return pd.Series(values, dtype=object)


def kind_of(column: pd.Series) -> Kind:
    """Say what a :func:`plain` column holds.

    Examples
    --------
    >>> kind_of(plain(pd.Series([True, None]))), kind_of(plain(pd.Series(["a", None])))
    ('number', 'text')
    """
    if types.is_numeric_dtype(column.dtype) and not types.is_complex_dtype(column.dtype):
        return "number"
    if types.is_datetime64_any_dtype(column.dtype) or isinstance(column.dtype, pd.PeriodDtype):
        return "date"
    if types.is_object_dtype(column.dtype):
        inferred = types.infer_dtype(column, skipna=True)
        if inferred == "string":
            return "text"
        if inferred in ("date", "datetime", "datetime64", "time"):
            return "date"
    return "other"


def read_numbers(column: pd.Series, name: str) -> np.ndarray:
    """Read a column as numbers.

    Returns
    -------
    numpy.ndarray
        (rows,), float64, NaN where missing.

    Raises
    ------
    InputError
        If the column holds something else, or a number is infinite or too large for float32. The
        message names the column and the row.

    Examples
    --------
    >>> read_numbers(pd.Series([1, None, 2.5]), "age").tolist()
    [1.0, nan, 2.5]
    """
    column = plain(column)
    kind = kind_of(column)
    if kind == "text":
        entries = column.tolist()
        bad = [i for i, entry in enumerate(entries) if entry is not None and not is_number(entry)]
        if bad:
            found = ", ".join(f"{entries[i]!r} in row {i + 2}" for i in bad[:3])
            more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
            raise InputError(
                f"Column {name!r} has {found}{more}, expected a number such as 12.5 (a point, no "
                "spaces or signs). Correct the entries, and leave a cell empty where the value is "
                "missing."
            )
        values = np.array([np.nan if entry is None else float(entry.strip()) for entry in entries])
    elif kind == "number":
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        what = "dates" if kind == "date" else f"values of type {column.dtype}"
        raise InputError(f"Column {name!r} holds {what}, expected numbers. Derive numbers from it.")
    large = np.flatnonzero(np.abs(values) > LARGEST)
    if len(large):
        number = values[large[0]]
        raise InputError(
            f"Column {name!r} has {'an infinite value' if np.isinf(number) else f'{number:g}'} in "
            f"{rows_at(large.tolist())}, expected finite numbers below {LARGEST:.1e}. Correct it, "
            "or leave the cell empty if the value is missing."
        )
    return values


def mostly_numbers(column: pd.Series) -> bool:
    """Are most entries of a column of text numbers, or meant to be, and some not readable?

    Numbers that are padded with zeros are names and readable.
    """
    entries = [entry.strip() for entry in column.dropna()]
    readable = sum(NUMBER.fullmatch(entry) is not None for entry in entries)
    meant = sum(
        NUMBER.fullmatch(entry) is not None or WRITTEN_NUMBER.fullmatch(entry) is not None
        for entry in entries
    )
    return readable < len(entries) < 2 * meant


def mostly_dates(column: pd.Series) -> bool:
    """Are most entries of a column of text dates or times of day?"""
    entries = column.dropna().tolist()
    return 2 * sum(DATE.fullmatch(entry.strip()) is not None for entry in entries) > len(entries)


def like_an_id(distinct: int, rows: int) -> bool:
    """Are there so many distinct values in so many rows that they hardly come again?"""
    return (distinct > 100 and distinct > 0.2 * rows) or (rows >= 20 and distinct == rows)


def _fits(number: int) -> bool:
    return -(2**63) <= number < 2**63


def _whole(values: list[Any], dtype: str) -> pd.Series:
    """Whole numbers or truth values, in a type with missing values only where there are some."""
    missing = pd.isna(np.array(values, dtype=object))
    if missing.any():
        known = [pd.NA if gone else value for value, gone in zip(values, missing, strict=True)]
        return pd.Series(known, dtype=dtype)
    return pd.Series(values, dtype=dtype.lower() if dtype == "Int64" else "bool")


def _text(values: list[Any]) -> pd.Series:
    missing = pd.isna(np.array(values, dtype=object))
    text = [None if gone else str(v) for v, gone in zip(values, missing, strict=True)]
    return pd.Series(text, dtype=object)
