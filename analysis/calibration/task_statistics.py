"""Statistics of each task's targets, as observed and as the model would draw them."""

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
    """Targets that were observed, and those that draws of the model put in their place.

    Attributes
    ----------
    observed
        (rows,), targets; classes as integer codes.
    drawn
        (S, rows), the same rows in S draws.
    classes
        Labels of the classes; None for real targets and counts.
    """

    observed: np.ndarray
    drawn: np.ndarray
    classes: list[Hashable] | None

    @property
    def whole(self) -> bool:
        """Are all targets whole numbers from 0?"""
        parts = (self.observed, self.drawn)
        return all(bool((part >= 0).all() and (part == np.round(part)).all()) for part in parts)


class TaskStatistics(NamedTuple):
    """Statistics of T tasks, K of each.

    Attributes
    ----------
    tasks
        T labels, in order of first appearance.
    names
        K names.
    observed
        (T, K), of the targets that were observed.
    drawn
        (S, T, K), of those in S draws.
    """

    tasks: list[Hashable]
    names: list[str]
    observed: np.ndarray
    drawn: np.ndarray

    def interval(self, ci_prob: float) -> tuple[np.ndarray, np.ndarray]:
        """Give both ends (T, K) of central intervals, values that were drawn themselves."""
        place = self._place(ci_prob)
        ordered = np.sort(self.drawn, axis=0)
        return ordered[place - 1], ordered[-place]

    def outside_by_chance(self, ci_prob: float) -> np.ndarray:
        """Give the probability (T, K) that one more draw lies outside of the interval.

        Each draw is held against the interval of the others: it has no part in its ends.
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
        """Give the place of the lower end among draws in ascending order, from 1."""
        return max(1, int(np.ceil(len(self.drawn) * (1 - ci_prob) / 2 - 1e-9)))


def rounding(values: np.ndarray) -> np.ndarray:
    """Give how far apart equal values may be, such as shares of the same rows."""
    slack: np.ndarray = 1e-6 * np.abs(values) + 1e-12
    return slack


def replicates(data: xr.DataTree, group: str) -> Replicates:
    """Get the targets of a tree, and those of a group of its draws.

    Raises
    ------
    ValueError
        If either is missing, or they are not of the same rows.
    """
    observed, drawn = needed(data, "observed_data", "y"), needed(data, group, "y")
    if observed.sizes["row"] != drawn.sizes["row"]:
        raise ValueError(
            f"The group {group!r} has {drawn.sizes['row']} rows, expected the "
            f"{observed.sizes['row']} of 'observed_data'. Draw targets for all of them."
        )
    noted = observed.attrs.get("classes")
    values = drawn.transpose("chain", "draw", "row").values
    return Replicates(
        observed.values,
        values.reshape(-1, observed.sizes["row"]),
        None if noted is None else list(json.loads(noted)),
    )


def task_statistics(data: xr.DataTree, group: str) -> TaskStatistics:
    """Compute statistics of every task: the share of each class, or mean and spread of targets.

    Parameters
    ----------
    data
        Tree with ``y`` in the groups ``observed_data`` and ``group``.
    group
        The group of draws.
    """
    found = replicates(data, group)
    of_row = row_tasks(needed(data, "observed_data", "y"))
    tasks = list(dict.fromkeys(of_row.tolist()))
    place = {task: t for t, task in enumerate(tasks)}
    codes = np.array([place[task] for task in of_row.tolist()])
    # Rows of a task side by side, so that each task is a slice.
    order = np.argsort(codes, kind="stable")
    ends = np.bincount(codes, minlength=len(tasks)).cumsum()[:-1]
    parts = zip(
        np.split(found.observed[order], ends),
        np.split(found.drawn[:, order], ends, axis=1),
        strict=True,
    )
    if found.classes is None:
        names = ["mean", "sd"]
        made = [[_moments(values) for values in part] for part in parts]
    else:
        names = [f"share of {label}" for label in found.classes]
        num = len(found.classes)
        made = [[_shares(values, num) for values in part] for part in parts]
    observed, drawn = zip(*made, strict=True)
    return TaskStatistics(tasks, names, np.stack(observed), np.stack(drawn, axis=1))


def predictive_pvalues(
    data: xr.DataTree, *, group: str = "posterior_predictive", ci_prob: float = 0.9
) -> pd.DataFrame:
    """Compare statistics of each task with those of targets that the model draws.

    The statistics are the mean and the standard deviation of real targets and counts, and the share
    of each class. Targets that the model was fitted to are nearer to what it draws than others
    would be: fewer p-values than one would expect are small (Gelman et al., Bayesian Data Analysis,
    section 6.3). A small one says all the more.

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
        A row for each ``task`` and ``statistic``: what was ``observed``, ``mean``, ``lower`` and
        ``upper`` end of what the model draws, and the two-sided ``p_value``, the probability of
        what is as far out, equal values counted half. Statistics of means are in the unit of the
        targets.

    Raises
    ------
    ValueError
        If the tree lacks one of the groups.

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
    index = pd.MultiIndex.from_product([found.tasks, found.names], names=["task", "statistic"])
    columns = {
        "observed": found.observed,
        "mean": found.drawn.mean(0),
        "lower": low,
        "upper": high,
        "p_value": p_values(found),
    }
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()}, index)


def p_values(found: TaskStatistics) -> np.ndarray:
    """Give the two-sided p-value of every statistic, (T, K)."""
    scale = rounding(found.observed)
    away = found.drawn - found.observed
    more, less = (away > scale).sum(0), (away < -scale).sum(0)
    num = len(found.drawn)
    tail = np.minimum(more, less) + 0.5 * (num - more - less)
    # What was observed counts as a draw: no p-value is 0.
    p: np.ndarray = np.minimum(1.0, 2 * (tail + 0.5) / (num + 1))
    return p


def _moments(values: np.ndarray) -> np.ndarray:
    """Mean and standard deviation over the last dimension, (..., 2)."""
    numbers = values.astype(float)
    return np.stack([numbers.mean(-1), numbers.std(-1)], -1)


def _shares(codes: np.ndarray, num_classes: int) -> np.ndarray:
    """Share of every class over the last dimension, (..., C)."""
    return np.stack([(codes == c).mean(-1) for c in range(num_classes)], -1)
