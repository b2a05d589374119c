"""Compare the source weights of a fit with known groups of its tasks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import (
    COLORS,
    INK,
    MUTED,
    add_caption,
    label_axes,
    named_ticks,
    on_axes,
)
from pyro_vmtl.analysis.relatedness.weights import pool_weights
from pyro_vmtl.analysis.tree_parts import equal_tails, shorten, task_name

__all__ = ["own_group_share", "plot_relatedness_truth", "relatedness_recovery"]


def own_group_share(weights: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    r"""Compute which part of what each task borrows comes from its own group.

    Parameters
    ----------
    weights
        (\*S, T, T + 1), weights with the base last; NaN counts as 0.
    groups
        The group of each task.

    Returns
    -------
    ndarray
        (\*S, T), from 0 to 1; NaN where nothing is borrowed.

    Examples
    --------
    >>> import numpy as np
    >>> own_group_share(np.array([[0, 0.3, 0.1, 0.6], [0.5, 0, 0, 0.5], [1, 0, 0, 0]]), "aab")
    array([0.75, 1.  , 0.  ])
    """
    sources = np.nan_to_num(weights[..., :-1])
    codes = pd.factorize(pd.Series(list(groups), dtype=object))[0]
    borrowed = sources.sum(-1)
    share = np.full(borrowed.shape, np.nan)
    within = (sources * (codes[:, None] == codes)).sum(-1)
    return np.divide(within, borrowed, out=share, where=borrowed > 0)


def relatedness_recovery(
    data: xr.DataTree,
    groups: Sequence[Hashable] | Mapping[Hashable, Hashable],
    *,
    ci_prob: float = 0.9,
) -> pd.DataFrame:
    """Compute how much each task borrows from its own group, where groups are known.

    Parameters
    ----------
    data
        A tree with ``w_sources`` in its posterior.
    groups
        The group of each task, by its label, or of the T tasks in the order of the tree.
    ci_prob
        Probability of the interval.

    Returns
    -------
    DataFrame
        A row for each task: ``group``; ``own_group``, the part of what it borrows from others that
        comes from its own group, of mean weights; ``lower`` and ``upper``, the interval of that
        part over draws; ``even_share``, that part if it borrowed from all alike. NaN for a task
        that borrows nothing.

    Raises
    ------
    ValueError
        If there is not one group for each task.

    Examples
    --------
    >>> import torch
    >>> from pyro_vmtl.analysis import relatedness_datatree
    >>> weights = torch.tensor([[0.0, 0.75, 0.25, 0.0], [0.5, 0, 0, 0.5], [0.25, 0.25, 0, 0.5]])
    >>> tree = relatedness_datatree(weights.expand(5, 3, 4), ["a", "b", "c"])
    >>> relatedness_recovery(tree, [1, 1, 2])[["own_group", "even_share"]].values.tolist()
    [[0.75, 0.5], [1.0, 0.5], [0.0, 0.0]]
    """
    weights = pool_weights(data)
    tasks = weights["task"].values.tolist()
    if isinstance(groups, Mapping):
        missing = [task for task in tasks if task not in groups]
        if missing:
            raise ValueError(
                f"groups has no group of task {missing[0]!r}, expected one of each task: "
                f"{', '.join(map(repr, tasks[:10]))}."
            )
        groups = [groups[task] for task in tasks]
    if len(groups) != len(tasks):
        raise ValueError(
            f"groups has {len(groups)} labels, expected one for each of the {len(tasks)} "
            f"tasks, in the order {', '.join(map(repr, tasks[:5]))}..."
        )
    shares = pd.DataFrame(own_group_share(weights.values, groups))
    table = pd.DataFrame({"group": pd.Series(list(groups), dtype=object)})
    mean = weights.mean("sample", dtype=float, skipna=False).values
    table["own_group"] = own_group_share(mean, groups)
    table[["lower", "upper"]] = shares.quantile(equal_tails(ci_prob)).T.to_numpy()
    siblings = table["group"].map(table["group"].value_counts()).astype(float) - 1
    table["even_share"] = siblings / max(len(tasks) - 1, 1)
    return table.set_axis(pd.Index(tasks, name="task"))


def plot_relatedness_truth(
    data: xr.DataTree,
    groups: Sequence[Hashable] | Mapping[Hashable, Hashable],
    ax: Axes | None = None,
    *,
    ci_prob: float = 0.9,
) -> Axes:
    """Plot :func:`relatedness_recovery`: how much each task borrows from its true group.

    Parameters
    ----------
    data, groups, ci_prob
        As for :func:`relatedness_recovery`.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    Axes
        A row for each task, group by group: a dot at the mean share, a line for its interval, and
        a short upright line at the even share. Groups are named at the right.
    """
    table = relatedness_recovery(data, groups, ci_prob=ci_prob)
    table = table.iloc[np.argsort(pd.factorize(table["group"])[0], kind="stable")]
    codes, names = pd.factorize(table["group"])
    count = len(table)
    ax = on_axes(ax, (7.2, min(9.0, 2.4 + 0.28 * count)))
    places, size = np.arange(count), min(1.0, 40 / count)
    colors = [COLORS[code % len(COLORS)] for code in codes]
    ax.hlines(places, table["lower"], table["upper"], colors=colors, linewidth=0.8 + 1.6 * size)
    ax.vlines(table["even_share"], places - 0.4, places + 0.4, colors=MUTED, linewidth=1.5)
    ax.scatter(table["own_group"], places, 8 + 24 * size, colors, zorder=3)
    for edge in np.flatnonzero(np.diff(codes)):
        ax.axhline(edge + 0.5, color="0.85", linewidth=0.8)
    for code in named_ticks(len(names)):
        place = (1, float(places[codes == code].mean()))
        across = ax.get_yaxis_transform()
        name = shorten(names[code], 14)
        text = ax.annotate(name, place, (6, 0), xycoords=across, textcoords="offset points")
        text.set(fontsize=11, color=INK, va="center")
    named = named_ticks(count)
    ax.set_yticks(named, [shorten(table.index[i]) for i in named])
    ax.set(xlim=(-0.02, 1.02), ylim=(count - 0.5, -0.5))
    xlabel = "share of what is borrowed that comes from its own group"
    label_axes(ax, xlabel=xlabel, ylabel=task_name(data))
    caption = f"Dot: mean. Line: {ci_prob:.0%} interval. Grey: if it borrowed from all alike."
    return add_caption(ax, "Does each task borrow from its own group?", caption)
