"""What is said when the user's input is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

__all__ = ["InputError", "did_you_mean", "listed", "rows_at"]


class InputError(ValueError):
    """The user's input is wrong: the message says what, what was expected, and the way out.

    Examples
    --------
    >>> raise InputError("--rows is 0, expected 1 or more.")
    Traceback (most recent call last):
    pyro_vmtl.cli.errors.InputError: --rows is 0, expected 1 or more.
    """


def listed(names: Iterable[object], most: int = 8) -> str:
    """Write out names, the first few of many.

    Examples
    --------
    >>> listed(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Name what is written nearly like ``name``, or else what there is.

    Examples
    --------
    >>> did_you_mean("Scool", ["age", "school"])
    "Did you mean 'school'?"
    >>> did_you_mean("x", ["age", "school"])
    "There are 'age', 'school'."
    """
    folded: dict[str, str] = {}
    for other in known:
        folded.setdefault(other.casefold(), other)
    near = get_close_matches(name.casefold(), list(folded), n=3)
    if near:
        return f"Did you mean {' or '.join(repr(folded[other]) for other in near)}?"
    return f"There are {listed(known)}." if known else "There is nothing else."


def rows_at(positions: Sequence[int], most: int = 5) -> str:
    """Write out rows as a spreadsheet counts them: the header is row 1.

    Parameters
    ----------
    positions
        Positions of the rows in the table, from 0.

    Examples
    --------
    >>> rows_at([0]), rows_at([0, 4])
    ('row 2', 'rows 2, 6')
    """
    rows = ", ".join(str(position + 2) for position in positions[:most])
    more = f" and {len(positions) - most} more" if len(positions) > most else ""
    return f"{'row' if len(positions) == 1 else 'rows'} {rows}{more}"
