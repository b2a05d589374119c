"""Run a lesson: what it prints and draws, and whether its checks pass and fail as they should."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lessons.cells import Cell

__all__ = ["CheckError", "Output", "run"]


class CheckError(Exception):
    """A check that passes without the solution, or fails with it."""


@dataclass(frozen=True)
class Output:
    """What a cell printed, and its pictures as PNG."""

    text: str = ""
    pictures: tuple[bytes, ...] = ()


def run(cells: Sequence[Cell], name: str = "lesson") -> dict[int, Output]:
    """Run the cells of a lesson as one who skips the exercises, and each check three times.

    A check has to fail for the gaps of its exercise and for every mistake, and to pass for the
    solution. What a solution defines is forgotten after its check: no cell may need it.

    Parameters
    ----------
    cells
        The cells.
    name
        What messages call the lesson.

    Returns
    -------
    dict
        Outputs of the cells by their numbers.

    Raises
    ------
    CheckError
        If a check passes where it should fail, or fails where it should pass.
    """
    import matplotlib

    matplotlib.use("Agg")
    known: dict[str, Any] = {"__name__": name}
    outputs: dict[int, Output] = {}
    attempts: list[tuple[int, Cell]] = []
    for number, cell in enumerate(cells):
        where = f"{name}, cell {number}"
        if cell.markdown:
            continue
        if {"solution", "wrong"} & {*cell.tags}:
            attempts.append((number, cell))
        elif "check" in cell.tags:
            if not any("solution" in attempt.tags for _, attempt in attempts):
                raise CheckError(f"{where}: there is no solution before the check.")
            _expect_failure(cell, dict(known), f"{where}: passes without a solution")
            for before, attempt in attempts:
                tried = dict(known)
                outputs[before] = _execute(attempt, tried, f"{name}, cell {before}")
                if "wrong" in attempt.tags:
                    _expect_failure(cell, tried, f"{where}: passes with the mistake of {before}")
                else:
                    outputs[number] = _execute(cell, tried, where)
            attempts = []
        else:
            outputs[number] = _execute(cell, known, where)
    return outputs


def _execute(cell: Cell, known: dict[str, Any], where: str) -> Output:
    import matplotlib.pyplot as plt

    plt.close("all")  # of others, or of a cell that failed
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(cell.source, f"<{where}>", "exec"), known)
    pictures = []
    for figure in map(plt.figure, plt.get_fignums()):
        png = io.BytesIO()
        figure.savefig(png, dpi=100, metadata={"Software": None})
        pictures.append(png.getvalue())
    plt.close("all")
    return Output(printed.getvalue(), tuple(pictures))


def _expect_failure(cell: Cell, known: dict[str, Any], where: str) -> None:
    try:
        _execute(cell, known, where)
    except Exception:
        return
    raise CheckError(f"{where}: the check cannot fail.")
