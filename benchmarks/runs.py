"""Run trials in parallel, and resume an interrupted benchmark."""

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

from benchmarks.datasets.data_set import DataSet
from benchmarks.methods import all_presets
from benchmarks.trials import NUM_SAMPLES, Trial, run_trial
from pyro_vmtl._version import __version__
from pyro_vmtl.data.atomic_files import atomic_write

__all__ = ["Outcome", "make_trials", "run_benchmark"]


@dataclass(frozen=True)
class Outcome:
    """Results of a benchmark.

    Attributes
    ----------
    results
        tidy rows of all finished trials.
    failed
        the error of each failed trial, by its name.
    """

    results: pd.DataFrame
    failed: dict[str, str]


def make_trials(
    data_set: DataSet,
    methods: Sequence[str],
    *,
    seeds: int,
    validation: bool = False,
    device: str = "cpu",
) -> list[Trial]:
    """List the trials split by split, so that early splits are complete early.

    Parameters
    ----------
    data_set
        The data to fit.
    methods
        Names of methods.
    seeds
        Number of splits. The seed of a split is also that of its fits.
    validation
        Whether to test on held-out training rows.
    device
        Where to fit.
    """
    # Settings are chosen on other draws of the data than those that are reported.
    first = 100 if validation and data_set.num_splits is None else 0
    settings = all_presets(data_set.kind)
    return [
        Trial(data_set, seed, name, settings.get(name), validation, device)
        for seed in range(first, first + seeds)
        for name in methods
    ]


def run_benchmark(trials: Sequence[Trial], out: Path, *, jobs: int) -> Outcome:
    """Run unfinished trials in parallel, and save each result as soon as it is there.

    Parameters
    ----------
    trials
        The trials to run.
    out
        Directory of the results. Trials found there with the same settings are not run again.
    jobs
        Number of trials to run at once.
    """
    files = [out / "trials" / f"{_name(trial)}.parquet" for trial in trials]
    _check_same_data(trials[0], out)
    (out / "trials").mkdir(exist_ok=True)
    to_do = [(trial, file) for trial, file in zip(trials, files, strict=True) if not file.is_file()]
    failed: dict[str, str] = {}
    with _progress(len(trials), done=len(trials) - len(to_do)) as advance:
        finished = Parallel(n_jobs=jobs, return_as="generator_unordered")(
            delayed(_run_and_save)(trial, file) for trial, file in to_do
        )
        for trial, error in finished:
            if error:
                failed[_label(trial)] = error
            advance(_label(trial))
    done = [_read(file) for file in files if file.is_file()]
    return Outcome(pd.concat(done, ignore_index=True) if done else pd.DataFrame(), failed)


def _run_and_save(trial: Trial, file: Path) -> tuple[Trial, str | None]:
    """Run a trial in a worker process, and write its rows atomically."""
    torch.set_num_threads(1)  # one process per core already; more threads would compete
    try:
        rows = run_trial(trial)
    except (
        ValueError,
        ArithmeticError,
        RuntimeError,
        ImportError,
    ) as error:  # the other trials go on
        return trial, f"{type(error).__name__}: {error}"
    with atomic_write(file) as scratch:
        rows.to_parquet(scratch, index=False)
    return trial, None


def _read(file: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise OSError(f"{file} is damaged. Delete it and repeat the command.") from error


def _label(trial: Trial) -> str:
    return f"{trial.method}, split {trial.seed}"


def _name(trial: Trial) -> str:
    """Return the name of a trial's file, which depends on all settings."""
    settings = repr((trial, NUM_SAMPLES, __version__, torch.__version__))
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    return f"{trial.method}-{trial.seed}-{digest}"


def _check_same_data(trial: Trial, out: Path) -> None:
    """Check that earlier results in a directory are of the same data, or record the data."""
    path = out / "benchmark.json"
    data = f"{trial.data_set}{', validation rows' if trial.validation else ''}"
    if out.exists() and not path.is_file() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(
            f"{out} exists and holds no benchmark. Choose another directory with --out."
        )
    if path.is_file():
        try:
            before = json.loads(path.read_text())["data"]
        except (ValueError, KeyError) as error:
            raise OSError(f"{path} is damaged. Delete it and repeat the command.") from error
        if before != data:
            raise FileExistsError(
                f"{out} holds results of {before}, not of {data}. "
                "Choose another directory with --out."
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
    """Show a progress bar of the trials."""
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
