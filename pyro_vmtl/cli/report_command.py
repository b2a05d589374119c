"""``pyro-vmtl report``: rewrite the report of a run, and print its tables."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path

import matplotlib
import typer

from pyro_vmtl.analysis import read_netcdf
from pyro_vmtl.cli.console import show_run
from pyro_vmtl.cli.run_directory import POSTERIOR, read_run
from pyro_vmtl.cli.run_report import write_run_report
from pyro_vmtl.cli.user_errors import report_user_errors

__all__ = ["rewrite_report"]


def rewrite_report(folder: Path, *, open_page: bool, as_json: bool) -> None:
    """Rewrite the report of a run directory, and print its tables."""
    matplotlib.use("agg")  # pictures go to files: no window, no display needed
    with report_user_errors(as_json=as_json):
        metrics, summary = read_run(folder)
        page = write_run_report(folder, metrics, read_netcdf(folder / POSTERIOR))
    if as_json:
        typer.echo(json.dumps({"run": str(folder), "report": str(page), **metrics}))
    else:
        show_run(metrics, summary, folder)
    if open_page:
        webbrowser.open(page.absolute().as_uri())
