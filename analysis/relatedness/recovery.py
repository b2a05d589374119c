"""Are true groups of tasks found again?"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import COLORS, INK, MUTED, dressed, on_axes
from pyro_vmtl.analysis.relatedness.pool_weights import pool_weights
from pyro_vmtl.analysis.relatedness.tables import own_group_share
from pyro_vmtl.analysis.task_names import captioned, thinned
from pyro_vmtl.analysis.tree_parts import needed, shortened

__all__ = ["plot_relatedness_truth", "relatedness_recovery"]


def relatedness_recovery(
    data: xr.DataTree,
    groups: Sequence[Hashable] | Mapping[Hashable, Hashable],
    *,
    ci_prob: float = 0.9,
) -> pd.DataFrame:
    """Compare whom tasks borrow from with groups that are known.

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
        part over draws; ``even_share``, what the part would be if it borrowed from all alike. NaN
        for a task that borrows nothing.

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
    groups = _in_order(groups, needed(data, "posterior", "w_sources")["task"].values.tolist())
    if len(groups) != len(weights.tasks):
        raise ValueError(
            f"groups has {len(groups)} labels, expected one for each of the {len(weights.tasks)} "
            f"tasks, in the order {', '.join(repr(task) for task in weights.tasks[:5])}..."
        )
    tail = (1 - ci_prob) / 2
    shares = own_group_share(weights.draws, groups)
    some = ~np.isnan(shares).all(0)
    ends = np.full((2, len(groups)), np.nan)
    if some.any():
        ends[:, some] = np.nanquantile(shares[:, some], [tail, 1 - tail], axis=0)
    column = pd.Series(list(groups), dtype=object)
    siblings = column.map(column.value_counts()).to_numpy(float) - 1
    return pd.DataFrame(
        {
            "group": list(groups),
            "own_group": own_group_share(weights.mean(), groups),
            "lower": ends[0],
            "upper": ends[1],
            "even_share": siblings / max(len(groups) - 1, 1),
        },
        index=pd.Index(weights.tasks, name="task"),
    )


def _in_order(
    groups: Sequence[Hashable] | Mapping[Hashable, Hashable], tasks: list[Hashable]
) -> list[Hashable]:
    """Give the group of each task in the order of the tree."""
    if not isinstance(groups, Mapping):
        return list(groups)
    missing = [task for task in tasks if task not in groups]
    if missing:
        raise ValueError(
            f"groups has no group of task {missing[0]!r}, expected one of each task: "
            f"{', '.join(map(repr, tasks[:10]))}."
        )
    return [groups[task] for task in tasks]


def plot_relatedness_truth(
    data: xr.DataTree,
    groups: Sequence[Hashable] | Mapping[Hashable, Hashable],
    ax: Axes | None = None,
    *,
    ci_prob: float = 0.9,
) -> Axes:
    """Picture of :func:`relatedness_recovery`: how much each task borrows from its true group.

    Parameters
    ----------
    data
        A tree with ``w_sources`` in its posterior.
    groups
        The group of each of the T tasks, in the order of the tree.
    ax
        Axes to draw on; new ones by default.
    ci_prob
        Probability of the interval.

    Returns
    -------
    Axes
        A row for each task, group by group: a dot at the mean share, a line for its interval, and
        a short upright line at the even share. Groups are named at the right.
    """
    table = relatedness_recovery(data, groups, ci_prob=ci_prob)
    order = pd.Series(pd.factorize(table["group"])[0]).argsort(kind="stable").to_numpy()
    table = table.iloc[order]
    count = len(table)
    ax = on_axes(ax, (7.2, min(9.0, 2.4 + 0.28 * count)))
    places = np.arange(count)
    codes, names = pd.factorize(table["group"])
    colors = [COLORS[code % len(COLORS)] for code in codes]
    size = 1.0 if count <= 40 else 40 / count
    ax.hlines(places, table["lower"], table["upper"], colors=colors, linewidth=0.8 + 1.6 * size)
    ax.vlines(table["even_share"], places - 0.4, places + 0.4, colors=MUTED, linewidth=1.5)
    ax.scatter(table["own_group"], places, 8 + 24 * size, colors, zorder=3)
    edges = [0, *(np.nonzero(np.diff(codes))[0] + 1), count]
    for edge in edges[1:-1]:
        ax.axhline(edge - 0.5, color="0.85", linewidth=0.8)
    for code in thinned(len(names)):
        middle = (edges[code] + edges[code + 1] - 1) / 2
        text = ax.annotate(
            shortened(names[code], 14),
            (1, middle),
            (6, 0),
            xycoords=ax.get_yaxis_transform(),
            textcoords="offset points",
        )
        text.set(fontsize=11, color=INK, va="center")
    named = thinned(count)
    ax.set_yticks(named, [shortened(table.index[i]) for i in named])
    ax.set(xlim=(-0.02, 1.02), ylim=(count - 0.5, -0.5))
    name = str(data.attrs.get("task_name", "task"))
    dressed(ax, xlabel="share of what is borrowed that comes from its own group", ylabel=name)
    caption = f"Dot: mean. Line: {ci_prob:.0%} interval. Grey: if it borrowed from all alike."
    return captioned(ax, "Does each task borrow from its own group?", caption)
