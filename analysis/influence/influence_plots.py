"""Influence between tasks, of the rows of each task, and against refits."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from scipy.stats import spearmanr

from pyro_vmtl.analysis.canvas import (
    COLORS,
    INK,
    MUTED,
    add_caption,
    axes_width,
    label_axes,
    named_ticks,
    on_axes,
)
from pyro_vmtl.analysis.tree_parts import shorten

__all__ = [
    "harmful_rows",
    "plot_influence_against_refits",
    "plot_influence_between_tasks",
    "plot_influential_rows",
]

HELPS, HARMS = COLORS[0], COLORS[1]

MOST_CELLS, NUMBER_WIDTH = 12, 30.0
"""Tasks up to which cells have their numbers written in them, and points that one needs."""

NAMED_ROWS = 3
"""Rows at either end that have their numbers."""


def plot_influence_between_tasks(influence: xr.Dataset, ax: Axes | None = None) -> Axes:
    """Plot how much all rows of one task help or harm another, as a heat map.

    Parameters
    ----------
    influence
        What :func:`pyro_vmtl.influence` returned, of single rows.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    Axes
        Rows are the tasks that are predicted, and columns the tasks of the training rows, whose
        influence is added up. Purple helps and orange harms, on a scale that is logarithmic from a
        tenth of the largest influence between tasks, as rows of the own task have far more. What
        would be without a task is another question: ``leave="task"`` of :func:`pyro_vmtl.influence`

    See Also
    --------
    plot_relatedness : The weights that tasks give each other.

    Examples
    --------
    >>> plot_influence_between_tasks(effects).get_ylabel()
    'predicted'
    """
    tasks = influence["task"].values
    sums = influence["influence"].groupby("row_task").sum().reindex(row_task=tasks, fill_value=0.0)
    values = sums.transpose("task", "row_task").values
    number = len(tasks)
    ax = on_axes(ax, (max(6.4, 3.2 + 0.7 * number), max(3.8, 2.8 + 0.5 * number)))
    others = np.abs(values[~np.eye(number, dtype=bool)])
    largest = max(float(np.abs(values).max()), 1e-12)
    linear = max(float(others.max(initial=0.0)), largest / 100) / 10
    norm = SymLogNorm(linear, vmin=-largest, vmax=largest)
    image = ax.imshow(values, cmap="PuOr", norm=norm, aspect="auto")
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.045, pad=0.02)
    ends = [-largest, -linear, 0.0, linear, largest]
    bar.set_ticks(ends, labels=[f"{end:.2g}" for end in ends])
    bar.ax.minorticks_off()
    bar.set_label("influence, nats", fontsize=12)
    bar.ax.tick_params(labelsize=10)
    if number <= MOST_CELLS and axes_width(ax) / number >= NUMBER_WIDTH:
        for (row, column), value in np.ndenumerate(values):
            dark = abs(norm(value) - 0.5) > 0.33
            text = ax.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=9)
            text.set_color("white" if dark else "black")
    names = [shorten(str(task)) for task in tasks]
    named = named_ticks(number)
    ax.set_xticks(named, [names[i] for i in named])
    ax.set_yticks(named, [names[i] for i in named])
    label_axes(ax, xlabel="rows of", ylabel="predicted")
    ax.spines[:].set_visible(False)
    if number > MOST_CELLS or max(map(len, names)) > 6:
        for label in ax.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")
    caption = "Influence of single rows on log densities, added up over the rows of each task."
    return add_caption(ax, "Which tasks' rows help which task", caption)


def plot_influential_rows(influence: xr.Dataset, task: Hashable, ax: Axes | None = None) -> Axes:
    """Plot the influence of every training row on one task, by the tasks of the rows.

    Parameters
    ----------
    influence
        What :func:`pyro_vmtl.influence` returned, of single rows.
    task
        Label of the task that is predicted.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    Axes
        A dot for each row. The rows that help or harm most have their numbers.

    Examples
    --------
    >>> ax = plot_influential_rows(effects, "Cy")
    """
    found = influence["influence"].sel(task=task)
    of = found["row_task"].values
    tasks = influence["task"].values.tolist()
    place = np.array([tasks.index(label) for label in of])
    rng = np.random.default_rng(0)
    values = found.values
    ax = on_axes(ax, (7.0, max(3.4, 2.0 + 0.4 * len(tasks))))
    height = place + rng.uniform(-0.25, 0.25, len(place))
    ax.scatter(values, height, 16, np.where(values < 0, HARMS, HELPS), linewidths=0, alpha=0.7)
    order = values.argsort()
    for rank, row in enumerate(dict.fromkeys([*order[:NAMED_ROWS], *order[-NAMED_ROWS:]])):
        name, at = str(found["row"].values[row]), (values[row], height[row])
        away = (0, 5 if rank % 2 else -14)  # neighbours would overlap
        text = ax.annotate(name, at, away, textcoords="offset points")
        text.set(fontsize=9, color=INK, ha="center")
    ax.axvline(0.0, color=MUTED, linewidth=1)
    largest = float(np.abs(values).max())
    if largest > 0:
        ax.set_xscale("symlog", linthresh=largest / 100)
        ends = [-largest, -largest / 10, 0.0, largest / 10, largest]
        ax.set_xticks(ends, [f"{end:.2g}" for end in ends], minor=False)
        ax.minorticks_off()
    ax.set_yticks(range(len(tasks)), [shorten(str(label)) for label in tasks])
    ax.set_ylim(len(tasks) - 0.4, -0.6)
    label_axes(ax, xlabel=f"influence on {shorten(str(task))}, nats", ylabel="task of the row")
    caption = "Each dot is a training row; numbers are those of the rows. Right of 0 it helps."
    return add_caption(ax, f"Which rows help to predict {shorten(str(task))}", caption)


def plot_influence_against_refits(
    estimate: xr.Dataset, refit: xr.Dataset, axes: Sequence[Axes] | None = None
) -> Sequence[Axes]:
    """Plot estimated influence against what fits without the rows say.

    Parameters
    ----------
    estimate, refit
        What :func:`pyro_vmtl.influence` returned, the latter with ``method="refit"``.
    axes
        Two Axes to draw on; new ones by default.

    Returns
    -------
    sequence of Axes
        For the task of each row, and for the other tasks, where influence is far smaller.

    Examples
    --------
    >>> left, right = plot_influence_against_refits(effects, effects)
    """
    if axes is None:
        axes = plt.subplots(1, 2, figsize=(10.0, 4.6), layout="constrained")[1]
    estimate = estimate.sel(row=refit["row"].values)
    own = refit["row_task"].values[:, None] == refit["task"].values
    parts = (("on the row's own task", own), ("on other tasks", ~own))
    for ax, (where, of) in zip(axes, parts, strict=True):
        if not of.any():  # of a single task
            ax.set_axis_off()
            continue
        x, y = estimate["influence"].values[of], refit["influence"].values[of]
        limits = [min(x.min(), y.min()), max(x.max(), y.max())]
        ax.plot(limits, limits, color=MUTED, linewidth=1)
        ax.scatter(x, y, 14, HELPS, linewidths=0, alpha=0.6)
        label_axes(ax, xlabel="estimate, nats", ylabel="refit, nats")
        ax.locator_params(axis="x", nbins=5)
        r, rho = np.corrcoef(x, y)[0, 1], spearmanr(x, y)[0]
        add_caption(ax, f"Influence {where}", f"Correlation {r:.2f}, of ranks {rho:.2f}.")
    return axes


def harmful_rows(
    influence: xr.Dataset, X: Any = None, *, task: Hashable | None = None, number: int = 10
) -> pd.DataFrame:
    """Return the rows that harm most, with their features.

    Parameters
    ----------
    influence
        What :func:`pyro_vmtl.influence` returned, of single rows.
    X
        (rows, F), features of the user's rows, an array or a data frame; none by default.
    task
        Label of the task that is harmed; by default their sum.
    number
        How many rows.

    Returns
    -------
    DataFrame
        Indexed by ``row``: ``row_task``, ``influence`` in nats, ``step`` if it is known, and
        features.

    Examples
    --------
    >>> len(harmful_rows(effects, number=2))
    2
    """
    values = influence["influence"]
    values = values.sum("task") if task is None else values.sel(task=task)
    content = {"row_task": values["row_task"], "influence": values}
    content |= {name: influence[name] for name in ("step",) if name in influence}
    index = pd.Index(values["row"].values, name="row")
    frame = pd.DataFrame({name: v.values for name, v in content.items()}, index)
    frame = frame[frame["influence"] < 0].nsmallest(number, "influence")
    if X is None:
        return frame
    features = pd.DataFrame(X).iloc[frame.index].set_axis(frame.index)
    return frame.join(features.rename(columns=str))
