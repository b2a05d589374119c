"""``pyro-vmtl report``: one page with the tables and pictures of a run."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from typing import Any

import matplotlib
import typer

from pyro_vmtl.analysis import read_netcdf
from pyro_vmtl.cli.errors import InputError
from pyro_vmtl.cli.run_report import METRICS, POSTERIOR, write_run_report
from pyro_vmtl.cli.told import told

__all__ = ["report_run"]


def report_run(folder: Path, *, open_page: bool, as_json: bool) -> None:
    """Write the report of a run, and say where it is."""
    matplotlib.use("agg")  # pictures go to files: no window, no display needed
    with told(as_json=as_json):
        metrics = _read_metrics(folder)
        if not (folder / POSTERIOR).is_file():
            raise InputError(
                f"{folder} has no {POSTERIOR}: it was written by an earlier version, or not whole. "
                "Fit again with --overwrite."
            )
        page = write_run_report(folder, metrics, read_netcdf(folder / POSTERIOR))
    if as_json:
        typer.echo(json.dumps({"run": str(folder), "report": str(page), **metrics}))
    else:
        typer.echo(f"Report:   {page}")
    if open_page:
        webbrowser.open(page.absolute().as_uri())


def _read_metrics(folder: Path) -> dict[str, Any]:
    if not (folder / METRICS).is_file():
        raise InputError(f"{folder} is no run directory (it has no {METRICS}). Fit first.")
    try:
        metrics: dict[str, Any] = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / METRICS} cannot be read ({error}).") from error
    return metrics
