"""The suite: all data sets that the default is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks.datasets import SUITE
from benchmarks.datasets.data_set import DataSet
from benchmarks.methods import methods_for
from benchmarks.output import print_outcome, write_files
from benchmarks.runs import Outcome, make_trials, run_benchmark
from benchmarks.suite_scores import average_ranks, judge, plot_average_ranks

__all__ = ["METHODS", "SAFE", "check_suite", "run_suite", "show_suite", "write_suite"]

SAFE = ("per-task", "pooled", "hierarchical")
"""Simple methods that the default should be no worse than."""

METHODS = (
    "default",
    *SAFE,
    "shared",
    "boosted-trees",
    "gpytorch",
    "paper",
    "official",
)
"""Methods of the suite, each on the data sets that it applies to."""

TOO_LARGE = {"gpytorch": ("school", "synthetic 128 tasks")}
"""Data sets that are too large for a method."""


def check_suite() -> None:
    """Check that all data files exist.

    Raises
    ------
    OSError, ValueError
        As ``DataSet.check``.
    """
    for data_sets in SUITE.values():
        for data_set in data_sets:
            data_set.check()


def run_suite(
    out: Path,
    methods: Sequence[str],
    *,
    seeds: int,
    jobs: int,
    validation: bool = False,
    device: str = "cpu",
) -> Outcome:
    """Run all unfinished trials, one data set after the other.

    Parameters
    ----------
    out
        Directory of the results, with a subdirectory for each data set.
    methods
        Names from :data:`METHODS`.
    seeds
        Number of splits of each data set; where splits are published, all of them are used.
    jobs
        Number of trials to run at once.
    validation
        Whether to test on held-out training rows.
    device
        Where to fit.
    """
    results: list[pd.DataFrame] = []
    failed: dict[str, str] = {}
    for row, data_sets in SUITE.items():
        trials = []
        for data_set in data_sets:
            possible = [
                method
                for method in methods
                if method in methods_for(data_set) and row not in TOO_LARGE.get(method, ())
            ]
            num_splits = _num_splits(data_set, seeds=1 if len(data_sets) > 1 else seeds)
            trials += make_trials(
                data_set, possible, seeds=num_splits, validation=validation, device=device
            )
        if not trials:
            continue
        outcome = run_benchmark(trials, out / row.replace(" %", "").replace(" ", "-"), jobs=jobs)
        if not outcome.results.empty:
            results.append(outcome.results.assign(row=row))
        failed |= {f"{row}, {trial}": error for trial, error in outcome.failed.items()}
    return Outcome(pd.concat(results, ignore_index=True) if results else pd.DataFrame(), failed)


def _num_splits(data_set: DataSet, *, seeds: int) -> int:
    return seeds if data_set.num_splits is None else data_set.num_splits


def write_suite(outcome: Outcome, out: Path) -> None:
    """Write the tidy results, the ranks and a figure of them.

    Parameters
    ----------
    outcome
        Results of the suite.
    out
        Directory of the results.
    """
    ranks = average_ranks(outcome.results)
    figure = Figure(figsize=(7, 1.2 + 0.35 * len(ranks)), layout="constrained", dpi=120)
    plot_average_ranks(ranks, figure.subplots())
    write_files(out, {"results.parquet": outcome.results, "ranks.csv": ranks, "ranks.png": figure})


def show_suite(outcome: Outcome, out: Path) -> None:
    """Print the default beside the best simple method, mean ranks, and the failed trials.

    Parameters
    ----------
    outcome
        Results of the suite.
    out
        Directory of the results.
    """
    results = outcome.results
    methods = set(results.get("method", ()))
    tables = []
    if "default" in methods and methods & set(SAFE):
        tables.append(_judgement(results))
    if methods:
        tables.append(_ranks(results))
    names = ("results.parquet", "ranks.csv", "ranks.png")
    print_outcome(outcome, tables, [out / name for name in names])


def _judgement(results: pd.DataFrame) -> Table:
    table = Table(
        title="The default beside the best of per-task, pooled and hierarchical",
        caption="mean ± standard error; in bold where the default is worse by more than that",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for head in ("data", "", "default", "best other", "nll default", "best other", "ece, in 90 %"):
        table.add_column(head, no_wrap=True)
    for row, values in judge(results, "default", SAFE).iterrows():
        cells = [str(row), str(values["main", "metric"])]
        for kind in ("main", "nll"):
            own = f"{values[kind, 'mean']:.3f}±{values[kind, 'se']:.3f}"
            worse = values[kind, "gain"] < -1
            cells.append(f"[bold]{own}[/bold]" if worse else own)
            cells.append(f"{values[kind, 'its mean']:.3f} {values[kind, 'best other']}")
        calibration = values["calibration"].dropna()
        cells.append(f"{calibration.iloc[0]:.3f}")
        table.add_row(*cells)
    return table


def _ranks(results: pd.DataFrame) -> Table:
    table = Table(title="Mean rank over the data sets, 1 is best", box=SIMPLE_HEAD)
    for head in ("method", "accuracy, nmse", "nll", "data sets"):
        table.add_column(head, justify="left" if head == "method" else "right")
    for method, ranks in average_ranks(results).iterrows():
        table.add_row(
            str(method), f"{ranks['main']:.2f}", f"{ranks['nll']:.2f}", f"{ranks['rows']:.0f}"
        )
    return table
