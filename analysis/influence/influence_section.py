"""Influence in a report: which rows of which task help or harm another."""

from __future__ import annotations

from functools import partial

import matplotlib.pyplot as plt
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

__all__ = ["influence_section"]

MOST_FEATURES, MOST_TASKS = 8, 3
"""Features of a row in the table, and tasks with a picture of their own, the most harmed ones."""


def influence_section(found: xr.DataTree, fit: xr.DataTree) -> Section:
    """Return the section on influence of single rows, with their ``features``, beside the fit."""
    every = found.to_dataset()
    features = every["features"].to_pandas().iloc[:, :MOST_FEATURES]
    rows = harmful_rows(every)
    rows = pd.concat([rows, features.loc[rows.index]], axis=1)
    note = f"Influence is the sum over all tasks. At most {MOST_FEATURES} features are shown."
    pictures = [
        Picture(
            "influence-between-tasks",
            "Which tasks help which, beside who borrows from whom",
            "Influence of rows, added up over the rows of each task.",
            "A task whose rows harm another that borrows much from it.",
            partial(_between_tasks, every, fit),
        )
    ]
    harm = every["influence"].clip(max=0.0).sum("row")
    for place, task in enumerate(harm.sortby(harm)["task"].values[:MOST_TASKS]):
        picture = Picture(
            f"influential-rows-{place + 1}",
            f"Which rows help or harm {task}?",
            "Each dot is a training row; those that help or harm most have their numbers.",
            "A row far on the left: it may be an outlier, or have a wrong target.",
            partial(plot_influential_rows, every, task),
        )
        pictures.append(picture)
    again = every.isel(row=every["refitted"].values)
    if "estimate" in every and again.sizes["row"] > 1:
        estimate = again.assign(influence=again["estimate"])
        picture = Picture(
            "influence-against-refits",
            "Do fits without the rows agree?",
            "Of rows without which the fit moves most; others are estimated better.",
            "Dots far off the line: do not rely on estimates for rows like these.",
            lambda: plot_influence_against_refits(estimate, again)[0],
        )
        pictures.append(picture)
    return Section(
        "influence",
        "Which rows help or harm which task?",
        "Influence of a training row on a task is the log density of the task's predicted rows, "
        f"less that without the row, in nats ({every.attrs['method']}). Look at a row that harms: "
        "it may be right, and the task unlike others.",
        tables=[ReportTable("Rows that harm most", rows, note=note)],
        pictures=pictures,
    )


def _between_tasks(found: xr.Dataset, fit: xr.DataTree) -> Axes:
    """Plot influence between tasks, and source weights in the same order if there are some."""
    if "posterior" not in fit or "w_sources" not in fit["posterior"]:
        return plot_influence_between_tasks(found)
    weights = weight_summary(fit)["mean"]
    order = weights["task"].values[clustered_order(weights.values)].astype(str)
    size = (2 * max(7.0, 3.6 + 0.7 * len(order)), max(3.8, 2.9 + 0.5 * len(order)))
    left, right = plt.subplots(1, 2, figsize=size, layout="constrained")[1]
    plot_relatedness(fit, left)
    return plot_influence_between_tasks(found.sel(task=order), right)
