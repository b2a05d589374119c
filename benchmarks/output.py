"""What a benchmark leaves behind, and what it prints."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.comparison import HIGHER_IS_BETTER, plot_comparison, summarise
from benchmarks.runs import Outcome
from pyro_vmtl.data.atomic_files import atomic_write

__all__ = ["show_benchmark", "write_benchmark"]

SHOWN = ("accuracy", "nmse", "nll", "ece", "coverage_90")
"""Metrics of the printed table, as far as there are any; the first is the main one."""


def write_benchmark(outcome: Outcome, out: Path) -> None:
    """Write the tidy results, their summary and a picture, each whole or not at all.

    Parameters
    ----------
    outcome
        What to write.
    out
        Directory of the results.
    """
    results = outcome.results
    summary = summarise(results)
    flat = summary.set_axis([" ".join(column) for column in summary.columns], axis=1)
    first = next(metric for metric in SHOWN if (metric, "mean") in summary)
    figure, axes = plt.subplots(1, 2, figsize=(13, 1.4 + 0.3 * len(summary)), layout="constrained")
    for ax, metric in zip(axes, (first, "nll"), strict=True):
        plot_comparison(results, metric, ax)
    figure.suptitle(
        f"{results['data_set'].iloc[0]}: mean ± standard error over splits, each split in grey"
    )
    for name, write in {
        "results.csv": lambda path: results.to_csv(path, index=False),
        "results.parquet": lambda path: results.to_parquet(path, index=False),
        "summary.csv": lambda path: flat.to_csv(path),
        "comparison.png": lambda path: figure.savefig(path, dpi=120, format="png"),
    }.items():
        with atomic_write(out / name) as scratch:
            write(scratch)
    plt.close(figure)


def show_benchmark(outcome: Outcome, out: Path) -> None:
    """Print the summary, what failed, and where the rest is.

    Parameters
    ----------
    outcome
        What to show.
    out
        Directory of the results.
    """
    console = Console()
    if not outcome.results.empty:
        console.print(_table(outcome.results))
        files = [out / name for name in ("results.csv", "results.parquet", "summary.csv")]
        console.print(
            f"Results: {'  '.join(map(str, files))}",
            f"Picture: {out / 'comparison.png'}",
            sep="\n",
            highlight=False,
            soft_wrap=True,
        )
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
