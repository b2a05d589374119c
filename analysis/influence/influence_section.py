"""Influence in a report: which rows of which task help or harm another."""

from __future__ import annotations

from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.influence.influence_plots import (
    harmful_rows,
    plot_influence_against_refits,
    plot_influence_between_tasks,
    plot_influential_rows,
)
from pyro_vmtl.analysis.relatedness.weight_plots import plot_relatedness
from pyro_vmtl.analysis.relatedness.weights import clustered_order, weight_summary
from pyro_vmtl.analysis.report import Picture, ReportTable, Section

__all__ = ["influence_section", "influence_tree"]

MOST_FEATURES, MOST_TASKS = 8, 3
"""Features of a row in the table, and tasks with a picture of their own, the most harmed ones."""


def influence_tree(influence: xr.Dataset, X: pd.DataFrame, numbers: np.ndarray) -> xr.DataTree:
    """Return influence of single rows, and the features of those that harm most, for a file.

    ``X`` and ``numbers`` are features and the user's numbers of all rows, in their positions.
    """
    worst = harmful_rows(influence, X.iloc[:, :MOST_FEATURES])
    worst.index = pd.Index(numbers[worst.index], name="row")
    cells = worst.reset_index().map(lambda cell: f"{cell:.3g}" if isinstance(cell, float) else str(cell))
    places = {"row": numbers[influence["row"].values]}
    labels = {name: influence[name].astype(str) for name in ("task", "row_task")}
    content = xr.Dataset({"cell": (("place", "column"), cells.to_numpy(object))})
    content = content.assign_coords(column=cells.columns.astype(str))
    every = influence.assign_coords({**places, **labels})
    return xr.DataTree.from_dict({"influence": every} | ({"worst": content} if len(worst) else {}))


def influence_section(tree: xr.DataTree, fit: xr.DataTree) -> Section:
    """Return the section of a report on a tree of :func:`influence_tree`, beside that of the fit."""
    found = tree["influence"].to_dataset()
    harm = found["influence"].clip(max=0.0).sum("row")
    text = (
        "The influence of a training row on a task: the log density of the task's predicted rows, "
        "less that without the row, in nats. Positive: the row helps. Estimated "
        f"({found.attrs['method']}), and no proof that a row is wrong: look at it first."
    )
    if "step" in found:
        far = float((found["step"] > 1).mean())
        text += f" Estimates are rough for {far:.0%} of the rows, without which the fit moves far."
    tables = []
    if "worst" in tree.children:
        cells = tree["worst"]["cell"].to_pandas().set_index("row")
        note = f"Sums over all tasks, in nats, and at most {MOST_FEATURES} features."
        tables = [ReportTable("Rows that harm most", cells, note=note)]
    pictures = [
        Picture(
            "influence-between-tasks",
            "Which tasks help which, beside who borrows from whom",
            "Influence of rows, added up over the rows of each task.",
            "A task whose rows harm another that borrows much from it.",
            partial(_between_tasks, found, fit),
        )
    ]
    for place, task in enumerate(harm.sortby(harm)["task"].values[:MOST_TASKS]):
        picture = Picture(
            f"influential-rows-{place + 1}",
            f"Which rows help or harm {task}?",
            "Each dot is a training row; those that help or harm most have their numbers.",
            "A row far on the left: it may be an outlier, or have a wrong target.",
            partial(plot_influential_rows, found, task),
        )
        pictures.append(picture)
    again = found.isel(row=found["refitted"].values)
    if "estimate" in found and again.sizes["row"] > 1:
        picture = Picture(
            "influence-against-refits",
            "Do fits without the rows agree?",
            "Estimates, and what fits without the rows say, of the rows for which both are known: "
            "those without which the fit moves most, so that others are estimated better.",
            "Dots far off the line: do not rely on estimates for rows like these.",
            partial(_against_refits, again),
        )
        pictures.append(picture)
    title = "Which rows help or harm which task?"
    return Section("influence", title, text, tables=tables, pictures=pictures)


def _between_tasks(found: xr.Dataset, fit: xr.DataTree) -> Axes:
    """Plot influence between tasks, and source weights in the same order if there are some."""
    if "posterior" not in fit or "w_sources" not in fit["posterior"]:
        return plot_influence_between_tasks(found)
    weights = weight_summary(fit)["mean"]
    order = weights["task"].values[clustered_order(weights.values)].astype(str)
    number = len(order)
    size = (2 * max(7.0, 3.6 + 0.7 * number), max(3.8, 2.9 + 0.5 * number))
    left, right = plt.subplots(1, 2, figsize=size, layout="constrained")[1]
    plot_relatedness(fit, left)
    return plot_influence_between_tasks(found.sel(task=order), right)


def _against_refits(found: xr.Dataset) -> Any:
    """Plot estimates against refits of the same rows."""
    return plot_influence_against_refits(found.assign(influence=found["estimate"]), found)[0]
