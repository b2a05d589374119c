"""Run directories: what a fit leaves behind, written completely or not at all, and read back."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pyro_vmtl.analysis import write_netcdf
from pyro_vmtl.cli.columns import Columns
from pyro_vmtl.cli.console import TASK_COLUMNS
from pyro_vmtl.cli.fit_problem import DIGITS, FitProblem, Rows
from pyro_vmtl.cli.run_report import METRICS, POSTERIOR, write_run_report
from pyro_vmtl.cli.scores import (
    Estimator,
    baseline_scores,
    predictions,
    score_table,
    scores_as_json,
)
from pyro_vmtl.cli.target import TargetKind, check_column, match_labels, read_target, read_tasks
from pyro_vmtl.cli.user_errors import InputError
from pyro_vmtl.data.atomic_files import new_directory
from pyro_vmtl.estimators import DataWarning, VMTLClassifier, VMTLRegressor, versions

__all__ = ["METRICS", "POSTERIOR", "FittedTable", "read_run", "write_run"]

TABLE, ESTIMATOR, SUMMARY = "table.json", "estimator", "summary.csv"

MAX_DRAWN = 15_000_000
"""Numbers to draw, about 80 MB in a file, above which there are fewer draws."""

MIN_DRAWS = 20


@dataclass(frozen=True, eq=False)
class FittedTable:
    """A fitted estimator, and how to read the columns of a table for it."""

    columns: Columns
    kind: TargetKind
    estimator: Estimator

    def save(self, folder: Path) -> None:
        """Write it to an existing folder."""
        _write_json(folder / TABLE, {"kind": self.kind, "columns": asdict(self.columns)})
        self.estimator.save(folder / ESTIMATOR)

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> FittedTable:
        """Read it from a run directory, without executing anything in there."""
        if not (folder / TABLE).is_file():
            lack = f"has no {TABLE}" if folder.is_dir() else "is no folder"
            raise InputError(f"{folder} {lack}, expected a run directory of `pyro-vmtl fit`.")
        try:
            content = json.loads((folder / TABLE).read_text(encoding="utf-8"))
            columns, kind = Columns(**content["columns"]), content["kind"]
            load = VMTLClassifier.load if kind == "classification" else VMTLRegressor.load
            estimator: Estimator = load(folder / ESTIMATOR, device=device)
            if columns.feature_names != estimator.feature_names_in_.tolist():
                raise ValueError(f"{TABLE} and {ESTIMATOR} have different features")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{folder} cannot be read: {error}") from error
        return cls(columns, kind, estimator)

    def read(self, table: pd.DataFrame, *, with_target: bool = False) -> Rows:
        """Read the rows of another table; missing values, new categories and new tasks are allowed.

        ``with_target`` also reads the target, and leaves out the rows without one.
        """
        task, target = self.columns.task, self.columns.target
        check_column(table, task, "The run")
        if with_target:
            check_column(table, target, "The run")
        X, numbers = self.columns.features(table), np.arange(len(table)) + 2
        rows = Rows(X, match_labels(read_tasks(table, task), self.estimator.tasks_), numbers)
        if not with_target:
            return rows
        y = read_target(table, target, self.kind, to_learn=False).values
        if isinstance(self.estimator, VMTLClassifier):
            known = self.estimator.classes_.tolist()
            y = np.array(match_labels(y, known), dtype=object)
            new = np.flatnonzero([label is not None and label not in known for label in y])
            if len(new):
                raise InputError(
                    f"Column {target!r} has class {y[new[0]]!r} in row {numbers[new[0]]}, "
                    f"expected one of {known}, the classes of the fit."
                )
        return replace(rows, y=y).take(np.flatnonzero(pd.notna(y)))


def write_run(
    problem: FitProblem, fitted: FittedTable, *, notices: Sequence[str], overwrite: bool
) -> dict[str, Any]:
    """Score a fit on the test rows, write the run directory, and return its ``metrics.json``.

    ``notices`` are those printed during the fit. An earlier run stays until this one is complete.
    """
    estimator, test, settings = fitted.estimator, problem.test, problem.settings
    summary, result = estimator.summary(), estimator.fitted_.result
    metrics: dict[str, Any] = {
        "kind": problem.kind,
        "rows": {"fit": len(problem.train.tasks), "test": len(test.tasks)},
        "tasks": len(estimator.tasks_),
    }
    if len(test.tasks):
        predicted = predictions(estimator, test)
        metrics |= scores_as_json(score_table(estimator, predicted, test))
        predicted.insert(0, "row", test.numbers)
        predicted.insert(1, problem.columns.task, test.tasks)
        predicted.insert(2, problem.columns.target, test.y)
    if settings.source == DIGITS:
        baselines = baseline_scores(problem.train, test)
        metrics["baselines"] = {name: scores_as_json(table) for name, table in baselines.items()}
    members = summary.columns[len(TASK_COLUMNS) :]
    metrics |= {
        "members": {name: float(summary[name].mean()) for name in members},
        "seconds": result.seconds,
        "stopped": result.stopped,
        "notices": [*problem.notices, *notices],
        "settings": asdict(settings),
        "versions": versions(),
    }
    tree = _draws(problem, fitted, num_members=max(1, len(members)))
    out, source = settings.folder, settings.source
    if source != DIGITS:
        source = str(Path(source).absolute())  # the same from any folder
    with new_directory(out, overwrite=overwrite, marker=METRICS) as folder:
        fitted.save(folder)
        _write_json(folder / METRICS, metrics)
        config = replace(settings, source=source, out=str(out))
        (folder / "config.toml").write_text(config.to_toml(), encoding="utf-8")
        summary.to_csv(folder / SUMMARY)
        _relatedness_table(estimator).to_csv(folder / "relatedness.csv")
        if len(test.tasks):
            predicted.to_csv(folder / "holdout.csv", index=False)
        write_netcdf(tree, folder / POSTERIOR)
        write_run_report(folder, metrics, tree, out=out)
    return metrics


def read_run(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Read the metrics of a run directory, and its summary of the tasks."""
    for name in (METRICS, SUMMARY, POSTERIOR):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder} has no {name}: it is no complete run directory of this version. Fit "
                "again with --overwrite."
            )
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        keys, texts = set(metrics), {"task": str, "nearest": str}
        summary = pd.read_csv(folder / SUMMARY, index_col="task", dtype=texts)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder} cannot be read ({error}). Take an unchanged copy.") from error
    if not {"kind", "rows", "tasks", "seconds", "stopped", "settings"} <= keys:
        raise InputError(
            f"{folder / METRICS} is not of a run of `pyro-vmtl fit`, or of an earlier version. "
            "Fit again with --overwrite."
        )
    return metrics, summary


