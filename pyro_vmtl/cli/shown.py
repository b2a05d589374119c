"""What the commands on tables print: short tables, and where the rest is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pyro_vmtl.cli.evaluation import ALL

__all__ = ["OF_TASKS", "show_run_of_table", "show_scores"]

OF_TASKS = ("rows", "borrowed", "nearest", "weight")
"""Columns of a summary; those after them are members."""

MOST_TASKS = 12
"""Tasks that are listed."""


def show_run_of_table(metrics: Mapping[str, Any], summary: pd.DataFrame, out: Path) -> None:
    """Print a run.

    Parameters
    ----------
    metrics
        What ``metrics.json`` holds.
    summary
        A row per task, as the estimators' ``summary`` gives it.
    out
        The run directory.
    """
    console = Console()
    if "all" in metrics:
        scores = pd.DataFrame.from_dict(
            {ALL: metrics["all"], **metrics["per_task"]}, orient="index"
        ).astype({"rows": int})
        show_scores(scores, console)
    title = "Who borrows from whom"
    console.print(_table(title, summary[list(OF_TASKS)], "summary.csv"))
    members = ", ".join(f"{name} {weight:.2f}" for name, weight in metrics["members"].items())
    rows = metrics["rows"]
    lines = [
        f"Fitted {rows['fit']} rows of {metrics['tasks']} tasks ({metrics['kind']}) in "
        f"{metrics['seconds']:.1f} s.",
        *([f"Weights of the members: {members}"] if members else []),
        f"Results:  {out / 'metrics.json'}  {out / 'relatedness.csv'}",
        f"Report:   {out / 'report.html'}",
        f"Predict:  pyro-vmtl predict {out} FILE --out predictions.csv",
    ]
    console.print(*lines, sep="\n", highlight=False, soft_wrap=True, markup=False)


def show_scores(scores: pd.DataFrame, console: Console | None = None) -> None:
    """Print a table of scores, the line of all rows first."""
    console = Console() if console is None else console
    console.print(_table("Rows that were not fitted", scores, "metrics.json"))


def _table(title: str, frame: pd.DataFrame, where: str) -> Table:
    shown = frame.head(MOST_TASKS + (ALL in frame.index))
    more = len(frame) - len(shown)
    caption = f"and {more} tasks more, in {where}" if more else None
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD)
    table.add_column("task", justify="right")
    for name in frame.columns:
        table.add_column(str(name).replace("_", " "), justify="right")
    for label, *row in shown.itertuples():
        style = "bold" if label == ALL else None
        table.add_row(str(label), *map(_cell, row), style=style)
    return table


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)
