"""Errors in the user's input: how they are worded, printed and turned into exit codes.

Exit code 0 means done, 2 an error in the user's input, and 130 an interruption. Any other error is
a bug of this package and exits with 1.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import typer

from pyro_vmtl.cli.safe_text import for_terminal
from pyro_vmtl.data.limits import LimitWarning
from pyro_vmtl.estimators import DataWarning, VersionWarning
from pyro_vmtl.estimators.rows import join_some

__all__ = [
    "InputError",
    "check_complete",
    "did_you_mean",
    "print_note",
    "quote_names",
    "report_user_errors",
    "row_numbers",
    "user_error",
]


class InputError(ValueError):
    """Invalid user input. The message says what is wrong, what was expected, and the way out."""


def quote_names(names: Iterable[object], limit: int = 8) -> str:
    """Join quoted names with commas, and count those beyond the limit."""
    return join_some(map(repr, names), limit)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Suggest the known names that are spelled like ``name``, or else list the known names."""
    folded = {other.casefold(): other for other in reversed(known)}
    near = get_close_matches(name.casefold(), list(folded))
    if near:
        return f"Did you mean {' or '.join(repr(folded[other]) for other in near)}?"
    return f"There are {quote_names(known)}." if known else "There is nothing else."


def row_numbers(positions: Sequence[int], limit: int = 5) -> str:
    """Format row positions, counted from 0, as a spreadsheet numbers them: the header is row 1."""
    rows = join_some((str(position + 2) for position in positions), limit)
    return f"{'row' if len(positions) == 1 else 'rows'} {rows}"


def user_error(message: str) -> NoReturn:
    """Print an error and exit with code 2."""
    typer.secho("Error: " + for_terminal(message, keep="\n"), err=True, fg="red")
    raise typer.Exit(2)


def print_note(message: str) -> None:
    """Print a note to standard error."""
    typer.secho("Note: " + for_terminal(message, keep="\n"), err=True, fg="yellow")


@contextmanager
def report_user_errors(*, as_json: bool = False) -> Iterator[list[str]]:
    """Turn errors in the user's input into a message and exit code 2, and warnings into notes.

    Yield the notes printed so far. With ``as_json``, errors are also printed as JSON.
    """
    notes: list[str] = []

    def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
        if issubclass(category, DataWarning | LimitWarning | VersionWarning):
            notes.append(str(message))
            print_note(str(message))

    def fail(message: str) -> NoReturn:
        if as_json:
            typer.echo(json.dumps({"error": message}))
        user_error(message)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show  # type: ignore[assignment]
            yield notes
    except OSError as error:
        from_system = error.strerror is not None and error.filename is not None
        fail(f"{error.filename}: {error.strerror}." if from_system else str(error))
    except ValueError as error:
        fail(str(error))


def check_complete(out: Path, failed: Exception | None) -> None:
    """Raise the error by which a run has its fit, but not all tables and pictures; if any."""
    if failed is not None:
        print_note(f"{out} has the fit, which can predict, but not all tables and pictures.")
        raise failed if isinstance(failed, OSError) else RuntimeError(out) from failed
