"""The report of a run directory: its tables and pictures on one page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

import xarray as xr

from pyro_vmtl.analysis import report_sections, write_report
from pyro_vmtl.analysis.diagnostics.reliability import main_member
from pyro_vmtl.analysis.export.tree_files import DAMAGED
from pyro_vmtl.analysis.report import PICTURES, ReportTable, Section
from pyro_vmtl.cli.run_files import POSTERIOR
from pyro_vmtl.cli.scores import scores_frame
from pyro_vmtl.cli.user_errors import InputError
from pyro_vmtl.data.checked_files import check_no_links

__all__ = ["MEANING", "report_damage", "write_page", "write_run_report"]

MEANING = {
    "nll": "NLL: negative log-likelihood per row, in natural logarithms; lower is better.",
    "ece": "ECE: expected calibration error, the mean gap between confidence and accuracy; on few "
    "rows it is too large by chance.",
    "explained_variance": "Explained variance: 1 for perfect predictions, 0 for predicting the "
    "mean in every row.",
    "coverage_90": "Inside: the fraction of targets in the central intervals of 50 and 90 %.",
}
"""What scores mean."""

MIN_ROWS = 5
"""Rows of a task below which fractions of them mean nothing."""

STOPPED = {
    "settled": "the loss had settled",
    "steps": "it used all its steps: more may help",
    "interrupted": "it was interrupted",
}
"""Why a fit ended."""


def write_run_report(
    folder: Path, metrics: Mapping[str, Any], data: xr.DataTree, *, out: Path | None = None
) -> Path:
    """Write the report of a run from its ``metrics.json`` and the tree of the fit; return the page.

    ``out`` is the run directory that ``folder`` will become; ``folder`` itself by default.
    """
    run = folder if out is None else out
    # a stack whose members do not share has none of its own
    group = "posterior" if "posterior" in data else f"{main_member(data)}/posterior"
    name = "w_sources" if "w_sources" in data[group].data_vars else "w"
    return write_page(
        folder,
        {**metrics, "versions": json.loads(data.attrs["versions"])},
        list(_scores(metrics)),
        report_sections(data),
        run=run,
        title="who borrows from whom, and how sure it is",
        about=f"{metrics['tasks']} tasks ({metrics['kind']})",
        ended=f"; {STOPPED[metrics['stopped']]}",
        code="from pyro_vmtl.analysis import read_netcdf\n\n"
        f"data = read_netcdf({str(run / POSTERIOR)!r})  # an xarray DataTree, for ArviZ\n"
        f'data[{group!r}]["{name}"].mean(["chain", "draw"])',
    )


def write_page(
    folder: Path,
    metrics: Mapping[str, Any],
    scores: Sequence[ReportTable],
    sections: Sequence[Section],
    *,
    run: Path,
    title: str,
    about: str,
    ended: str = "",
    code: str,
) -> Path:
    """Write a page of scores, sections, and how to reproduce a run; return its path.

    ``run`` is the run directory that ``folder`` will become. ``code`` looks further.
    """
    rows, again = metrics["rows"], quote(f"{run}-again")
    tested = f", {rows['test']:,} to test" if rows["test"] else ", none held out for testing"
    config = quote(f"{run}/config.toml")
    reproduce = [f"pyro-vmtl fit --config {config} --out {again}", code]
    check_no_links(folder, PICTURES)
    return write_report(
        folder,
        [
            Section("scores", "Scores on rows that were not fitted", tables=scores),
            *sections,
            Section("reproduce", "Reproduce it, and look further", code=reproduce),
        ],
        title=f"{Path(metrics['settings']['source']).name}: {title}",
        summary=[
            f"{about}, {rows['fit']:,} rows to learn from{tested}. Fitted in "
            f"{metrics['seconds']:.0f} s{ended}."
        ],
        footer="Written by "
        + ", ".join(f"{package} {version}" for package, version in metrics["versions"].items()),
    )


@contextmanager
def report_damage(folder: Path, *names: str) -> Iterator[None]:
    """Turn what files of a run with a changed content raise into an error in the user's input."""
    try:
        yield
    except OSError:  # of the disk
        raise
    except DAMAGED as error:
        raise InputError(
            f"{folder} cannot be reported: {' or '.join(names)} was changed "
            f"({type(error).__name__}: {error}). Take an unchanged copy, or fit again."
        ) from error


def _scores(metrics: Mapping[str, Any]) -> Iterator[ReportTable]:
    """Yield the table of scores, all rows first, then each task; none without test rows."""
    if "per_task" not in metrics:
        return
    frame = scores_frame(metrics)
    meaning = [text for name, text in MEANING.items() if name in metrics["all"]]
    if "baselines" in metrics:
        meaning.append("LR: scikit-learn's logistic regression.")
    if "explained variance" in frame:
        few = frame["rows"] < MIN_ROWS
        frame.loc[few, ["explained variance", "inside 50 %", "inside 90 %"]] = float("nan")
    yield ReportTable("Scores by task", frame, note=" ".join(meaning), first_is_total=True)
