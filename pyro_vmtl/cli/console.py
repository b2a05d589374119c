"""What the commands print: short tables, and where to find the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import pandas as pd
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pyro_vmtl.cli.safe_text import for_terminal
from pyro_vmtl.cli.scores import scores_frame

__all__ = ["TASK_COLUMNS", "show_predictions", "show_run", "show_scores"]

TASK_COLUMNS = ("rows", "borrowed", "nearest", "share")
"""Columns of a summary; those after them are members of a stack."""

RESULTS = ("metrics.json", "summary.csv", "relatedness.csv")
"""Files that are named; the last is not there of very many tasks."""

MAX_TASKS = 12
"""Tasks that are listed."""


def show_run(metrics: Mapping[str, Any], summary: pd.DataFrame, out: Path) -> None:
    """Print the ``metrics.json`` of a run, and the ``summary`` of its estimator."""
    console = Console()
    if "all" in metrics:
        show_scores(scores_frame(metrics), console)
    console.print(_table("Who borrows from whom", summary[list(TASK_COLUMNS)], "summary.csv", 0))
    members = ", ".join(f"{name} {weight:.2f}" for name, weight in metrics["members"].items())
    rows = metrics["rows"]
    text = [
        f"Fitted {rows['fit']} rows of {metrics['tasks']} tasks ({metrics['kind']}) in "
        f"{metrics['seconds']:.1f} s.",
        *([f"Weights of the members: {members}"] if members else []),
        f"Results:  {'  '.join(str(out / name) for name in RESULTS if (out / name).exists())}",
        f"Report:   {out / 'report.html'}",
        f"Predict:  pyro-vmtl predict {quote(str(out))} FILE --out predictions.csv",
    ]
    lines = "\n".join(map(for_terminal, text))
    console.print(lines, highlight=False, soft_wrap=True, markup=False, emoji=False)


def show_scores(
    scores: pd.DataFrame, console: Console | None = None, *, num_totals: int = 1
) -> None:
    """Print a table of scores, the line of all rows first, if there is one."""
    console = Console() if console is None else console
    title = "Scores on rows that were not fitted"
    console.print(_table(title, scores, "metrics.json", num_totals))


def show_predictions(out: Path, num_rows: int, notes: Sequence[str], *, as_json: bool) -> None:
    """Print where predictions were written."""
    if as_json:
        typer.echo(json.dumps({"predictions": str(out), "rows": num_rows, "notices": notes}))
    else:
        typer.echo(f"{num_rows} predictions: {out}")


def _table(title: str, frame: pd.DataFrame, file: str, num_totals: int) -> Table:
    shown = frame.head(MAX_TASKS + num_totals)
    more = len(frame) - len(shown)
    head = str(frame.index.name or "task")
    caption = f"and {more} more {head}s, in {file}" if more else None
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(head, justify="right")
    for name in frame.columns:
        table.add_column(str(name).replace("_", " "), justify="right")
    for number, (label, *row) in enumerate(shown.itertuples()):
        style = "bold" if number < num_totals else None
        table.add_row(Text(for_terminal(label)), *map(_cell, row), style=style)
    return table


def _cell(value: Any) -> Text:
    """Return a cell as text without markup."""
    if value is None or value != value:
        return Text("–")
    return Text(f"{value:.3f}" if isinstance(value, float) else for_terminal(value))
