"""The user's names and labels, made safe for each output: any text is legal as a name.

Pages escape by their template, shell commands by :func:`shlex.quote`, and TOML by JSON.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pyro_vmtl.data.atomic_files import atomic_write

__all__ = ["distinct_names", "for_terminal", "write_csv"]

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\N{FULLWIDTH EQUALS SIGN}")
"""What an entry begins with that a spreadsheet takes for a formula."""


def for_terminal(value: object, keep: str = "") -> str:
    r"""Return text with control characters escaped, which could move the cursor or hide text.

    Examples
    --------
    >>> for_terminal("a\x1b[2Jb\u202ec")
    'a\\x1b[2Jb\\u202ec'
    """
    text = str(value)
    if text.isprintable():
        return text
    keep += "\N{ZERO WIDTH JOINER}"  # of emojis
    return "".join(
        letter
        if letter.isprintable() or letter in keep or unicodedata.category(letter) == "Zs"
        else repr(letter)[1:-1]
        for letter in text
    )


def distinct_names(own: Sequence[str], given: Collection[str]) -> list[str]:
    """Return names of our own columns that differ from those of the user's.

    Where one is taken, all get the prefix ``predicted``.

    Examples
    --------
    >>> distinct_names(["mean", "std"], {"std", "school"})
    ['predicted mean', 'predicted std']
    """
    names = list(own)
    while not set(given).isdisjoint(names):
        names = [f"predicted {name}" for name in names]
    return names


def write_csv(frame: pd.DataFrame, path: Path, *, spreadsheet: bool = False, **more: Any) -> None:
    """Write a table as CSV, atomically, without raw control characters but line ends and tabs.

    For a ``spreadsheet``, text that would start a formula there is quoted by an apostrophe.
    """

    def entry(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        text = for_terminal(value, keep="\n\t")
        return f"'{text}" if spreadsheet and text.startswith(FORMULA) else text

    safe = frame.rename(columns=entry, index=entry).rename_axis(entry(frame.index.name))
    for place, dtype in enumerate(frame.dtypes):
        if not pd.api.types.is_numeric_dtype(dtype):
            safe.isetitem(place, frame.iloc[:, place].astype(object).map(entry).to_numpy())
    with atomic_write(path) as scratch:
        safe.to_csv(scratch, **more)
