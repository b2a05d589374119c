"""``pyro-vmtl predict``, ``evaluate`` and ``report``: use a run that a fit has left."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from typing import Any

import matplotlib
import typer
import xarray as xr

from pyro_vmtl.analysis import read_netcdf
from pyro_vmtl.cli.console import show_predictions, show_run, show_scores
from pyro_vmtl.cli.fit_problem import Rows
from pyro_vmtl.cli.read_table import read_table
from pyro_vmtl.cli.run_directory import FittedTable, beside, read_run
from pyro_vmtl.cli.run_files import INFLUENCE, METRICS, POSTERIOR, run_file
from pyro_vmtl.cli.run_report import report_damage, write_run_report
from pyro_vmtl.cli.scores import predictions, score_table, scores_as_json, scores_frame
from pyro_vmtl.cli.user_errors import print_note, report_user_errors
from pyro_vmtl.cli.write_table import check_table_path, write_table
from pyro_vmtl.estimators import check_device

__all__ = ["report_of_run", "rewrite_report", "run_evaluate", "run_predict"]


def run_predict(
    folder: Path,
    table: Path,
    out: Path,
    *,
    device: str,
    spreadsheet: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Predict the rows of a table, and write the predictions."""
    with report_user_errors(as_json=as_json) as notes:
        check_table_path(out, overwrite=overwrite)
        fitted, rows = _read(folder, table, notes, device=device)
        predicted = predictions(fitted.estimator, rows)
        found = beside(predicted, rows, {fitted.columns.task: rows.tasks})
        write_table(found, out, spreadsheet=spreadsheet)
    show_predictions(out, len(predicted), notes, as_json=as_json)


def run_evaluate(folder: Path, table: Path, *, device: str, as_json: bool) -> None:
    """Score a run on the rows of a table."""
    with report_user_errors(as_json=as_json) as notes:
        fitted, rows = _read(folder, table, notes, device=device, with_target=True)
        scores = score_table(fitted.estimator, predictions(fitted.estimator, rows), rows)
    if as_json:
        typer.echo(json.dumps({**scores_as_json(scores), "notices": notes}))
    else:
        show_scores(scores_frame(scores_as_json(scores)))


def rewrite_report(folder: Path, *, open_page: bool, as_json: bool) -> None:
    """Rewrite the report of a run directory, and print its tables."""
    matplotlib.use("agg")  # pictures go to files: no window, no display needed
    with report_user_errors(as_json=as_json):
        metrics, summary = read_run(folder)
        page = report_of_run(folder, metrics)
    if as_json:
        typer.echo(json.dumps({"run": str(folder), "report": str(page), **metrics}))
    else:
        show_run(metrics, summary, folder)
    if open_page:
        webbrowser.open(page.absolute().as_uri())


def report_of_run(
    folder: Path, metrics: dict[str, Any], influence: xr.DataTree | None = None
) -> Path:
    """Write the report of a run from its files, with influence if it was added; return the page.

    That of now takes the place of one that was added before.
    """
    tree = read_netcdf(run_file(folder, POSTERIOR, "RUN_BYTES"))
    if influence is not None:
        tree["influence"] = influence
    elif (folder / INFLUENCE).exists():
        tree["influence"] = read_netcdf(run_file(folder, INFLUENCE, "RUN_BYTES"))
    with report_damage(folder, POSTERIOR, METRICS, INFLUENCE):
        return write_run_report(folder, metrics, tree)


def _read(
    folder: Path, table: Path, notes: list[str], *, device: str, with_target: bool = False
) -> tuple[FittedTable, Rows]:
    """Load a run, read the rows of a table for it, and print what is unusual in them."""
    check_device(device)
    fitted = FittedTable.load(folder, device=device)
    content = read_table(table, fitted.columns.missing)
    rows = fitted.read(content, with_target=with_target)
    for message in fitted.columns.unusual(content):
        notes.append(message)
        print_note(message)
    return fitted, rows
