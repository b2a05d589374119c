"""Run directories: what a fit leaves behind, written completely or not at all, and read back."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pyro_vmtl.analysis import write_netcdf
from pyro_vmtl.cli.columns import Columns
from pyro_vmtl.cli.console import TASK_COLUMNS
from pyro_vmtl.cli.fit_problem import DIGITS, FitProblem, Rows
from pyro_vmtl.cli.run_files import (
    METRICS,
    POSTERIOR,
    SUMMARY,
    TABLE,
    read_checked,
    run_file,
    write_checksums,
    write_json,
)
from pyro_vmtl.cli.run_report import write_run_report
from pyro_vmtl.cli.safe_text import distinct_names, write_csv
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
from pyro_vmtl.data.checked_files import file_in
from pyro_vmtl.data.limits import exceeds
from pyro_vmtl.estimators import DataWarning, VMTLClassifier, VMTLRegressor, versions
from pyro_vmtl.estimators.saving import CONFIG

__all__ = ["FittedTable", "beside", "read_run", "write_run"]

ESTIMATOR = "estimator"

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
        write_json(folder / TABLE, {"kind": self.kind, "columns": asdict(self.columns)})
        self.estimator.save(folder / ESTIMATOR)

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> FittedTable:
        """Read it from a run directory, without executing anything in there."""
        content = read_checked(folder, TABLE)
        columns, kind = content["columns"], content["kind"]
        load = VMTLClassifier.load if kind == "classification" else VMTLRegressor.load
        file_in(folder, f"{ESTIMATOR}/{CONFIG}")
        estimator: Estimator = load(folder / ESTIMATOR, device=device)
        if columns.feature_names != getattr(estimator, "feature_names_in_", np.empty(0)).tolist():
            raise InputError(f"{folder} has {TABLE} and {ESTIMATOR} of different features.")
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
) -> tuple[dict[str, Any], Exception | None]:
    """Write the run directory, score the fit on the test rows, and return its ``metrics.json``.

    ``notices`` are those printed during the fit. An earlier run stays until this one is complete.
    What is needed to predict is written first. An error after it is returned: the fit is not lost.
    """
    settings, out = problem.settings, problem.settings.folder
    source = settings.source
    if source != DIGITS:
        source = str(Path(source).absolute())  # the same from any folder
    metrics: dict[str, Any] = {
        "kind": problem.kind,
        "rows": {"fit": len(problem.train.tasks), "test": len(problem.test.tasks)},
        "tasks": len(fitted.estimator.tasks_),
        "members": {},
        "seconds": fitted.estimator.fitted_.result.seconds,
        "stopped": fitted.estimator.fitted_.result.stopped,
        "notices": [*problem.notices, *notices],
        "settings": asdict(settings),
        "versions": versions(),
    }
    failed: Exception | None = None
    with new_directory(out, overwrite=overwrite, marker=METRICS) as folder:
        fitted.save(folder)
        config = replace(settings, source=source, out=str(out))
        (folder / "config.toml").write_text(config.to_toml(), encoding="utf-8")
        write_json(folder / METRICS, metrics)
        try:
            _inspect(problem, fitted, folder, metrics)
        except Exception as error:
            failed = error
        write_checksums(folder)
    return metrics, failed


def _inspect(
    problem: FitProblem, fitted: FittedTable, folder: Path, metrics: dict[str, Any]
) -> None:
    """Write scores, tables, draws and the report of a fit, and complete its ``metrics``."""
    estimator, test, settings = fitted.estimator, problem.test, problem.settings
    write = partial(write_csv, spreadsheet=settings.spreadsheet)
    if len(test.tasks):
        predicted = predictions(estimator, test)
        metrics |= scores_as_json(score_table(estimator, predicted, test))
        named = {problem.columns.task: test.tasks, problem.columns.target: test.y}
        write(beside(predicted, test, named), folder / "holdout.csv", index=False)
    if settings.source == DIGITS:
        baselines = baseline_scores(problem.train, test)
        metrics["baselines"] = {name: scores_as_json(table) for name, table in baselines.items()}
    summary = estimator.summary()
    members = summary.columns[len(TASK_COLUMNS) :]
    metrics["members"] = {name: float(summary[name].mean()) for name in members}
    write_json(folder / METRICS, metrics)
    write(summary, folder / SUMMARY)
    if not exceeds("TASK_PAIRS", len(summary) ** 2):
        write(_relatedness_table(estimator), folder / "relatedness.csv")
    tree = _draws(problem, fitted, num_members=max(1, len(members)))
    write_netcdf(tree, folder / POSTERIOR)
    write_run_report(folder, metrics, tree, out=settings.folder)


def beside(predicted: pd.DataFrame, rows: Rows, named: Mapping[str, Any]) -> pd.DataFrame:
    """Return predictions with the numbers of rows, and with columns of the user, before them."""
    own = distinct_names(["row", *predicted], named)
    return pd.DataFrame(
        dict(zip([own[0], *named], [rows.numbers, *named.values()], strict=True))
    ).join(predicted.set_axis(own[1:], axis=1))


def read_run(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Read the metrics of a run directory, and its summary of the tasks."""
    metrics, path = read_checked(folder, METRICS), run_file(folder, SUMMARY)
    try:
        texts = {"task": str, "nearest": str}
        empty = {name: [""] for name in TASK_COLUMNS}  # a task may be called NA
        summary = pd.read_csv(
            path, index_col="task", dtype=texts, keep_default_na=False, na_values=empty
        )
        summary = summary.rename(columns={"weight": "share"})  # its name in older runs
        summary[list(TASK_COLUMNS)]
    except (OSError, LookupError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}). Take an unchanged copy.") from error
    return metrics, summary


def _relatedness_table(estimator: Estimator) -> pd.DataFrame:
    """Return means, with columns named like their sources, then bounds as ``source 5%``."""
    suffixes = {"mean": "", "lower": " 5%", "upper": " 95%"}
    sources = list(map(str, estimator.tasks_))
    columns = [f"{source}{suffix}" for suffix in suffixes.values() for source in [*sources, "base"]]
    if len(set(columns)) < len(columns):  # a task is called base, or like the bound of another
        sources = list(map(repr, sources))
        columns = [f"{s}{suffix}" for suffix in suffixes.values() for s in [*sources, "base"]]
    found = estimator.relatedness_
    values = np.concatenate([found[name].to_numpy() for name in suffixes], axis=1)
    return pd.DataFrame(values, pd.Index(list(estimator.tasks_), name="task"), columns)


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
