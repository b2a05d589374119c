"""The report of a run directory: its tables and pictures in one page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from pyro_vmtl.analysis import ReportTable, Section, report_sections, write_report
from pyro_vmtl.cli.evaluation import ALL

__all__ = ["METRICS", "POSTERIOR", "write_run_report"]

METRICS = "metrics.json"
"""The file that makes a folder a run directory."""

POSTERIOR = "posterior.nc"
"""Draws of the fit, for ArviZ."""

SCORES = {
    "rows": "rows",
    "accuracy": "accuracy",
    "nll": "NLL (nats)",
    "ece": "ECE",
    "rmse": "RMSE",
    "explained_variance": "explained variance",
    "coverage_50": "inside 50 %",
    "coverage_90": "inside 90 %",
}
"""Names of scores, in the order they are shown in."""


MEANING = {
    "nll": "NLL: negative log-likelihood per row, in natural logarithms; the lower, the better.",
    "ece": "ECE: mean distance between how sure predictions are and how often they are right; of "
    "the few rows of a task it is too large by chance.",
    "explained_variance": "Explained variance: 1 for perfect predictions, 0 for those that give "
    "every row the mean.",
    "coverage_90": "Inside: how many targets lie in the central intervals of 50 and 90 %.",
}
"""What scores mean."""

FEW = 5
"""Rows below which parts of them mean nothing."""

BASELINES = {"single_task": "LR per task", "pooled": "LR of all rows"}
"""Names of baselines."""


def write_run_report(
    folder: Path, metrics: Mapping[str, Any], data: xr.DataTree, *, out: Path | None = None
) -> Path:
    """Write the report of a run into its folder.

    Parameters
    ----------
    folder
        The folder to write to.
    metrics
        What its ``metrics.json`` holds.
    data
        What its ``posterior.nc`` holds.
    out
        The run directory that the folder is to be; the folder itself by default.

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
        Section(
            "reproduce",
            "Reproduce it, and look further",
            code=_code(folder if out is None else out, settings, data),
        ),
    ]
    return write_report(
        folder,
        sections,
        title=f"{source}: who borrows from whom, and how sure it is",
        summary=_summary(metrics),
        footer="Written by pyro_vmtl "
        + ", ".join(f"{name} {version}" for name, version in versions.items()).removeprefix(
            "pyro_vmtl "
        ),
    )


def _summary(metrics: Mapping[str, Any]) -> list[str]:
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
    first, every = (ALL, "all") if "all" in metrics else ("mean over tasks", "mean")
    lines = {first: metrics[every], **metrics["per_task"]}
    frame = pd.DataFrame.from_dict(lines, orient="index").rename_axis("task")
    columns = [name for name in SCORES if name in frame]
    frame = frame[columns].rename(columns=SCORES)
    if "rows" in frame:
        frame["rows"] = frame["rows"].astype(int)
    baselines = metrics.get("baselines", {})
    for method, scores in baselines.items():
        others = {first: scores, **scores["per_task"]}
        for name in ("accuracy", "nll"):
            column = f"{SCORES[name]} of {BASELINES.get(method, method)}"
            frame[column] = [others[label][name] for label in frame.index]
    if "explained variance" in frame:  # of few rows they say nothing
        few = frame["rows"] < FEW
        frame.loc[few, ["explained variance", "inside 50 %", "inside 90 %"]] = float("nan")
    told = [text for name, text in MEANING.items() if name in columns]
    told += ["LR: scikit-learn's logistic regression."] if baselines else []
    note = " ".join(told)
    return ReportTable("Scores by task", frame, note=note, first_is_total=True)


def _code(folder: Path, settings: Mapping[str, Any], data: xr.DataTree) -> list[str]:
    again = (
        f"pyro-vmtl fit digits --seed {settings['seed']} --out {folder}-again"
        if settings["source"] == "digits"
        else f"pyro-vmtl fit --config {folder / 'config.toml'} --out {folder}-again"
    )
    name = "w_sources" if "w_sources" in data["posterior"].data_vars else "w"
    look = (
        "from pyro_vmtl.analysis import read_netcdf\n\n"
        f'data = read_netcdf("{folder / POSTERIOR}")  # an xarray DataTree, for ArviZ\n'
        f'data["posterior"]["{name}"].mean(["chain", "draw"])'
    )
    return [again, look]
