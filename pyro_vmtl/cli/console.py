"""What the commands print: short tables, and where to find the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pyro_vmtl.cli.scores import ALL

__all__ = ["TASK_COLUMNS", "show_run", "show_scores"]

TASK_COLUMNS = ("rows", "borrowed", "nearest", "weight")
"""Columns of a summary; those after them are members of a stack."""

MAX_TASKS = 12
"""Tasks that are listed."""

COMPARED = {"accuracy": True, "nll": False, "ece": False}
"""Metrics that are compared with baselines, and whether higher is better."""


def show_run(metrics: Mapping[str, Any], summary: pd.DataFrame, out: Path) -> None:
    """Print the ``metrics.json`` of a run, and the ``summary`` of its estimator."""
    console = Console()
    if "baselines" in metrics:
        console.print(_comparison(metrics))
    elif "all" in metrics:
        lines = {ALL: metrics["all"], **metrics["per_task"]}
        show_scores(pd.DataFrame.from_dict(lines, orient="index").astype({"rows": int}), console)
    console.print(_table("Who borrows from whom", summary[list(TASK_COLUMNS)], "summary.csv"))
    members = ", ".join(f"{name} {weight:.2f}" for name, weight in metrics["members"].items())
    rows = metrics["rows"]
    text = [
        f"Fitted {rows['fit']} rows of {metrics['tasks']} tasks ({metrics['kind']}) in "
        f"{metrics['seconds']:.1f} s.",
        *([f"Weights of the members: {members}"] if members else []),
        f"Results:  {out / 'metrics.json'}  {out / 'relatedness.csv'}",
        f"Report:   {out / 'report.html'}",
        f"Predict:  pyro-vmtl predict {out} FILE --out predictions.csv",
    ]
    console.print(*text, sep="\n", highlight=False, soft_wrap=True, markup=False)


def show_scores(scores: pd.DataFrame, console: Console | None = None) -> None:
    """Print a table of scores, the line of all rows first."""
    console = Console() if console is None else console
    console.print(_table("Scores on rows that were not fitted", scores, "metrics.json"))


def _comparison(metrics: Mapping[str, Any]) -> Table:
    """Lay the scores beside those of the baselines."""
    baselines = metrics["baselines"]
    methods = {"VMTL": metrics, "alone": baselines["single_task"], "pooled": baselines["pooled"]}
    table = Table(
        title="Test rows, the best of each row in bold",
        caption="alone, pooled: logistic regression, one per task and one for all tasks",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("\ntask", justify="right")
    for metric in COMPARED:
        for position, method in enumerate(methods):
            name = metric if metric == "accuracy" else metric.upper()
            table.add_column(f"{'' if position else name}\n{method}", justify="right")
    tasks = list(metrics["per_task"])
    for task in tasks:
        scores = [method["per_task"][task] for method in methods.values()]
        table.add_row(task, *_best_in_bold(scores), end_section=task == tasks[-1])
    table.add_row("mean", *_best_in_bold([method["mean"] for method in methods.values()]))
    return table


def _best_in_bold(scores: list[Mapping[str, float]]) -> list[str]:
    """Format one line, metric by metric."""
    cells = []
    for metric, higher_is_better in COMPARED.items():
        texts = [f"{score[metric]:.3f}" for score in scores]
        best = max(texts) if higher_is_better else min(texts)
        cells += [f"[bold]{text}[/bold]" if text == best else text for text in texts]
    return cells


def _table(title: str, frame: pd.DataFrame, file: str) -> Table:
    shown = frame.head(MAX_TASKS + (ALL in frame.index))
    more = len(frame) - len(shown)
    caption = f"and {more} more tasks, in {file}" if more else None
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD)
    table.add_column("task", justify="right")
    for name in frame.columns:
        table.add_column(str(name).replace("_", " "), justify="right")
    for label, *row in shown.itertuples():
        table.add_row(str(label), *map(_cell, row), style="bold" if label == ALL else None)
    return table


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
