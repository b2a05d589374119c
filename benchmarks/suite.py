"""The suite: methods on all data sets that a default is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.runs import Outcome, make_trials, methods_for, run_benchmark
from benchmarks.suite_scores import average_ranks, judge, plot_average_ranks
from pyro_vmtl.data.atomic_files import atomic_write
from pyro_vmtl.datasets import SUITE, DataSet

__all__ = ["METHODS", "SAFE", "check_suite", "run_suite", "show_suite", "write_suite"]

SAFE = ("per-task", "pooled", "hierarchical")
"""What the default is to be no worse than."""

METHODS = (
    "default",
    *SAFE,
    "shared",
    "boosted-trees",
    "gaussian-process",
    "paper",
    "official",
)
"""Methods of the suite, each on the data sets that it can be given to."""

TOO_LARGE = {"gaussian-process": ("school", "synthetic 128 tasks")}
"""Data sets that a method is not feasible on."""


def check_suite() -> None:
    """Check that all data files are there.

    Raises
    ------
    OSError, ValueError
        As :meth:`~pyro_vmtl.datasets.DataSet.check`.
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
    """Run all trials that are not done yet, one data set after the other.

    Parameters
    ----------
    out
        Directory of the results, with a folder for each data set.
    methods
        Names of methods, among :data:`METHODS`.
    seeds
        Splits of each data set; all published ones where there are any.
    jobs
        How many trials to run at once.
    validation
        Test on held-out training rows?
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
    """Write the tidy results, ranks and a picture of them, each whole or not at all.

    Parameters
    ----------
    outcome
        What to write.
    out
        Directory of the results.
    """
    ranks = average_ranks(outcome.results)
    figure = plot_average_ranks(ranks).get_figure()
    assert isinstance(figure, Figure)
    for name, write in {
        "results.parquet": lambda path: outcome.results.to_parquet(path, index=False),
        "ranks.csv": lambda path: ranks.to_csv(path),
        "ranks.png": lambda path: figure.savefig(path, dpi=120, format="png"),
    }.items():
        with atomic_write(out / name) as scratch:
            write(scratch)
    plt.close(figure)


def show_suite(outcome: Outcome, out: Path) -> None:
    """Print the default beside the best simple method, mean ranks, and what failed.

    Parameters
    ----------
    outcome
        What to show.
    out
        Directory of the results.
    """
    console = Console()
    results = outcome.results
    methods = set(results.get("method", ()))
    if "default" in methods and methods & set(SAFE):
        console.print(_judgement(results))
    if methods:
        console.print(_ranks(results))
        files = [out / name for name in ("results.parquet", "ranks.csv", "ranks.png")]
        console.print(f"Results: {'  '.join(map(str, files))}", highlight=False, soft_wrap=True)
    for trial, error in outcome.failed.items():
        console.print(f"[bold]Failed:[/bold] {trial}: {error}", highlight=False, soft_wrap=True)


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