def _relatedness_table(estimator: Estimator) -> pd.DataFrame:
    """Return means, with columns named like their sources, then bounds as ``source 5%``."""
    suffixes = {"mean": "", "lower": " 5%", "upper": " 95%"}
    found = estimator.relatedness_
    return pd.concat(
        [found[name].to_pandas().add_suffix(suffix) for name, suffix in suffixes.items()], axis=1
    )


def _draws(problem: FitProblem, fitted: FittedTable, *, num_members: int) -> xr.DataTree:
    """Export the fit to ArviZ, with fewer draws where there are many rows."""
    train, test, estimator = problem.train, problem.test, fitted.estimator
    num_tasks = len(estimator.tasks_)
    coefficients = train.X.shape[1] * len(getattr(estimator, "classes_", [0]))
    each = num_members * (2 * len(train.tasks) + num_tasks * (coefficients + num_tasks))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # the fit has reported these rows
        tree = estimator.to_datatree(
            *(train.X, train.y, train.tasks),
            rows=(test.X, test.y, test.tasks) if len(test.tasks) else None,
            num_samples=min(500, max(MIN_DRAWS, MAX_DRAWN // each)),
        )
    for node in tree.subtree:
        if "row" in node.coords:
            numbers = (test if node.name == "predictions" else train).numbers
            rows = numbers[node.coords["row"].to_numpy()]
            node.dataset = node.to_dataset().assign_coords(row=rows)
    tree.attrs["task_name"] = problem.columns.task
    return tree


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
    path.write_text(text, encoding="utf-8")
