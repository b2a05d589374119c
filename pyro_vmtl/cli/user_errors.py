"""What a command tells: notes, errors, and what its exit code says.

0 is done, 2 the user's input, 130 an interruption. All else is a fault of ours, and ends with 1.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

__all__ = ["check_device", "note", "told", "user_error"]


def user_error(message: str) -> NoReturn:
    """End with an error in what the user gave."""
    typer.secho(f"Error: {message}", err=True, fg="red")
    raise typer.Exit(2)


@contextmanager
def told(*, as_json: bool = False) -> Iterator[list[str]]:
    """Turn errors in the user's input into a message and exit code 2, and warnings into notes.

    Parameters
    ----------
    as_json
        Print errors to standard output as JSON?

    Yields
    ------
    list of str
        Notes so far.
    """
    from pyro_vmtl.estimators import DataNotice, VersionNotice

    notes: list[str] = []

    def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
        if issubclass(category, DataNotice | VersionNotice):
            notes.append(str(message))
            note(str(message))

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
        of_system = error.strerror is not None and error.filename is not None
        fail(f"{error.filename}: {error.strerror}." if of_system else str(error))
    except ValueError as error:
        fail(str(error))


def note(message: str) -> None:
    """Tell the user something on standard error."""
    typer.secho(f"Note: {message}", err=True, fg="yellow")


def check_device(device: str) -> None:
    """Check that numbers can be put on a device."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        user_error(f"--device {device} cannot be used ({reason}). Use --device cpu.")
