"""``pyro-vmtl fit`` and ``predict`` of several targets: a row for each observation, no tasks."""

from __future__ import annotations

import json
import re
import time
import webbrowser
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import typer
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from pyro_vmtl.analysis import read_netcdf, write_netcdf
from pyro_vmtl.cli.columns import Columns, learn_features
from pyro_vmtl.cli.console import show_predictions, show_scores
from pyro_vmtl.cli.outputs_run import (
    FEEDBACK,
    OUTPUTS,
    feedback_tree,
    frame_of_scores,
    opened_gates,
    predict_outputs,
    read_metrics,
    score_outputs,
    write_outputs_report,
)
from pyro_vmtl.cli.read_table import read_table
from pyro_vmtl.cli.run_files import METRICS, TABLE, run_file, write_checksums, write_json
from pyro_vmtl.cli.run_report import report_damage
from pyro_vmtl.cli.safe_text import distinct_names, for_terminal, write_csv
from pyro_vmtl.cli.settings import FitSettings, split_names
from pyro_vmtl.cli.target import TargetKind, check_column, read_target
from pyro_vmtl.cli.user_errors import (
    InputError,
    check_complete,
    print_note,
    report_user_errors,
)
from pyro_vmtl.cli.write_table import check_table_path, write_table
from pyro_vmtl.data.atomic_files import check_writable, new_directory
from pyro_vmtl.data.checked_files import check_schema, file_in, read_json
from pyro_vmtl.estimators import FeedbackEstimator, versions

__all__ = [
    "evaluate_outputs_table",
    "fit_outputs_table",
    "predict_outputs_table",
    "rewrite_outputs_report",
    "several_targets",
]


class Table(TypedDict):
    """How to read the columns of a table for the estimator."""

    targets: dict[str, TargetKind]
    columns: Columns


SCHEMA = TypeAdapter(Table)


def several_targets(settings: FitSettings) -> list[str]:
    """Return the names in ``--target`` if it has several, separated by commas."""
    names = split_names(settings.target or "")
    return names if len(names) > 1 and settings.task is None else []


def fit_outputs_table(settings: FitSettings, *, overwrite: bool, as_json: bool) -> None:
    """Fit several targets of a table, write a run directory, and print what feeds what."""
    matplotlib.use("agg")
    out = settings.folder
    with report_user_errors(as_json=as_json):
        check_writable(out, overwrite=overwrite, marker=METRICS)
        for name in ("kind", "method", "device"):
            if getattr(settings, name) != getattr(FitSettings, name):
                raise InputError(f"--{name} is not for several targets. Leave it out.")
        table = read_table(Path(settings.source), settings.missing or ())
        targets = several_targets(settings)
        y, kinds, notices = _read_targets(table, targets)
        held_out = np.zeros(len(table), dtype=bool)
        order = np.random.RandomState(settings.seed).permutation(len(table))
        held_out[order[: round(settings.holdout * len(table))]] = True
        for name, kind in kinds.items():  # of each class the fit has a row
            if kind == "classification":
                held_out &= (y[name].isna() | y[name].isin(y[name][~held_out])).to_numpy()
        columns, learned = _learn(table[~held_out].reset_index(drop=True), targets, settings)
        for message in (*notices, *learned):
            print_note(message)
        X, rows = columns.features(table), np.arange(len(table)) + 2
        begun = time.perf_counter()
        estimator = FeedbackEstimator(random_state=settings.seed, progress=not as_json)
        estimator.fit(X[~held_out], y[~held_out])
        seconds = time.perf_counter() - begun
        metrics: dict[str, Any] = {
            "kind": "outputs",
            "rows": {"fit": int((~held_out).sum()), "test": int(held_out.sum())},
            "scores": {},
            "spectral_radius": estimator.spectral_radius_,
            "seconds": seconds,
            "notices": [*notices, *learned],
            "settings": asdict(settings),
            "versions": versions(),
        }
        gates, failed = opened_gates(estimator.gates_), None
        with new_directory(out, overwrite=overwrite, marker=METRICS) as folder:
            write_json(folder / TABLE, {"targets": kinds, "columns": asdict(columns)})
            config = replace(settings, source=str(Path(settings.source).absolute()), out=str(out))
            (folder / "config.toml").write_text(config.to_toml(), encoding="utf-8")
            estimator.save(folder / OUTPUTS)
            write_json(folder / METRICS, metrics)
            write_csv(gates, folder / "gates.csv", spreadsheet=settings.spreadsheet)
            try:  # the fit is not lost
                if held_out.any():
                    predicted = predict_outputs(estimator, X[held_out], {})
                    metrics["scores"] = score_outputs(estimator, predicted, y[held_out])
                    write_json(folder / METRICS, metrics)
                shown = held_out if held_out.any() else ~held_out
                data = feedback_tree(estimator, X[shown], rows[shown])
                write_netcdf(data, folder / FEEDBACK)
                write_outputs_report(folder, metrics, data, out=out)
            except Exception as error:
                failed = error
            write_checksums(folder)
        check_complete(out, failed)
    if as_json:
        typer.echo(json.dumps({"run": str(out), **metrics}, default=str))
    else:
        _show(metrics, gates, out)


