"""The commands on tables: fit, predict, evaluate, report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import matplotlib
import pandas as pd
import typer

from pyro_vmtl.cli.errors import InputError
from pyro_vmtl.cli.evaluation import predictions, score_table, scores_as_json
from pyro_vmtl.cli.run_report import METRICS
from pyro_vmtl.cli.settings import FitSettings
from pyro_vmtl.cli.shown import show_run_of_table, show_scores
from pyro_vmtl.cli.table_files import read_table, write_table
from pyro_vmtl.cli.table_fit import (
    checkpoints_of,
    fit_table,
    read_problem,
    write_table_run,
)
from pyro_vmtl.cli.table_run import TableRun
from pyro_vmtl.cli.user_errors import check_device, note, told
from pyro_vmtl.data.atomic_files import check_writable
from pyro_vmtl.methods.presets import presets

__all__ = ["evaluate_table", "fit_table_run", "predict_table"]

SPACE = 100_000_000
"""Bytes that should be free before a fit."""


def fit_table_run(settings: FitSettings, *, overwrite: bool, resume: bool, as_json: bool) -> None:
    """Fit a table, and write a run directory."""
    matplotlib.use("agg")
    out = settings.folder
    if resume and (out / METRICS).is_file():
        typer.echo(f"{out} is complete: there is nothing to go on with.", err=True)
        return
    checkpoints = checkpoints_of(out)
    with told(as_json=as_json) as notes:
        check_writable(out, overwrite=overwrite, marker=METRICS)
        _check_checkpoints(checkpoints, overwrite=overwrite, resume=resume)
        problem = read_problem(settings)
        check_device(settings.device)
        known = presets(problem.kind)
        if settings.method not in known:
            raise InputError(
                f"--method is {settings.method!r}, expected one of {', '.join(known)} for "
                f"{problem.kind}."
            )
        _check_space(out)
        for message in problem.notices:
            note(message)
        if overwrite:
            shutil.rmtree(checkpoints, ignore_errors=True)
        run = fit_table(problem, checkpoints, progress=not as_json)
        if run.estimator.fit_result_.stopped == "interrupted":
            typer.echo("Interrupted. The same command with --resume goes on.", err=True)
            raise typer.Exit(130)
        metrics = write_table_run(problem, run, notices=notes, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps({"run": str(out), **metrics}, default=str))
    else:
        show_run_of_table(metrics, run.estimator.summary(), out)


def predict_table(
    folder: Path, table: Path, out: Path, *, device: str, overwrite: bool, as_json: bool
) -> None:
    """Predict the rows of a table."""
    with told(as_json=as_json) as notes:
        if out.exists() and not overwrite:
            raise InputError(f"{out} exists already. Choose another --out, or pass --overwrite.")
        run = TableRun.load(folder, device=device)
        content = read_table(table)
        rows = run.read(content)
        _tell(run, content, notes)
        predicted = predictions(run.estimator, rows.X, rows.tasks)
        predicted.insert(0, "row", range(2, len(predicted) + 2))  # as a spreadsheet counts
        predicted.insert(1, run.columns.task, rows.tasks)
        write_table(predicted, out, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps({"predictions": str(out), "rows": len(predicted), "notices": notes}))
    else:
        typer.echo(f"{len(predicted)} predictions: {out}")


def evaluate_table(folder: Path, table: Path, *, device: str, as_json: bool) -> None:
    """Test a run on the rows of a table."""
    with told(as_json=as_json) as notes:
        run = TableRun.load(folder, device=device)
        content = read_table(table)
        rows = run.read(content, with_target=True)
        _tell(run, content, notes)
        predicted = predictions(run.estimator, rows.X, rows.tasks, rows.y)
        scores = score_table(run.estimator, predicted, rows.y, rows.tasks)
    if as_json:
        typer.echo(json.dumps({**scores_as_json(scores), "notices": notes}))
    else:
        show_scores(scores)


def _tell(run: TableRun, table: pd.DataFrame, notes: list[str]) -> None:
    """Tell what was filled in, or is new."""
    for message in run.columns.unusual(table):
        notes.append(message)
        note(message)


def _check_checkpoints(checkpoints: Path, *, overwrite: bool, resume: bool) -> None:
    if checkpoints.exists() and not (overwrite or resume):
        raise InputError(
            f"{checkpoints} holds a fit that was interrupted. Go on with it by --resume, or begin "
            "anew with --overwrite."
        )


def _check_space(out: Path) -> None:
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < SPACE:
        raise InputError(
            f"{parent} has {free / 1e6:.0f} MB free, expected at least {SPACE / 1e6:.0f} MB for "
            "the run and its checkpoints. Make room, or choose another folder with --out."
        )
