"""What a run prints: a row per task, relatedness, and where the rest is."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pyro_vmtl.cli.digits import DigitsRun

__all__ = ["show_run"]

HIGHER_IS_BETTER = {"accuracy": True, "nll": False, "ece": False}


def show_run(run: DigitsRun, baselines: dict[str, pd.DataFrame], out: Path) -> None:
    """Print a run to standard output.

    Parameters
    ----------
    run
        What to show.
    baselines
        ``single_task`` and ``pooled`` metrics to lay beside it.
    out
        Its run directory.
    """
    console = Console()
    console.print(_metrics_table(run.metrics, baselines), _relatedness_table(run.relatedness))
    if not run.members.empty:
        console.print(_members_table(run.members))
    result = run.result
    if result.stopped == "interrupted":
        console.print("[bold]Interrupted: what was fitted so far counts.[/bold]")
    console.print(
        f"Fitted in {result.seconds:.1f} s.",
        f"Results:  {out / 'metrics.json'}  {out / 'relatedness.csv'}",
        f"Report:   {out / 'report.html'}",
        sep="\n",
        highlight=False,
        soft_wrap=True,
    )


def _metrics_table(metrics: pd.DataFrame, baselines: dict[str, pd.DataFrame]) -> Table:
    methods = {
        "VMTL": metrics,
        "alone": baselines["single_task"],
        "pooled": baselines["pooled"],
    }
    table = Table(
        title="Test images, the best of each row in bold",
        caption="alone, pooled: logistic regression, one per task and one for all tasks",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("\ntask", justify="right")
    for metric in HIGHER_IS_BETTER:
        for position, method in enumerate(methods):
            head = {"accuracy": "accuracy", "nll": "NLL", "ece": "ECE"}[metric]
            table.add_column(f"{'' if position else head}\n{method}", justify="right")
    means = {method: frame.mean() for method, frame in methods.items()}
    for task in metrics.index:
        rows = {method: frame.loc[task] for method, frame in methods.items()}
        table.add_row(str(task), *_cells(rows), end_section=task == metrics.index[-1])
    table.add_row("mean", *_cells(means))
    return table


def _cells(rows: dict[str, pd.Series]) -> list[str]:
    """Format one line, metric by metric, with the best method of each in bold."""
    cells = []
    for metric, higher in HIGHER_IS_BETTER.items():
        texts = [f"{row[metric]:.3f}" for row in rows.values()]
        best = max(texts) if higher else min(texts)
        cells += [f"[bold]{text}[/bold]" if text == best else text for text in texts]
    return cells


def _members_table(members: pd.DataFrame) -> Table:
    table = Table(
        title="How much each prior counts",
        caption="weights of largest density of held-out training rows",
        box=SIMPLE_HEAD,
    )
    table.add_column("task", justify="right")
    for name in members.columns:
        table.add_column(str(name), justify="right")
    for task, row in members.iterrows():
        table.add_row(str(task), *(f"{weight:.2f}" for weight in row))
    return table


def _relatedness_table(relatedness: pd.DataFrame) -> Table:
    means = relatedness.xs("mean", axis=1, level=1)
    table = Table(
        title="Relatedness: how much each task borrows",
        caption="mean weights; their 90 % intervals are in relatedness.csv",
        box=SIMPLE_HEAD,
    )
    table.add_column("task", justify="right")
    for source in means.columns:
        table.add_column(str(source), justify="right")
    for task, row in means.iterrows():
        cells = ["–" if pd.isna(weight) else f"{weight:.2f}" for weight in row]
        table.add_row(str(task), *cells)
    return table
