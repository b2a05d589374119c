"""``pyro-vmtl report``: one page with the tables and pictures of a run."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import typer

from pyro_vmtl.analysis import read_netcdf
from pyro_vmtl.cli.errors import InputError
from pyro_vmtl.cli.run_report import METRICS, POSTERIOR, write_run_report
from pyro_vmtl.cli.shown import show_run_of_table
from pyro_vmtl.cli.user_errors import told

__all__ = ["report_run"]

SUMMARY = "summary.csv"


def report_run(folder: Path, *, open_page: bool, as_json: bool) -> None:
    """Write the report of a run, show its tables, and say where it is."""
    matplotlib.use("agg")  # pictures go to files: no window, no display needed
    with told(as_json=as_json):
        metrics, summary = _read_run(folder)
        if not (folder / POSTERIOR).is_file():
            raise InputError(
                f"{folder} has no {POSTERIOR}: it was written by an earlier version, or is not "
                "whole. Fit again with --overwrite."
            )
        page = write_run_report(folder, metrics, read_netcdf(folder / POSTERIOR))
    if as_json:
        typer.echo(json.dumps({"run": str(folder), "report": str(page), **metrics}))
    elif summary is not None:
        show_run_of_table(metrics, summary, folder)
    else:
        typer.echo(f"Report:   {page}")
    if open_page:
        webbrowser.open(page.absolute().as_uri())


def _read_run(folder: Path) -> tuple[dict[str, Any], pd.DataFrame | None]:
    """Read the metrics of a run directory and, if it is of a table, its summary."""
    if not (folder / METRICS).is_file():
        raise InputError(f"{folder} is no run directory (it has no {METRICS}). Fit first.")
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        found, summary = set(metrics), None
        if (folder / SUMMARY).is_file():
            texts = {"task": str, "nearest": str}
            summary = pd.read_csv(folder / SUMMARY, index_col="task", dtype=texts)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder} cannot be read ({error}). Take an unchanged copy.") from error
    if not {"kind", "rows", "tasks", "seconds", "stopped", "settings"} <= found:
        raise InputError(
            f"{folder / METRICS} is no run of `pyro-vmtl fit`, or of an earlier version. "
            "Fit again with --overwrite."
        )
    return metrics, summary
