"""Compare statistics of each task's targets with those that the model draws."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import COLORS, MUTED, add_note, label_axes, on_axes
from pyro_vmtl.analysis.tree_parts import get_variable, row_tasks, shorten

__all__ = ["TaskStatistics", "plot_ppc_by_task", "predictive_pvalues", "task_statistics"]

NUM_NAMED = 5
"""Values with a name on the plot."""


class TaskStatistics(NamedTuple):
    """Statistics with K names of T tasks: observed (T, K) and in S predictive draws (S, T, K)."""

    tasks: list[Hashable]
    names: list[str]
    observed: np.ndarray
    drawn: np.ndarray

    def interval(self, ci_prob: float) -> tuple[np.ndarray, np.ndarray]:
        """Return both ends (T, K) of central intervals, which are draws themselves."""
        place = self._place(ci_prob)
        ordered = np.sort(self.drawn, axis=0)
        return ordered[place - 1], ordered[-place]

    def outside_by_chance(self, ci_prob: float) -> np.ndarray:
        """Estimate the probability (T, K) that one more draw lies outside of the interval.

        Each draw is compared with the interval of the others, as it has no part in its ends.
        """
        place, num = self._place(ci_prob), len(self.drawn)
        if place == num:  # one draw: nothing else is inside
            return np.ones(self.drawn.shape[1:])
        ordered = np.sort(self.drawn, axis=0)
        # Without a draw from below, the next one up is the end.
        low, high = ordered[place], ordered[-place - 1]
        slack = rounding(ordered)
        out = (ordered < low - slack).sum(0) + (ordered > high + slack).sum(0)
        share: np.ndarray = out / (num + 1)
        return share

    def _place(self, ci_prob: float) -> int:
        """Return the place of the lower end among draws in ascending order, from 1."""
        return max(1, int(np.ceil(len(self.drawn) * (1 - ci_prob) / 2 - 1e-9)))


def rounding(values: np.ndarray) -> np.ndarray:
    """Return by how much equal values may differ, such as shares of the same rows."""
    slack: np.ndarray = 1e-6 * np.abs(values) + 1e-12
    return slack


def task_statistics(data: xr.DataTree, group: str) -> TaskStatistics:
    """Compute the share of each class, or mean and standard deviation of targets, in each task."""
    observed, drawn = get_variable(data, "observed_data", "y"), get_variable(data, group, "y")
    num_rows = observed.sizes["row"]
    if num_rows != drawn.sizes["row"]:
        raise ValueError(
            f"The group {group!r} has {drawn.sizes['row']} rows, expected the {num_rows} of "
            "'observed_data'. Draw targets for all of them."
        )
    draws = drawn.transpose("chain", "draw", "row").values.reshape(-1, num_rows)
    by_row, tasks = np.vstack([observed.values, draws]).T, row_tasks(observed)  # (rows, 1 + S)
    classes = observed.attrs.get("classes")
    if classes is None:
        names = ["mean", "sd"]
        by_task = pd.DataFrame(by_row.astype(float)).groupby(tasks, sort=False)
        made = [by_task.mean(), by_task.std(ddof=0)]
    else:
        names = [f"share of {label}" for label in json.loads(classes)]
        of_class = (pd.DataFrame(by_row == code) for code in range(len(names)))
        made = [table.groupby(tasks, sort=False).mean() for table in of_class]
    values = np.stack([table.to_numpy().T for table in made], axis=-1)  # (1 + S, T, K)
    return TaskStatistics(made[0].index.tolist(), names, values[0], values[1:])


def predictive_pvalues(
    data: xr.DataTree, *, group: str = "posterior_predictive", ci_prob: float = 0.9
) -> pd.DataFrame:
    """Compare statistics of each task with those of predictive draws.

    The statistics are the mean and the standard deviation of real targets and counts, and the share
    of each class. The model was fitted to these targets: fewer p-values than expected are small
    (Gelman et al., Bayesian Data Analysis, section 6.3), and a small one says all the more.

    Parameters
    ----------
    data
        Tree with ``y`` in the groups ``observed_data`` and ``group``.
    group
        ``"posterior_predictive"`` or ``"prior_predictive"``.
    ci_prob
        Probability of the intervals.

    Returns
    -------
    DataFrame
        A row per ``task`` and ``statistic``: the ``observed`` value; ``mean``, ``lower`` and
        ``upper`` end of the interval of draws; and the two-sided ``p_value``, the probability of a
        value as far out, equal values counted half.

    See Also
    --------
    plot_ppc_by_task

    Examples
    --------
    >>> list(predictive_pvalues(tree))
    ['observed', 'mean', 'lower', 'upper', 'p_value']
    """
    found = task_statistics(data, group)
    low, high = found.interval(ci_prob)
    slack, num = rounding(found.observed), len(found.drawn)
    away = found.drawn - found.observed
    more, less = (away > slack).sum(0), (away < -slack).sum(0)
    tail = np.minimum(more, less) + 0.5 * (num - more - less)
    index = pd.MultiIndex.from_product([found.tasks, found.names], names=["task", "statistic"])
    columns = {
        "observed": found.observed,
        "mean": found.drawn.mean(0),
        "lower": low,
        "upper": high,
        # The observed value counts as a draw: no p-value is 0.
        "p_value": np.minimum(1.0, 2 * (tail + 0.5) / (num + 1)),
    }
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()}, index)


def plot_ppc_by_task(
    data: xr.DataTree,
    ax: Axes | None = None,
    *,
    group: str = "posterior_predictive",
    ci_prob: float = 0.9,
) -> Axes:
    """Plot the observed mean or class shares of each task, with their predictive intervals.

    Parameters
    ----------
    data, group, ci_prob
        As for :func:`predictive_pvalues`.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    Axes
        A marker for the mean of each task, or for the share of each class in each task, over its
        expected value, with the interval of draws; a cross outside of it, and names of those
        farthest outside. The title counts the crosses, and how many are expected: counts and shares
        have few distinct values, so that fewer than 1 - ``ci_prob`` are outside.

    See Also
    --------
    predictive_pvalues
    arviz_plots.plot_ppc_dist : All targets together.
    arviz_plots.plot_ppc_rootogram : All counts or classes together.

    Examples
    --------
    >>> [label.get_text() for label in plot_ppc_by_task(tree).get_yticklabels()]
    ['−0.4', '−0.3', '−0.2', '−0.1', '0.0', '0.1', '0.2', '0.3']
    """
    found = task_statistics(data, group)
    of_classes = found.names[:2] != ["mean", "sd"]
    if not of_classes:
        found = found._replace(
            names=["mean"], observed=found.observed[:, :1], drawn=found.drawn[..., :1]
        )
    observed, expected, slack = found.observed, found.drawn.mean(0), rounding(found.observed)
    low, high = found.interval(ci_prob)
    outside = (observed < low - slack) | (observed > high + slack)
    ax = on_axes(ax, (6.4, 4.8))
    ends = [min(expected.min(), low.min()), max(expected.max(), high.max())]
    ax.plot(ends, ends, "--", color=MUTED, linewidth=1.5, zorder=1)
    width = max(0.5, min(3.0, 300 / expected.size))
    ax.vlines(expected, low, high, color=COLORS[5], linewidth=width, alpha=0.7, zorder=1.5)
    size = 6 if expected.size <= 100 else 4
    for kept, color, marker in ((~outside, COLORS[0], "o"), (outside, COLORS[1], "X")):
        ax.plot(expected[kept], observed[kept], marker, color=color, markersize=size, alpha=0.8)
    note = "dot: observed, bar: interval of draws"
    if outside.any():
        note += ", \N{MULTIPLICATION SIGN}: observed outside"
        bottom, top = ax.get_ylim()
        ax.set_ylim(bottom, top + 0.4 * (top - bottom))  # room for names above the points
        add_note(ax, _farthest(found, outside))
    what = "shares" if of_classes else "task means"
    title = (
        f"{outside.sum()} of {outside.size} {what} {'lies' if outside.sum() == 1 else 'lie'} "
        f"outside of {ci_prob:.0%} intervals,\n"
        f"about {found.outside_by_chance(ci_prob).sum():.1f} would by chance"
    )
    unit = "share of a class in a task" if of_classes else "mean of a task (unit of targets)"
    xlabel = f"expected {unit}\n{note}"
    return label_axes(ax, title=title, xlabel=xlabel, ylabel=f"observed {unit}")


def _farthest(found: TaskStatistics, outside: np.ndarray) -> str:
    """Name the values farthest outside, in standard deviations of draws: p-values have ties."""
    away = np.abs(found.observed - found.drawn.mean(0)) / (found.drawn.std(0) + 1e-9)
    order = np.argsort(-np.where(outside, away, -1.0), axis=None, kind="stable")
    lines = ["farthest outside:"]
    for place in order[: min(NUM_NAMED, outside.sum())]:
        t, k = np.unravel_index(place, outside.shape)
        name = shorten(found.names[k].removeprefix("share of "), 14)
        of = f": {name}" if len(found.names) > 1 else ""
        lines.append(f"  {shorten(found.tasks[t], 16)}{of}")
    return "\n".join(lines)
