"""Influence in a report: which rows of which task help or harm another."""

from __future__ import annotations

from collections.abc import Iterator
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


def influence_section(data: xr.DataTree) -> Section:
    """Return the section on the group ``influence`` of the tree of a fit."""
    name, title = "influence", "Which rows help or harm which task?"
    if name not in data.children:
        return Section(name, title)
    every = data.children[name].to_dataset()
    features = pd.DataFrame(every["features"].values, every["row"].values, every["feature"].values)
    features, rows = features.iloc[:, :MOST_FEATURES], harmful_rows(every)
    rows = pd.concat([rows, features.loc[rows.index]], axis=1)
    note = f"Influence on all tasks; at most {MOST_FEATURES} features are shown."
    return Section(
        name,
        title,
        "Influence of a row on a task is the log density of the task's predicted rows less that "
        f"without the row, in nats ({every.attrs['method']}). A row that harms may be right.",
        tables=[ReportTable("Rows that harm most", rows, note=note)],
        pictures=list(_pictures(every, data)),
    )


def _pictures(found: xr.Dataset, fit: xr.DataTree) -> Iterator[Picture]:
    yield Picture(
        "influence-between-tasks",
        "Which tasks help which, beside who borrows from whom",
        "Influence of rows, added up over the rows of each task.",
        "A task whose rows harm another that borrows much from it.",
        partial(_between_tasks, found, fit),
    )
    harm = found["influence"].clip(max=0.0).sum("row")
    for place, task in enumerate(harm.sortby(harm)["task"].values[:MOST_TASKS]):
        yield Picture(
            f"influential-rows-{place + 1}",
            f"Which rows help or harm {task}?",
            "Each dot is a training row; those that help or harm most have their numbers.",
            "A row far on the left: it may be an outlier, or have a wrong target.",
            partial(plot_influential_rows, found, task),
        )
    again = found.isel(row=found["refitted"].values)
    if "estimate" in found and again.sizes["row"] > 1:
        estimate = again.assign(influence=again["estimate"])
        yield Picture(
            "influence-against-refits",
            "Do fits without the rows agree?",
            "Of rows without which the fit moves most; others are estimated better.",
            "Dots far off the line: do not rely on estimates for rows like these.",
            lambda: plot_influence_against_refits(estimate, again)[0],
        )


def _between_tasks(found: xr.Dataset, fit: xr.DataTree) -> Axes:
    """Plot influence between tasks, and source weights in the same order if there are some."""
    if "posterior" not in fit or "w_sources" not in fit["posterior"]:
        return plot_influence_between_tasks(found)
    weights = weight_summary(fit)["mean"]
    order = weights["task"].values[clustered_order(weights.values)].astype(str)
    size = (max(7.0, 3.6 + 0.7 * len(order)), 2 * max(3.8, 2.9 + 0.5 * len(order)))
    above, below = plt.subplots(2, 1, figsize=size, layout="constrained")[1]
    plot_relatedness(fit, above)
    return plot_influence_between_tasks(found.sel(task=order), below)
