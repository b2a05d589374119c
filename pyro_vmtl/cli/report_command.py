"""``pyro-vmtl report``: one page with the tables and pictures of a run."""

from __future__ import annotations

import json
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import typer
import xarray as xr

from pyro_vmtl.analysis import ReportTable, Section, read_netcdf, report_sections, write_report
from pyro_vmtl.cli.errors import InputError
from pyro_vmtl.cli.evaluation import ALL
from pyro_vmtl.cli.runs import METRICS, POSTERIOR
from pyro_vmtl.cli.told import told

__all__ = ["report_run", "write_run_report"]

SCORES = {
    "rows": "rows",
    "accuracy": "accuracy",
    "nll": "NLL (nats per row)",
    "ece": "ECE",
    "rmse": "RMSE",
    "explained_variance": "explained variance",
    "coverage_50": "inside 50 %",
    "coverage_90": "inside 90 %",
}
"""Names of scores, in the order they are shown in."""


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


def write_run_report(folder: Path, metrics: Mapping[str, Any], data: xr.DataTree) -> Path:
    """Write the report of a run into its folder.

    Parameters
    ----------
    folder
        The run directory.
    metrics
        What its ``metrics.json`` holds.
    data
        What its ``posterior.nc`` holds.

    Returns
    -------
    Path
        The page.
    """
    settings, versions = metrics["settings"], json.loads(data.attrs["versions"])
    source = Path(str(settings["source"])).name
    sections = [
        Section(
            "scores",
            "Scores on rows that were not fitted",
            tables=[_scores(metrics)] if "per_task" in metrics else [],
        ),
        *report_sections(data),
        Section("reproduce", "Reproduce it, and look further", code=_code(folder, settings)),
    ]
    return write_report(
        folder,
        sections,
        title=f"{source}: who borrows from whom, and how sure it is",
        summary=_summary(metrics, data),
        footer="Written by pyro_vmtl "
        + ", ".join(f"{name} {version}" for name, version in versions.items()).removeprefix(
            "pyro_vmtl "
        ),
    )


def _read_metrics(folder: Path) -> dict[str, Any]:
    if not (folder / METRICS).is_file():
        raise InputError(f"{folder} is no run directory (it has no {METRICS}). Fit first.")
    try:
        metrics: dict[str, Any] = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / METRICS} cannot be read ({error}).") from error
    return metrics


def _summary(metrics: Mapping[str, Any], data: xr.DataTree) -> list[str]:
    rows = metrics["rows"]
    ends = {
        "settled": "the loss had settled",
        "steps": "it used all its steps: more may help",
        "interrupted": "it was interrupted",
    }
    tested = f", {rows['test']:,} to test" if rows["test"] else ", none kept for testing"
    return [
        f"{metrics['tasks']} tasks, {rows['fit']:,} rows to learn from{tested} "
        f"({metrics['kind']}). Fitted in {metrics['seconds']:.0f} s; {ends[metrics['stopped']]}.",
    ]


def _scores(metrics: Mapping[str, Any]) -> ReportTable:
    """Lay out the scores: all rows first, then each task."""
    lines = {ALL: metrics["all"], **metrics["per_task"]}
    frame = pd.DataFrame.from_dict(lines, orient="index").rename_axis("task")
    columns = [name for name in SCORES if name in frame]
    frame = frame[columns].rename(columns=SCORES)
    if "rows" in frame:
        frame["rows"] = frame["rows"].astype(int)
    for method, scores in metrics.get("baselines", {}).items():
        others = {ALL: scores, **scores["per_task"]}
        for name in ("accuracy", "nll"):
            frame[f"{SCORES[name]}, {method}"] = [others[label][name] for label in frame.index]
    return ReportTable("Scores by task", frame, first_is_total=True)


def _code(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    again = (
        f"pyro-vmtl fit digits --seed {settings['seed']} --out {folder}-again"
        if settings["source"] == "digits"
        else f"pyro-vmtl fit --config {folder / 'config.toml'} --out {folder}-again"
    )
    look = (
        "from pyro_vmtl.analysis import read_netcdf\n\n"
        f'data = read_netcdf("{folder / POSTERIOR}")  # an xarray DataTree, for ArviZ\n'
        'data["shared"]["posterior"]["w_sources"].mean(["chain", "draw"])'
    )
    return [again, look]
