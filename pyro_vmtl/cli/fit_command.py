"""``pyro-vmtl fit``: fit a table, and write a run directory."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import matplotlib
import torch
import typer
from filelock import FileLock, Timeout

from pyro_vmtl.cli.console import show_run
from pyro_vmtl.cli.fit_problem import DIGITS, FitProblem, read_problem
from pyro_vmtl.cli.run_directory import FittedTable, write_run
from pyro_vmtl.cli.run_files import METRICS
from pyro_vmtl.cli.scores import Estimator
from pyro_vmtl.cli.settings import FitSettings
from pyro_vmtl.cli.user_errors import (
    InputError,
    check_complete,
    print_note,
    report_user_errors,
)
from pyro_vmtl.data.atomic_files import check_writable
from pyro_vmtl.estimators import OutlierWarning, VMTLClassifier, VMTLRegressor, check_device
from pyro_vmtl.methods.presets import presets

__all__ = ["run_fit"]

MIN_FREE_BYTES = 100_000_000
"""Disk space that must be free before a fit."""

SMALL = 20_000_000
"""Numbers in a table below which threads would only wait for one another."""


def run_fit(settings: FitSettings, *, overwrite: bool, resume: bool, as_json: bool) -> None:
    """Fit a table, write a run directory, and print what is in it.

    ``overwrite`` replaces an earlier run and discards an interrupted fit; ``resume`` continues it.
    """
    matplotlib.use("agg")  # pictures go to files: no window, no display needed
    out = settings.folder
    if resume and (out / METRICS).is_file():
        typer.echo(f"{out} is complete: there is nothing to resume.", err=True)
        return
    checkpoints = out.with_name(f"{out.name}.checkpoints")
    with report_user_errors(as_json=as_json) as notes, ExitStack() as stack:
        check_writable(out, overwrite=overwrite, marker=METRICS)
        stack.enter_context(_only_fit(out))
        if checkpoints.exists() and not (overwrite or resume):
            raise InputError(
                f"{checkpoints} holds a fit that was interrupted. Continue it with --resume, or "
                "start anew with --overwrite."
            )
        problem = read_problem(settings)
        check_device(settings.device)
        known = presets(problem.kind)
        if settings.method not in known:
            raise InputError(
                f"--method is {settings.method!r}, expected one of {', '.join(known)} for "
                f"{problem.kind}."
            )
        _check_free_space(out)
        for message in problem.notices:
            print_note(message)
        if overwrite:
            shutil.rmtree(checkpoints, ignore_errors=True)
        fitted = _fit(problem, checkpoints, progress=not as_json)
        if fitted.estimator.fitted_.result.stopped == "interrupted":
            typer.echo("Interrupted. The same command with --resume continues the fit.", err=True)
            raise typer.Exit(130)
        metrics, failed = write_run(problem, fitted, notices=notes, overwrite=overwrite)
        shutil.rmtree(checkpoints, ignore_errors=True)
        check_complete(out, failed)
    if as_json:
        typer.echo(json.dumps({"run": str(out), **metrics}, default=str))
    else:
        show_run(metrics, fitted.estimator.summary(), out)


@contextmanager
def _only_fit(out: Path) -> Iterator[None]:
    """Keep other fits from the same run directory, whose checkpoints would be mixed up."""
    is_new = not out.parent.exists()
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.with_name(f".{out.name}.lock")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"Another fit is writing {out}. Wait for its end, or choose another --out."
        ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
        if is_new:
            with suppress(OSError):  # it is empty where nothing was fitted
                out.parent.rmdir()


def _fit(problem: FitProblem, checkpoints: Path, *, progress: bool) -> FittedTable:
    """Fit the training rows, keeping the state of the fit in a folder to resume from."""
    settings, train = problem.settings, problem.train
    common: dict[str, Any] = {
        "method": settings.method,
        "scale_features": settings.source != DIGITS,  # pixels share a unit
        "random_state": settings.seed,
        "device": settings.device,
        "progress": progress,
    }
    estimator: Estimator
    if problem.kind == "classification":
        estimator = VMTLClassifier(**common)
    else:
        likelihood = "poisson" if problem.kind == "counts" else "normal"
        estimator = VMTLRegressor(likelihood=likelihood, **common)  # type: ignore[arg-type]
    if train.X.size < SMALL:
        torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutlierWarning)  # told with rows of the file
        estimator.fit(train.X, train.y, train.tasks, checkpoints=checkpoints)
    return FittedTable(problem.columns, problem.kind, estimator)


def _check_free_space(out: Path) -> None:
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < MIN_FREE_BYTES:
        raise InputError(
            f"{parent} has {free / 1e6:.0f} MB free, expected at least "
            f"{MIN_FREE_BYTES / 1e6:.0f} MB for the run and its checkpoints. Free some space, or "
            "choose another folder with --out."
        )
