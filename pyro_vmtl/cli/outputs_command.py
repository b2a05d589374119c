"""``pyro-vmtl fit`` and ``predict`` of several targets: a row for each observation, no tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import typer
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from pyro_vmtl.analysis import plot_gates
from pyro_vmtl.cli.columns import Columns, learn_features
from pyro_vmtl.cli.read_table import read_table
from pyro_vmtl.cli.run_files import METRICS, TABLE, write_json
from pyro_vmtl.cli.safe_text import distinct_names, for_terminal, write_csv
from pyro_vmtl.cli.settings import FitSettings
from pyro_vmtl.cli.target import TargetKind, check_column, read_target
from pyro_vmtl.cli.user_errors import InputError, print_note, report_user_errors
from pyro_vmtl.cli.write_table import check_table_path, write_table
from pyro_vmtl.data.atomic_files import check_writable, new_directory
from pyro_vmtl.data.checked_files import check_schema, file_in, read_json
from pyro_vmtl.estimators import FeedbackEstimator, versions

__all__ = ["OUTPUTS", "fit_outputs_table", "predict_outputs_table", "several_targets"]

OUTPUTS = "outputs"
"""Folder of the estimator in a run of several targets."""


class Table(TypedDict):
    """How to read the columns of a table for the estimator."""

    targets: dict[str, TargetKind]
    columns: Columns


SCHEMA = TypeAdapter(Table)


def several_targets(settings: FitSettings) -> list[str]:
    """Return the names in ``--target`` if it has several, separated by commas."""
    names = [name.strip() for name in (settings.target or "").split(",") if name.strip()]
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
        columns, learned = _learn(table[~held_out].reset_index(drop=True), targets, settings)
        for message in (*notices, *learned):
            print_note(message)
        X = columns.features(table)
        estimator = FeedbackEstimator(random_state=settings.seed).fit(X[~held_out], y[~held_out])
        scores = _score(estimator, X[held_out], y[held_out]) if held_out.any() else {}
        gates = estimator.gates_
        metrics = {
            "kind": "outputs",
            "rows": {"fit": int((~held_out).sum()), "test": int(held_out.sum())},
            "scores": scores,
            "spectral_radius": estimator.spectral_radius_,
            "notices": [*notices, *learned],
            "settings": asdict(settings),
            "versions": versions(),
        }
        with new_directory(out, overwrite=overwrite, marker=METRICS) as folder:
            content = {"targets": kinds, "columns": asdict(columns)}
            write_json(folder / TABLE, content)
            write_json(folder / METRICS, metrics)
            (folder / "config.toml").write_text(settings.to_toml(), encoding="utf-8")
            estimator.save(folder / OUTPUTS)
            opened = (1 - gates.sel(gate="none")).where(gates.sum("gate") > 0, 0.0)
            frame = pd.DataFrame(opened.values, estimator.outputs_, estimator.outputs_)
            write_csv(frame, folder / "gates.csv", spreadsheet=settings.spreadsheet)
            plot_gates(gates).figure.savefig(folder / "gates.png")  # type: ignore[union-attr]
    if as_json:
        typer.echo(json.dumps({"run": str(out), **metrics}, default=str))
        return
    for name, of_output in scores.items():
        values = ", ".join(f"{metric} {value:.3f}" for metric, value in of_output.items())
        typer.echo(for_terminal(f"{name}: {values}"))
    for source, row in frame.iterrows():
        fed = [f"{target} ({p:.2f})" for target, p in row.items() if p > 0.5]
        typer.echo(for_terminal(f"{source} feeds {', '.join(fed) or 'nothing'}"))
    typer.echo(f"Picture: {out / 'gates.png'}\nPredict: pyro-vmtl predict {out} FILE --out FILE")


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
        path = file_in(folder, TABLE)
        stored = check_schema(SCHEMA, read_json(path), path)
        columns: Columns = stored["columns"]
        file_in(folder, f"{OUTPUTS}/outputs.json")
        estimator = FeedbackEstimator.load(folder / OUTPUTS)
        rows = read_table(table, columns.missing)
        given = {}
        for name in known:
            if name not in stored["targets"]:
                raise InputError(
                    f"--known has {name!r}, expected some of the targets, {[*stored['targets']]}."
                )
            check_column(rows, name, "--known")
            given[name] = read_target(rows, name, stored["targets"][name], to_learn=False).values
        for message in columns.unusual(rows):
            notes.append(message)
            print_note(message)
        found = _predictions(estimator, columns.features(rows), given)
        names = distinct_names(["row"], [*found])
        found.insert(0, names[0], np.arange(len(found)) + 2)
        write_table(found, out, spreadsheet=spreadsheet)
    if as_json:
        typer.echo(json.dumps({"predictions": str(out), "rows": len(found), "notices": notes}))
    else:
        typer.echo(f"{len(found)} predictions: {out}")


def _read_targets(
    table: pd.DataFrame, targets: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, TargetKind], list[str]]:
    if len(set(targets)) < len(targets):
        raise InputError(f"--target has {list(targets)}, expected each column once.")
    y, kinds, notices = {}, {}, []
    for name in targets:
        values, kind, of_target = read_target(table, name)
        y[name], kinds[name] = values, kind
        overridden = "; --kind regression or counts overrides this"
        notices += [text.replace(overridden, "") for text in of_target]
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


def _predictions(
    estimator: FeedbackEstimator, X: pd.DataFrame, known: dict[str, Any]
) -> pd.DataFrame:
    """Return a column for each output, and one for each class."""
    predicted = estimator.predict(X, known=known)
    if not isinstance(predicted, pd.DataFrame):
        predicted = pd.DataFrame(predicted, columns=estimator.outputs_)
    proba = iter(estimator.predict_proba(X, known=known))
    found = {}
    for name, labels in estimator.fitted_.data.classes.items():
        found[name] = predicted[name].to_numpy()
        if labels is not None:
            of_output = next(proba)
            found |= {f"p({name}={c})": of_output[:, i] for i, c in enumerate(labels)}
    return pd.DataFrame(found)


def _score(
    estimator: FeedbackEstimator, X: pd.DataFrame, y: pd.DataFrame
) -> dict[str, dict[str, float]]:
    """Score each output on rows that were not fitted."""
    predicted = _predictions(estimator, X, {})
    scores = {}
    for name, labels in estimator.fitted_.data.classes.items():
        known = y[name].notna().to_numpy()
        truth, found = y[name][known].to_numpy(), predicted[name][known].to_numpy()
        if labels is not None:
            scores[name] = {"accuracy": float((truth == found).mean())}
        else:
            rmse = float(np.sqrt(np.mean((truth - found) ** 2)))
            scores[name] = {"rmse": rmse, "explained_variance": 1 - rmse**2 / float(truth.var())}
    return scores
