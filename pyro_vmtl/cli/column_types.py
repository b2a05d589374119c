"""Types of columns, by one rule for all file formats: numbers, text or dates.

Columns have pandas' nullable types, so that integers stay integers where values are missing. Text
that consists of numbers becomes numbers unless one is padded with zeros (``007`` is a name) or is
too long for 64 bits (an id that floating point would round).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import numpy as np
import pandas as pd
from pandas.api import types

from pyro_vmtl.cli.user_errors import InputError, row_numbers
from pyro_vmtl.estimators.rows import join_some

__all__ = [
    "Kind",
    "from_text",
    "kind_of",
    "looks_like_dates",
    "looks_like_ids",
    "looks_like_numbers",
    "normalize",
    "to_numbers",
    "with_placeholders",
]

Kind = Literal["number", "text", "date", "other"]
"""Contents of a column; booleans count as numbers."""

NO_VALUE = ["NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "NaN", "nan", "NULL", "null", "None"]
"""Entries that are missing values among numbers; in a column of text they are text."""

LARGEST = float(np.finfo(np.float32).max)

# 12,5  1 000  1,000.50  12 %  $12: numbers to people, but not to pandas
FORMATTED_NUMBER = r"[$€£]? ?[+-]?[0-9]+(?:[ .,'\u00a0\u202f][0-9]+)* ?[%$€£]?"
MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
DATE = (
    r"(?i)(?:[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}"
    r"|[0-9]{1,2}[-/.][0-9]{1,2}[-/.](?:[0-9]{2}|[0-9]{4})"
    rf"|[0-9]{{1,2}}[ -]{MONTH}[ -][0-9]{{2,4}}|{MONTH} [0-9]{{1,2}},? [0-9]{{4}})"
    r"(?:[T ][0-9]{1,2}:.*)?|[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}.*)?"
)


def from_text(text: pd.Series) -> pd.Series:
    """Convert a column of text to numbers or booleans if all entries can be read as such."""
    stripped = text.str.strip()
    stripped = stripped.mask(stripped.isin(NO_VALUE))
    known = stripped.dropna()
    if text.notna().any() and not len(known):
        return text
    if known.str.lower().isin(["true", "false"]).all() and len(known):
        return (stripped.str.lower() == "true").astype("boolean")
    if known.str.match(r"[+-]?0[0-9]").any():
        return text
    try:
        numbers = pd.to_numeric(stripped, dtype_backend="numpy_nullable")
    except ValueError:
        return text
    too_long = numbers.dtype != "Int64" and known.str.fullmatch(r"[+-]?[0-9]+").all()
    return text if too_long and len(known) else numbers


def with_placeholders(column: pd.Series, name: str) -> list[str]:
    """Return a notice if a column of text has entries such as NA, which other tables leave out."""
    if kind_of(column) != "text":
        return []
    found = column[column.isin(NO_VALUE)]
    if not len(found):
        return []
    entries = sorted(set(found))
    return [
        f"Column {name!r} has {join_some(map(repr, entries))} in {len(found)} of {len(column)} "
        f"rows, which counts as text, not as missing; --missing {','.join(entries)} changes this."
    ]


def normalize(column: pd.Series) -> pd.Series:
    """Convert a column to ``Int64``, ``Float64``, ``boolean`` or ``string``, rows counted from 0.

    Dates, and whatever is none of these, stay as they are.
    """
    column = column.reset_index(drop=True)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    column = column.convert_dtypes()
    known = column.dropna()
    if column.dtype == object and all(isinstance(value, Decimal) for value in known):
        return column.astype("Float64")
    scalars = (str, bool, int, float, np.number, np.bool_)
    plain_scalars = column.dtype == object and all(isinstance(value, scalars) for value in known)
    if plain_scalars or (types.is_unsigned_integer_dtype(column.dtype) and (known >= 2**63).any()):
        return column.map(str, na_action="ignore").astype("string")
    return column


def kind_of(column: pd.Series) -> Kind:
    """Return the kind of contents of a column that :func:`normalize` returned."""
    if types.is_numeric_dtype(column.dtype) and not types.is_complex_dtype(column.dtype):
        return "number"
    if isinstance(column.dtype, pd.StringDtype):
        return "text"
    inferred = types.infer_dtype(column, skipna=True)
    return "date" if inferred in ("date", "datetime", "datetime64", "time", "period") else "other"


def to_numbers(column: pd.Series, name: str) -> np.ndarray:
    """Convert a column to float64, NaN where a value is missing.

    Anything else, and a number that is infinite or too large for float32, raises an error that
    names the column and the row.
    """
    column = normalize(column)
    kind = kind_of(column)
    if kind == "text":
        column = column.mask(column.isin(NO_VALUE))
    if kind not in ("number", "text"):
        found = "dates" if kind == "date" else f"values of type {column.dtype}"
        raise InputError(
            f"Column {name!r} holds {found}, expected numbers. Derive numbers from it."
        )
    values = _parsed(column) if kind == "text" else column.to_numpy(np.float64, na_value=np.nan)
    bad = np.flatnonzero(np.isnan(values) & column.notna().to_numpy())
    if len(bad):
        found = join_some((f"{column[row]!r} in row {row + 2}" for row in bad.tolist()), 3)
        raise InputError(
            f"Column {name!r} has {found}, expected a number such as 12.5 (a decimal point, "
            "no spaces or units). Correct the entries, and leave a cell empty where the value is "
            "missing."
        )
    large = np.flatnonzero(np.abs(values) > LARGEST)
    if len(large):
        number = values[large[0]]
        raise InputError(
            f"Column {name!r} has {'an infinite value' if np.isinf(number) else f'{number:g}'} in "
            f"{row_numbers(large.tolist())}, expected finite numbers below {LARGEST:.1e}. Correct "
            "it, or leave the cell empty if the value is missing."
        )
    return values


def looks_like_numbers(column: pd.Series) -> bool:
    """Return whether most entries of a text column are meant as numbers, and some unreadable."""
    known = column.dropna().str.strip()
    readable = ~np.isnan(_parsed(known))
    meant = readable | known.str.fullmatch(FORMATTED_NUMBER).to_numpy(bool)
    return bool(readable.sum() < len(known) < 2 * meant.sum())


def looks_like_dates(column: pd.Series) -> bool:
    """Return whether most entries of a text column are dates or times of day."""
    return bool(column.dropna().str.strip().str.fullmatch(DATE).mean() > 0.5)


def looks_like_ids(column: pd.Series) -> bool:
    """Return whether a column has so many distinct values that they hardly recur."""
    distinct, rows = column.nunique(), column.count()
    return (distinct > 100 and distinct > 0.2 * rows) or (rows >= 20 and distinct == rows)


def _parsed(text: pd.Series) -> np.ndarray:
    """Parse text as float64, NaN where it is no number."""
    numbers = pd.to_numeric(text.str.strip(), errors="coerce")
    return numbers.to_numpy(np.float64, na_value=np.nan)
