"""``pyro-vmtl influence``: which rows of a fit help or harm the predictions of which task."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
import pandas as pd
import typer
import xarray as xr
from matplotlib.figure import Figure

from pyro_vmtl.analysis import plot_influence_between_tasks, write_netcdf
from pyro_vmtl.cli.fit_problem import Rows, read_problem
from pyro_vmtl.cli.read_table import read_table
from pyro_vmtl.cli.run_commands import report_of_run
from pyro_vmtl.cli.run_directory import FittedTable, read_run
from pyro_vmtl.cli.run_files import INFLUENCE, write_checksums
from pyro_vmtl.cli.settings import FitSettings, read_settings
from pyro_vmtl.cli.user_errors import InputError, report_user_errors
from pyro_vmtl.cli.write_table import check_table_path, write_table
from pyro_vmtl.data.atomic_files import atomic_write
from pyro_vmtl.data.checked_files import file_in
from pyro_vmtl.estimators import check_device

__all__ = ["run_influence"]

METHODS = ("first-order", "newton", "refit")


def run_influence(
    folder: Path,
    table: Path,
    out: Path,
    *,
    rows: Path | None,
    method: str,
    refit: float,
    report: bool,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Estimate influence, and write a table, a picture and, if asked, the report of the run."""
    matplotlib.use("agg")
    with report_user_errors(as_json=as_json):
        if method not in METHODS:
            raise InputError(f"--method is {method!r}, expected one of {', '.join(METHODS)}.")
        picture = out.with_suffix(".png")
        check_table_path(out, overwrite=overwrite)
        if picture.exists() and not overwrite:
            raise InputError(
                f"{picture} exists already. Choose another --out, or pass --overwrite."
            )
        check_device(device)
        fitted = FittedTable.load(folder, device=device)
        settings = read_settings({}, file_in(folder, "config.toml"))
        train, test = _rows_of_fit(fitted, replace(settings, source=str(table)))
        if rows is not None:
            test = fitted.read(read_table(rows), with_target=True)
        found = fitted.estimator.influence(
            *(train.X, train.y, train.tasks),
            rows=(test.X, test.y, test.tasks) if len(test.tasks) else None,
            method=method,
            refit_flagged=refit,
            progress=not as_json,
        )
        found = _with_features(found, train)
        written = _table(found, fitted.columns.task)
        write_table(written, out)
        figure = plot_influence_between_tasks(found).get_figure(root=True)
        with atomic_write(picture) as scratch:
            cast(Figure, figure).savefig(scratch, dpi=150, format="png")
        if report:
            report_of_run(folder, read_run(folder)[0], xr.DataTree(found))
            write_netcdf(xr.DataTree(found), folder / INFLUENCE)  # where the report was made, only
            write_checksums(folder, INFLUENCE)
    if as_json:
        typer.echo(
            json.dumps({"influence": str(out), "rows": len(written), "picture": str(picture)})
        )
        return
    typer.echo(f"Influence of {len(written)} rows: {out}\nBetween tasks: {picture}")
    harms = written.set_index("row").filter(like="on ").sum(axis=1).nsmallest(3)
    for number, nats in harms[harms < 0].items():
        typer.echo(f"Row {number} harms most: {nats:.2f} nats over all tasks.")


def _rows_of_fit(fitted: FittedTable, settings: FitSettings) -> tuple[Rows, Rows]:
    """Read the rows of the fit, and those that were held out."""
    problem = read_problem(settings)
    number, sizes = len(problem.train.tasks), fitted.estimator._sizes
    known = [task for task in problem.train.tasks if task in sizes]
    if set(known) != set(sizes) or number < sum(sizes.values()):
        raise InputError(
            f"{settings.source} has {number} rows to fit of {len(set(known))} of the tasks, "
            f"expected the {sum(sizes.values())} rows of {len(sizes)} tasks of the fit. Pass the "
            "table that was fitted."
        )
    return problem.train, problem.test


def _with_features(found: xr.Dataset, rows: Rows) -> xr.Dataset:
    """Add the features of the rows, and number these as in the file; labels become text."""
    at = found["row"].values
    coords: dict[str, Any] = {"row": rows.numbers[at], "feature": rows.X.columns.astype(str)}
    coords |= {name: found[name].astype(str) for name in ("task", "row_task")}
    features = rows.X.iloc[at].to_numpy(np.float64)
    return found.assign(features=(("row", "feature"), features)).assign_coords(coords)


def _table(found: xr.Dataset, task: str) -> pd.DataFrame:
    """Return a line for each row, with its number in the file."""
    table = pd.DataFrame({"row": found["row"].values, task: found["row_task"].values})
    for label in found["task"].values:
        table[f"on {label}"] = found["influence"].sel(task=label).values
    if "step" in found:
        table["step"] = found["step"].values
    return table
