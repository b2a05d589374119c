"""Fitting a table: read, split, fit, test, write."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
import xarray as xr

from pyro_vmtl.analysis import write_netcdf
from pyro_vmtl.cli.columns import Columns
from pyro_vmtl.cli.errors import InputError
from pyro_vmtl.cli.evaluation import predictions, score_table, scores_as_json
from pyro_vmtl.cli.run_report import METRICS, POSTERIOR, write_run_report
from pyro_vmtl.cli.runs import flat_relatedness
from pyro_vmtl.cli.settings import FitSettings
from pyro_vmtl.cli.shown import OF_TASKS
from pyro_vmtl.cli.table_files import read_table
from pyro_vmtl.cli.table_run import Rows, TableRun
from pyro_vmtl.cli.target import TargetKind, read_target, read_tasks
from pyro_vmtl.data.atomic_files import new_directory
from pyro_vmtl.estimators import DataNotice, VMTLClassifier, VMTLRegressor, versions

__all__ = ["TableProblem", "checkpoints_of", "fit_table", "read_problem", "write_table_run"]

MOST_DRAWN = 15_000_000
"""Numbers that are drawn, about 80 MB in a file, above which there are fewer draws."""

FEWEST_DRAWS = 20

SMALL = 20_000_000
"""Numbers in a table on which threads would only wait for one another."""


@dataclass(frozen=True, eq=False)
class TableProblem:
    """A table, ready to be fitted.

    Attributes
    ----------
    settings
        what the user asked for.
    columns
        how features are read.
    names
        names of the features.
    kind
        what the target is.
    train, test
        rows to fit, and rows kept for testing.
    train_rows, test_rows
        which rows of the table these are, from 0 on.
    notices
        what the user should know, a sentence each.
    """

    settings: FitSettings
    columns: Columns
    names: list[str]
    kind: TargetKind
    train: Rows
    test: Rows
    train_rows: np.ndarray
    test_rows: np.ndarray
    notices: tuple[str, ...]


def read_problem(settings: FitSettings) -> TableProblem:
    """Read a table, and check all that can be checked before a fit.

    Raises
    ------
    InputError
        If something is wrong. The message names file, column and row, and the way out.
    """
    for role in ("target", "task"):
        if getattr(settings, role) is None:
            raise InputError(
                f"--{role} is missing, expected a column of {settings.source}: the one that "
                f"{'is to be predicted' if role == 'target' else 'says which task a row is of'}."
            )
    target, task = cast(str, settings.target), cast(str, settings.task)
    table = read_table(Path(settings.source))
    tasks = read_tasks(table, task)
    found = read_target(table, target, cast(TargetKind | None, settings.kind))
    y = np.array(found.values, dtype=object if found.kind == "classification" else float)
    kept = _kept(tasks, pd.notna(y), settings.holdout, settings.seed)
    if found.kind == "classification":  # a class that was not fitted could not be predicted
        kept &= np.isin(pd.factorize(y)[0], pd.factorize(y)[0][~kept])
    training = table[~kept].reset_index(drop=True)
    columns = Columns.learn(training, target=target, task=task, features=settings.features)
    X, names = columns.features(table)
    every = Rows(X, tasks, y)
    return TableProblem(
        settings,
        columns,
        names,
        found.kind,
        every.take(np.flatnonzero(~kept)),
        every.take(np.flatnonzero(kept)),
        np.flatnonzero(~kept),
        np.flatnonzero(kept),
        (*columns.notices, *found.notices),
    )


def _kept(tasks: Sequence[Hashable], known: np.ndarray, holdout: float, seed: int) -> np.ndarray:
    """Choose rows of every task to keep for testing; one of each task at least is for the fit."""
    rng = np.random.RandomState(seed)
    kept = np.zeros(len(tasks), dtype=bool)
    task = pd.factorize(np.array([*tasks, None], dtype=object))[0][:-1]
    for t in range(task.max() + 1 if holdout else 0):
        rows = np.flatnonzero((task == t) & known)
        size = min(round(holdout * len(rows)), len(rows) - 1)
        kept[rng.permutation(rows)[: max(size, 0)]] = True
    return kept


def checkpoints_of(out: Path) -> Path:
    """Give the folder in which a fit keeps its state while it runs."""
    return out.with_name(f"{out.name}.checkpoints")


def fit_table(problem: TableProblem, checkpoints: Path, *, progress: bool) -> TableRun:
    """Fit the rows.

    Parameters
    ----------
    problem
        What :func:`read_problem` gave.
    checkpoints
        Folder to keep the state of the fit in, and to go on from.
    progress
        Show a progress bar?
    """
    settings, train = problem.settings, problem.train
    common: dict[str, Any] = {
        "method": settings.method,
        "random_state": settings.seed,
        "device": settings.device,
        "progress": progress,
    }
    estimator: VMTLClassifier | VMTLRegressor
    if problem.kind == "classification":
        estimator = VMTLClassifier(**common)
    else:
        likelihood = "poisson" if problem.kind == "counts" else "normal"
        estimator = VMTLRegressor(likelihood=likelihood, **common)  # type: ignore[arg-type]
    if train.X.size < SMALL:
        torch.set_num_threads(1)
    estimator.fit(train.X, train.y, train.tasks, checkpoints=checkpoints)
    return TableRun(problem.columns, problem.kind, estimator)


def write_table_run(
    problem: TableProblem, run: TableRun, *, notices: Sequence[str], overwrite: bool
) -> dict[str, Any]:
    """Test a fit, and write the run directory.

    Returns
    -------
    dict
        What ``metrics.json`` holds.
    """
    estimator, test, out = run.estimator, problem.test, problem.settings.folder
    summary, relatedness = estimator.summary(), estimator.relatedness_table()
    result = estimator.fit_result_
    metrics: dict[str, Any] = {
        "kind": problem.kind,
        "rows": {"fit": len(problem.train.tasks), "test": len(test.tasks)},
        "tasks": len(estimator.tasks_),
    }
    if len(test.tasks):
        predicted = predictions(estimator, test.X, test.tasks, test.y)
        scores = score_table(estimator, predicted, test.y, test.tasks)
        metrics |= scores_as_json(scores)
    members = summary.columns[len(OF_TASKS) :]
    tree = _tree(problem, run, num_members=max(1, len(members)))
    metrics |= {
        "members": {name: float(summary[name].mean()) for name in members},
        "seconds": result.seconds,
        "stopped": result.stopped,
        "notices": [*problem.notices, *notices],
        "settings": asdict(problem.settings),
        "versions": versions(),
    }
    with new_directory(out, overwrite=overwrite, marker=METRICS) as folder:
        run.save(folder)
        text = json.dumps(metrics, indent=2, ensure_ascii=False, default=str) + "\n"
        (folder / METRICS).write_text(text, encoding="utf-8")
        source = str(Path(problem.settings.source).absolute())  # from whatever folder it is run
        settings = replace(problem.settings, source=source, out=str(out))
        (folder / "config.toml").write_text(settings.to_toml(), encoding="utf-8")
        summary.to_csv(folder / "summary.csv")
        flat_relatedness(relatedness).to_csv(folder / "relatedness.csv")
        if len(test.tasks):
            predicted.insert(0, "row", problem.test_rows + 2)  # as a spreadsheet counts
            predicted.insert(1, problem.columns.task, test.tasks)
            predicted.insert(2, problem.columns.target, test.y)
            predicted.to_csv(folder / "holdout.csv", index=False)
        write_netcdf(tree, folder / POSTERIOR)
        write_run_report(folder, metrics, tree, out=out)
    shutil.rmtree(checkpoints_of(out), ignore_errors=True)
    return metrics


def _tree(problem: TableProblem, run: TableRun, *, num_members: int) -> xr.DataTree:
    """Draw from the fit, for ArviZ: fewer draws where there are many rows."""
    train, test, estimator = problem.train, problem.test, run.estimator
    num_tasks = len(estimator.tasks_)
    coefficients = len(problem.names) * len(getattr(estimator, "classes_", [0]))
    each = num_members * (2 * len(train.tasks) + num_tasks * (coefficients + num_tasks))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataNotice)  # the fit has told of these rows
        tree = estimator.to_datatree(
            *(train.X, train.y, train.tasks),
            rows=(test.X, test.y, test.tasks) if len(test.tasks) else None,
            num_samples=min(500, max(FEWEST_DRAWS, MOST_DRAWN // each)),
        )
    for node in tree.subtree:
        labels: dict[str, Any] = {}
        if "feature" in node.coords:
            labels["feature"] = [*problem.names, "intercept"]
        if "row" in node.coords:  # as a spreadsheet counts
            rows = problem.test_rows if node.name == "predictions" else problem.train_rows
            labels["row"] = rows[node.coords["row"].to_numpy()] + 2
        node.dataset = node.to_dataset().assign_coords(labels)
    tree.attrs["task_name"] = problem.columns.task
    return tree
