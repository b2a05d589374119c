"""Compare statistics of each task's targets with those of predictive draws."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from pyro_vmtl.analysis.tree_parts import needed, row_tasks

__all__ = [
    "Replicates",
    "TaskStatistics",
    "predictive_pvalues",
    "replicates",
    "rounding",
    "task_statistics",
]


class Replicates(NamedTuple):
    """Observed targets (rows,) and predictive draws (S, rows) of the same rows.

    Classes are integer codes of the labels in ``classes``, which is None for other targets.
    """

    observed: np.ndarray
    drawn: np.ndarray
    classes: list[Hashable] | None


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


def replicates(data: xr.DataTree, group: str) -> Replicates:
    """Return the observed targets of a tree, and the draws of the same rows in a group."""
    observed, drawn = needed(data, "observed_data", "y"), needed(data, group, "y")
    if observed.sizes["row"] != drawn.sizes["row"]:
        raise ValueError(
            f"The group {group!r} has {drawn.sizes['row']} rows, expected the "
            f"{observed.sizes['row']} of 'observed_data'. Draw targets for all of them."
        )
    classes = observed.attrs.get("classes")
    values = drawn.transpose("chain", "draw", "row").values
    return Replicates(
        observed.values,
        values.reshape(-1, observed.sizes["row"]),
        None if classes is None else list(json.loads(classes)),
    )


def task_statistics(data: xr.DataTree, group: str) -> TaskStatistics:
    """Compute the share of each class, or mean and standard deviation of targets, in each task."""
    found = replicates(data, group)
    tasks = row_tasks(needed(data, "observed_data", "y"))
    by_row = np.vstack([found.observed, found.drawn]).T  # (rows, 1 + S)
    if found.classes is None:
        names, by_task = (
            ["mean", "sd"],
            pd.DataFrame(by_row.astype(float)).groupby(tasks, sort=False),
        )
        made = [by_task.mean(), by_task.std(ddof=0)]
    else:
        names = [f"share of {label}" for label in found.classes]
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

    Raises
    ------
    ValueError
        If the tree lacks one of the groups.

    See Also
    --------
    plot_ppc_by_task

    Examples
    --------
    >>> rows = {"row": [0, 1], "task": ("row", ["a", "a"])}
    >>> observed = xr.Dataset({"y": ("row", [9.0, 11.0])}, rows)
    >>> draws = np.random.default_rng(0).normal(size=(1, 1000, 2))
    >>> drawn = xr.Dataset({"y": (("chain", "draw", "row"), draws)}, rows)
    >>> tree = {"observed_data": observed, "posterior_predictive": drawn}
    >>> predictive_pvalues(xr.DataTree.from_dict(tree)).round(3)["p_value"].to_dict()
    {('a', 'mean'): 0.001, ('a', 'sd'): 0.327}
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
