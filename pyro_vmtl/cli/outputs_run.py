"""A run directory of several targets: predictions, scores, and its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import FiniteFloat, TypeAdapter
from scipy.stats import norm
from typing_extensions import TypedDict

from pyro_vmtl.analysis import classification_metrics, regression_metrics
from pyro_vmtl.analysis.outputs.feedback_sections import feedback_sections
from pyro_vmtl.analysis.report import ReportTable
from pyro_vmtl.cli.run_files import METRICS, Rows, Scores, run_file
from pyro_vmtl.cli.run_report import MEANING, write_page
from pyro_vmtl.cli.scores import SCORES
from pyro_vmtl.data.checked_files import check_schema, read_json
from pyro_vmtl.estimators import FeedbackEstimator

__all__ = [
    "FEEDBACK",
    "OUTPUTS",
    "feedback_tree",
    "frame_of_scores",
    "opened_gates",
    "predict_outputs",
    "read_metrics",
    "score_outputs",
    "write_outputs_report",
]

OUTPUTS = "outputs"
"""Folder of the estimator in a run of several targets."""

FEEDBACK = "feedback.nc"
"""Gates, outputs of rows over the iterations, and the loss of the fit, for the report."""

MOST_ROWS = 200
"""Rows whose outputs are kept over the iterations."""


class Metrics(TypedDict):
    """Content of ``metrics.json`` of a run of several targets."""

    kind: Literal["outputs"]
    rows: Rows
    scores: dict[str, Scores]
    spectral_radius: FiniteFloat
    seconds: FiniteFloat
    notices: list[str]
    settings: dict[str, str | float | bool | list[str] | None]
    versions: dict[str, str]


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read the metrics of a run directory."""
    path = run_file(folder, METRICS)
    checked: dict[str, Any] = check_schema(TypeAdapter(Metrics), read_json(path), path)
    return checked


def predict_outputs(
    estimator: FeedbackEstimator, X: pd.DataFrame, known: Mapping[str, Any]
) -> pd.DataFrame:
    """Predict rows: a column for each output, of its classes, or of its standard deviation."""
    mean, std = (
        pd.DataFrame(each, columns=estimator.outputs_)
        for each in estimator.predict(X, known, return_std=True)
    )
    proba = iter(estimator.predict_proba(X, known=known))
    found = {}
    for name, labels in estimator.fitted_.data.classes.items():
        found[name] = mean[name].to_numpy()
        if labels is None:
            found[f"std({name})"] = std[name].to_numpy()
        else:
            of_output = next(proba)
            found |= {f"p({name}={c})": of_output[:, i] for i, c in enumerate(labels)}
    return pd.DataFrame(found)


def score_outputs(
    estimator: FeedbackEstimator, predicted: pd.DataFrame, y: pd.DataFrame
) -> dict[str, Any]:
    """Score what :func:`predict_outputs` returned, of each output by the rows where it is known."""
    scores = {}
    for name, labels in estimator.fitted_.data.classes.items():
        known = y[name].notna().to_numpy()
        if not known.any():
            continue
        truth, rows, one = y[name][known].to_numpy(), predicted[known], [name] * known.sum()
        if labels is not None:
            proba = rows[[f"p({name}={c})" for c in labels]].to_numpy()
            of_output = classification_metrics(proba, truth, one, list(labels))
        else:
            real = truth.astype(float)
            normal = norm(rows[name].to_numpy(float), rows[f"std({name})"].to_numpy(float))
            log_density, cdf = normal.logpdf(real), normal.cdf(real)
            of_output = regression_metrics(normal.mean(), log_density, cdf, real, one)
            explained = 1 - of_output.pop("nmse")
            of_output["explained_variance"] = explained if np.var(real) > 0 else np.nan
        scores[name] = {"rows": float(known.sum()), **of_output.iloc[0].to_dict()}
    return scores


def frame_of_scores(scores: Mapping[str, Any]) -> pd.DataFrame:
    """Return scores with headings, a line for each output."""
    frame = pd.DataFrame.from_dict(dict(scores), orient="index").rename_axis("output")
    frame = frame.astype({"rows": int})
    return frame[[name for name in SCORES if name in frame]].rename(columns=SCORES)


def feedback_tree(estimator: FeedbackEstimator, X: pd.DataFrame, rows: np.ndarray) -> xr.DataTree:
    """Collect what a report shows: gates, the loss, and outputs of the first rows, by number."""
    iterations = estimator.iterations(X[:MOST_ROWS]).assign_coords(row=rows[:MOST_ROWS])
    loss = xr.DataArray(estimator.history_.loss.numpy(), dims="step")
    found = {"gates": estimator.gates_, "iterations": iterations}
    return xr.DataTree.from_dict({"/": xr.Dataset(found), "history": xr.Dataset({"loss": loss})})


def opened_gates(gates: xr.DataArray) -> pd.DataFrame:
    """Return the probability that an output, in rows, feeds another, in columns."""
    opened = (1 - gates.sel(gate="none")).where(gates.sum("gate") > 0, 0.0)
    return pd.DataFrame(opened.values, gates["from"].values, gates["to"].values)


def write_outputs_report(
    folder: Path, metrics: Mapping[str, Any], data: xr.DataTree, *, out: Path | None = None
) -> Path:
    """Write the report of a run from its metrics and :func:`feedback_tree`; return the page.

    ``out`` is the run directory that ``folder`` will become; ``folder`` itself by default.
    """
    run, tables = folder if out is None else out, []
    if metrics["scores"]:
        of_any = {name for scores in metrics["scores"].values() for name in scores}
        note = " ".join(text for name, text in MEANING.items() if name in of_any)
        tables = [ReportTable("Scores by output", frame_of_scores(metrics["scores"]), note=note)]
    return write_page(
        folder,
        metrics,
        tables,
        feedback_sections(data),
        run=run,
        title="which output feeds which",
        about=f"{len(data['gates'])} outputs",
        code="from pyro_vmtl import FeedbackEstimator\n\n"
        f"estimator = FeedbackEstimator.load({str(run / OUTPUTS)!r})\n"
        'estimator.gates_.sel(gate="output")',
    )
