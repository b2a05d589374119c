"""The files that a benchmark writes and the table that it prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.comparison import HIGHER_IS_BETTER, plot_comparison, summarise
from benchmarks.runs import Outcome
from pyro_vmtl.data.atomic_files import atomic_write

__all__ = ["print_outcome", "show_benchmark", "write_benchmark", "write_files"]

SHOWN = ("accuracy", "nmse", "nll", "ece", "coverage_90")
"""Metrics of the printed table, where available; the first available one is the main metric."""


def write_files(out: Path, contents: Mapping[str, pd.DataFrame | Figure]) -> None:
    """Write tables and figures, each atomically.

    Parameters
    ----------
    out
        Directory of the results.
    contents
        For each file name a table, or a figure for ``.png``.
    """
    for name, content in contents.items():
        with atomic_write(out / name) as scratch:
            if isinstance(content, Figure):
                content.savefig(scratch, format="png")
            elif name.endswith(".parquet"):
                content.to_parquet(scratch, index=False)
            else:
                content.to_csv(scratch, index=content.index.name is not None)


def write_benchmark(outcome: Outcome, out: Path) -> None:
    """Write the tidy results, their summary and a figure.

    Parameters
    ----------
    outcome
        Results of a benchmark.
    out
        Directory of the results.
    """
    results = outcome.results
    summary = summarise(results)
    flat = summary.set_axis([" ".join(column) for column in summary.columns], axis=1)
    first = next(metric for metric in SHOWN if (metric, "mean") in summary)
    figure = Figure(figsize=(13, 1.4 + 0.3 * len(summary)), layout="constrained", dpi=120)
    for ax, metric in zip(figure.subplots(1, 2), (first, "nll"), strict=True):
        plot_comparison(results, metric, ax)
    figure.suptitle(
        f"{results['data_set'].iloc[0]}: mean ± standard error over splits, each split in grey"
    )
    files = {"results.csv": results, "results.parquet": results, "summary.csv": flat}
    write_files(out, {**files, "comparison.png": figure})


def show_benchmark(outcome: Outcome, out: Path) -> None:
    """Print the summary, the trials that failed, and the paths of the files.

    Parameters
    ----------
    outcome
        Results of a benchmark.
    out
        Directory of the results.
    """
    names = ("results.csv", "results.parquet", "summary.csv", "comparison.png")
    tables = [] if outcome.results.empty else [_table(outcome.results)]
    print_outcome(outcome, tables, [out / name for name in names])


def print_outcome(outcome: Outcome, tables: list[Table], files: list[Path]) -> None:
    """Print tables, the paths of files if there are results, and the trials that failed."""
    console = Console()
    for table in tables:
        console.print(table)
    if not outcome.results.empty:
        console.print(f"Results: {'  '.join(map(str, files))}", highlight=False, soft_wrap=True)
    for trial, error in outcome.failed.items():
        console.print(f"[bold]Failed:[/bold] {trial}: {error}", highlight=False, soft_wrap=True)


def _table(results: pd.DataFrame) -> Table:
    summary = summarise(results)
    metrics = [metric for metric in SHOWN if (metric, "mean") in summary]
    table = Table(
        title=f"{results['data_set'].iloc[0]}: mean ± standard error, the best mean in bold",
        caption=f"rank: mean over splits of the ranks by {metrics[0]} and by nll",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", no_wrap=True)
    for metric in metrics:
        table.add_column("in 90 %" if metric == "coverage_90" else metric, no_wrap=True)
    counts = summary["runs", "count"]
    complete = summary[counts == counts.max()]
    for name in ("rank", "fit s", *(["runs"] if len(complete) < len(summary) else [])):
        table.add_column(name, justify="right", no_wrap=True)
    best = {
        metric: complete[metric, "mean"].max() if higher else complete[metric, "mean"].min()
        for metric, higher in HIGHER_IS_BETTER.items()
        if metric in metrics
    }
    for method, row in summary.iterrows():
        cells = []
        for metric in metrics:
            mean, error = row[metric, "mean"], row[metric, "se"]
            text = f"{mean:.3f}" + ("" if pd.isna(error) else f"±{error:.3f}")
            cells.append(f"[bold]{text}[/bold]" if mean == best.get(metric) else text)
        rank = (row[metrics[0], "rank"] + row["nll", "rank"]) / 2
        ends = [f"{rank:.1f}", f"{row['seconds', 'mean']:.1f}"]
        if len(complete) < len(summary):
            ends.append(f"{row['runs', 'count']:.0f}")
        table.add_row(str(method), *cells, *ends)
    return table
