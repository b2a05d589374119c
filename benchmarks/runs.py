"""Benchmarks: methods and splits of a data set, resumable."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from joblib import Parallel, delayed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.trials import NUM_SAMPLES, PLAIN, Trial, run_trial
from pyro_vmtl import __version__
from pyro_vmtl.data.atomic_files import atomic_write
from pyro_vmtl.datasets import DataSet
from pyro_vmtl.methods.presets import presets

__all__ = ["Outcome", "make_trials", "methods_for", "run_benchmark"]


@dataclass(frozen=True)
class Outcome:
    """What a benchmark gave.

    Attributes
    ----------
    results
        tidy rows of all trials that are done.
    failed
        for each trial that failed its name and the error.
    """

    results: pd.DataFrame
    failed: dict[str, str]


def methods_for(data_set: DataSet) -> list[str]:
    """Names of the methods that a data set can be given to."""
    return [*presets(data_set.kind), *PLAIN[data_set.kind]]


def make_trials(
    data_set: DataSet,
    methods: Sequence[str],
    *,
    seeds: int,
    validation: bool = False,
    device: str = "cpu",
) -> list[Trial]:
    """List what there is to fit, split by split, so that early splits are complete early.

    Parameters
    ----------
    data_set
        What to fit.
    methods
        Names of methods.
    seeds
        Number of splits. The seed of a split is that of its fits, too.
    validation
        Test on held-out training rows?
    device
        Where to fit.
    """
    # Settings are chosen on other draws of the data than those that are reported.
    first = 100 if validation and data_set.num_splits is None else 0
    settings = presets(data_set.kind)
    return [
        Trial(data_set, seed, name, settings.get(name), validation, device)
        for seed in range(first, first + seeds)
        for name in methods
    ]


def run_benchmark(trials: Sequence[Trial], out: Path, *, jobs: int) -> Outcome:
    """Run the trials that are not done yet, in parallel, and keep each result as it comes.

    Parameters
    ----------
    trials
        What to fit.
    out
        Directory of the results. Trials that are there with the same settings are not run again.
    jobs
        How many to run at once.
    """
    files = [out / "trials" / f"{_name(trial)}.parquet" for trial in trials]
    _check_same_data(trials[0], out)
    (out / "trials").mkdir(exist_ok=True)
    to_do = [(trial, file) for trial, file in zip(trials, files, strict=True) if not file.is_file()]
    failed: dict[str, str] = {}
    with _progress(len(trials), done=len(trials) - len(to_do)) as advance:
        finished = Parallel(n_jobs=jobs, return_as="generator_unordered")(
            delayed(_run_and_keep)(trial, file) for trial, file in to_do
        )
        for trial, error in finished:
            if error:
                failed[_label(trial)] = error
            advance(_label(trial))
    done = [_read(file) for file in files if file.is_file()]
    return Outcome(pd.concat(done, ignore_index=True) if done else pd.DataFrame(), failed)


def _run_and_keep(trial: Trial, file: Path) -> tuple[Trial, str | None]:
    """Run a trial in a worker process, and write its rows whole or not at all."""
    torch.set_num_threads(1)  # a process for each core; threads would only wait for one another
    try:
        rows = run_trial(trial)
    except (ValueError, ArithmeticError, RuntimeError, ImportError) as error:  # one of many trials
        return trial, f"{type(error).__name__}: {error}"
    with atomic_write(file) as scratch:
        rows.to_parquet(scratch, index=False)
    return trial, None


def _read(file: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise OSError(f"{file} is damaged. Delete it and give the command again.") from error


def _label(trial: Trial) -> str:
    return f"{trial.method}, split {trial.seed}"


def _name(trial: Trial) -> str:
    """Name of a trial's file; other settings give another name, so that they are run anew."""
    settings = repr((trial, NUM_SAMPLES, __version__, torch.__version__))
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    return f"{trial.method}-{trial.seed}-{digest}"


def _check_same_data(trial: Trial, out: Path) -> None:
    """Check that earlier results in a directory are of the same data; note what these are."""
    path = out / "benchmark.json"
    data = f"{trial.data_set}{', validation rows' if trial.validation else ''}"
    if out.exists() and not path.is_file() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(
            f"{out} is there and holds no benchmark. Choose another folder with --out."
        )
    if path.is_file():
        try:
            before = json.loads(path.read_text())["data"]
        except (ValueError, KeyError) as error:
            raise OSError(f"{path} is damaged. Delete it and give the command again.") from error
        if before != data:
            raise FileExistsError(
                f"{out} holds results of {before}, not of {data}. Choose another folder with --out."
            )
        return
    machine = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "platform": platform.platform(),
    }
    content: dict[str, Any] = {"data": data, "pyro_vmtl": __version__, "machine": machine}
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as scratch:
        scratch.write_text(json.dumps(content, indent=2) + "\n")


@contextmanager
def _progress(total: int, *, done: int) -> Iterator[Any]:
    """Show how many trials are done, the last one and the time that remains."""
    columns = (
        TextColumn("trials"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[last]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total, completed=done, last="")
        yield lambda last: bar.update(task, advance=1, last=f"done: {last}")