def _show(metrics: dict[str, Any], gates: pd.DataFrame, out: Path) -> None:
    """Print scores, what feeds what, and where to find the rest."""
    if metrics["scores"]:
        show_scores(frame_of_scores(metrics["scores"]), num_totals=0)
    for source, row in gates.iterrows():
        fed = [f"{target} ({p:.2f})" for target, p in row.items() if p > 0.5]
        typer.echo(for_terminal(f"{source} feeds {', '.join(fed) or 'nothing'}"))
    typer.echo(for_terminal(f"Report:   {out / 'report.html'}"))
    typer.echo(for_terminal(f"Predict:  pyro-vmtl predict {quote(str(out))} FILE --out FILE"))


def rewrite_outputs_report(folder: Path, *, open_page: bool, as_json: bool) -> None:
    """Rewrite the report of a run directory, and print its tables."""
    matplotlib.use("agg")
    with report_user_errors(as_json=as_json):
        metrics = read_metrics(folder)
        data = read_netcdf(run_file(folder, FEEDBACK, "RUN_BYTES"))
        with report_damage(folder, FEEDBACK, METRICS):
            page = write_outputs_report(folder, metrics, data)
            gates = opened_gates(data.dataset["gates"])
    if as_json:
        typer.echo(json.dumps({"run": str(folder), "report": str(page), **metrics}))
    else:
        _show(metrics, gates, folder)
    if open_page:
        webbrowser.open(page.absolute().as_uri())


def predict_outputs_table(
    folder: Path,
    table: Path,
    out: Path,
    known: Sequence[str],
    *,
    spreadsheet: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Predict the targets of a table's rows, and write the predictions."""
    with report_user_errors(as_json=as_json) as notes:
        check_table_path(out, overwrite=overwrite)
        estimator, X, given = _read(folder, table, known, "--known", notes)
        found = predict_outputs(estimator, X, given)
        names = distinct_names(["row"], [*found])
        found.insert(0, names[0], np.arange(len(found)) + 2)
        write_table(found, out, spreadsheet=spreadsheet)
    show_predictions(out, len(found), notes, as_json=as_json)


def evaluate_outputs_table(folder: Path, table: Path, *, as_json: bool) -> None:
    """Score a run on the rows of a table, each target by the rows where it is known."""
    with report_user_errors(as_json=as_json) as notes:
        estimator, X, y = _read(folder, table, None, "The run", notes)
        for name, labels in estimator.fitted_.data.classes.items():
            known = [] if labels is None else [None, *labels]
            new = [label for label in y[name] if known and label not in known]
            if new:
                raise InputError(
                    f"Column {name!r} has class {new[0]!r}, expected one of {known[1:]}, the "
                    "classes of the fit."
                )
        scores = score_outputs(estimator, predict_outputs(estimator, X, {}), pd.DataFrame(y))
    if as_json:
        typer.echo(json.dumps({"scores": scores, "notices": notes}))
    else:
        show_scores(frame_of_scores(scores), num_totals=0)


def _read(
    folder: Path, table: Path, targets: Sequence[str] | None, asked: str, notes: list[str]
) -> tuple[FeedbackEstimator, pd.DataFrame, dict[str, Any]]:
    """Load a run; read features of a table, and some of its targets, all by default."""
    path = run_file(folder, TABLE)
    stored = check_schema(SCHEMA, read_json(path), path)
    columns, kinds = stored["columns"], stored["targets"]
    file_in(folder, f"{OUTPUTS}/outputs.json")
    estimator = FeedbackEstimator.load(folder / OUTPUTS)
    rows = read_table(table, columns.missing)
    values = {}
    for name in kinds if targets is None else targets:
        if name not in kinds:
            raise InputError(f"{asked} has {name!r}, expected some of the targets, {[*kinds]}.")
        check_column(rows, name, asked)
        values[name] = read_target(rows, name, kinds[name], to_learn=False).values
    for message in columns.unusual(rows):
        notes.append(message)
        print_note(message)
    return estimator, columns.features(rows), values


def _read_targets(
    table: pd.DataFrame, targets: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, TargetKind], list[str]]:
    if len(set(targets)) < len(targets):
        raise InputError(f"--target has {list(targets)}, expected each column once.")
    y, kinds, notices = {}, {}, []
    for name in targets:
        values, kind, of_target = read_target(table, name)
        y[name], kinds[name] = values, kind
        notices += [re.sub("; --kind .* overrides this", "", text) for text in of_target]
    return pd.DataFrame(y), kinds, notices


def _learn(
    table: pd.DataFrame, targets: Sequence[str], settings: FitSettings
) -> tuple[Columns, list[str]]:
    for name in settings.features or ():
        check_column(table, name, "--features")
        if name in targets:
            raise InputError(f"--features has {name!r}, which is a target. Leave it out.")
    names = settings.features or [str(name) for name in table if name not in targets]
    rows = np.arange(len(table)) + 2
    medians, categories, notices = learn_features(table, names, rows)
    columns = Columns(",".join(targets), "", medians, categories, settings.missing or [])
    if not columns.feature_names:
        raise InputError("There are no columns to learn from, expected at least one.")
    return columns, notices
