"""A picture of how well each row is predicted when it is left out."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import COLORS, INK, dressed, in_nats, on_axes
from pyro_vmtl.analysis.diagnostics.leave_one_out import loo
from pyro_vmtl.analysis.tree_parts import shortened

__all__ = ["plot_loo"]

MOST_TASKS = 30
"""Tasks on the picture; of more, those with the rows that are predicted worst."""

NUM_NAMED = 5
"""Rows that are named: those that are predicted worst."""


def plot_loo(data: xr.DataTree, ax: Axes | None = None) -> Axes:
    """Picture of each row's leave-one-out log predictive density, task by task.

    Parameters
    ----------
    data
        Tree of a fit, as for :func:`loo`.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    Axes
        A dot for each row; a cross where its k-hat is too large for the estimate to be trusted, as
        the fit hangs on that row. The five rows that are predicted worst have their numbers. With
        more than 30 tasks, only those with the worst rows.
    """
    result = loo(data)
    elpd, tasks = result.elpd_i.values, result.elpd_i["task"].values
    bad = result.pareto_k.values > result.good_k
    rows = result.elpd_i["row"].values if "row" in result.elpd_i.indexes else np.arange(len(elpd))
    order = list(dict.fromkeys(tasks))
    if len(order) > MOST_TASKS:
        worst = list(dict.fromkeys(tasks[np.argsort(elpd, kind="stable")]))[:MOST_TASKS]
        order = [task for task in order if task in worst]
    place = {task: i for i, task in enumerate(order)}
    shown = np.flatnonzero([task in place for task in tasks])
    height = np.array([place[tasks[i]] for i in shown], dtype=float)
    ax = on_axes(ax, (6.8, 1.6 + 0.3 * len(order)))
    spread = 0.5 * (np.random.default_rng(0).random(len(shown)) - 0.5)  # that dots do not hide dots
    for kept, marker, color, size in ((~bad, "o", COLORS[0], 4), (bad, "x", COLORS[1], 6)):
        some = kept[shown]
        x, heights = elpd[shown][some], (height + spread)[some]
        ax.plot(x, heights, marker, color=color, markersize=size, alpha=0.7)
    left, right = ax.get_xlim()
    ax.set_xlim(left - 0.14 * (right - left), right)  # room for names
    for i in np.argsort(elpd[shown])[:NUM_NAMED]:
        at = (elpd[shown[i]], height[i] + spread[i])
        text = ax.annotate(f"row {rows[shown[i]]}", at, (-6, 0), textcoords="offset points")
        text.set(fontsize=11, color=INK, ha="right", va="center")
    ax.set_yticks(range(len(order)), [shortened(task) for task in order])
    ax.set_ylim(len(order) - 0.5, -0.5)
    missing = len(place) < len(set(tasks))
    ylabel = f"the {len(order)} tasks with the worst rows" if missing else "task"
    title = f"Rows left out: {in_nats(result.elpd)} (se {result.se:.2g})"
    xlabel = "log predictive density (nats)"
    if bad.any():
        cross = "\N{MULTIPLICATION SIGN}"
        xlabel += f"\n{cross}: do not trust the estimate, in {bad.sum()} of {len(bad)} rows"
    return dressed(ax, title=title, xlabel=xlabel, ylabel=ylabel)
