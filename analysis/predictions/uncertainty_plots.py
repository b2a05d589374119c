"""How uncertain each task's predictions are, and how much of it more rows could remove."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import COLORS, dressed, legend_above, on_axes
from pyro_vmtl.analysis.tree_parts import needed, row_tasks, shortened

__all__ = ["OF_REAL", "plot_uncertainty", "stacked_parts", "uncertainty_parts"]

MOST_LABELS = 30
"""Tasks that are named along the axis."""

OF_REAL = "predictive variance (unit of the target, squared)"

REMOVABLE, REMAINING = "more rows could remove", "more rows would not remove"


def plot_uncertainty(data: xr.DataTree, ax: Axes | None = None) -> Axes:
    """Mean uncertainty of each task's predictions, in two parts that add up.

    Parameters
    ----------
    data
        A tree with the group ``predictions``. For classes, the entropy is the expected entropy
        (what more rows would not remove) plus the mutual information of prediction and posterior
        (what they could remove), in nats; for real targets, the variance is an aleatoric and an
        epistemic one, in the square of their unit.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    Axes
        A bar for each task, the most uncertain on top, with its number of training rows in brackets
        where the tree has those rows. With more than 30 tasks, some are named.

    Raises
    ------
    ValueError
        If there are no predictions, or they are not split.

    Examples
    --------
    >>> import xarray as xr
    >>> parts = {"expected_entropy": ("row", [0.1, 0.3]), "mutual_information": ("row", [0.1, 0.2])}
    >>> rows = xr.Dataset(parts, coords={"task": ("row", ["Ada", "Bo"])})
    >>> ax = plot_uncertainty(xr.DataTree.from_dict({"predictions": rows}))
    >>> [text.get_text() for text in ax.get_yticklabels()]
    ['Bo', 'Ada']
    """
    removable, remaining, unit = uncertainty_parts(data)
    tasks = row_tasks(removable)
    table = pd.DataFrame({"removable": removable.values, "remaining": remaining.values})
    means = table.groupby(pd.Index(tasks, tupleize_cols=False), sort=False).mean()
    means = means.loc[means.sum(axis=1).sort_values(kind="stable").index]  # the largest on top
    num = len(means)
    ax = on_axes(ax, (6.8, 2.0 + 0.34 * min(num, 14)))
    stacked_parts(ax, means["removable"].to_numpy(), means["remaining"].to_numpy())
    sizes = _training_rows(data)
    every = range(num - 1, -1, -num // MOST_LABELS)
    names = [means.index[i] for i in every]
    ax.set_yticks(
        list(every),
        [shortened(name) + (f" ({sizes[name]})" if name in sizes else "") for name in names],
    )
    what = "entropy (nats)" if unit == "nats" else OF_REAL
    dressed(
        ax,
        title="How uncertain predictions are, by task",
        xlabel=f"mean {what}",
        ylabel="task (training rows)" if sizes else "task",
    )
    return legend_above(ax)


def uncertainty_parts(data: xr.DataTree) -> tuple[xr.DataArray, xr.DataArray, str]:
    """Get what more rows could remove and what not, which add up, (row,), and their unit.

    For real targets these are variances, as standard deviations do not add up.
    """
    if "predictions" in data.children and "epistemic_std" in data["predictions"].data_vars:
        parts = (needed(data, "predictions", f"{n}_std") for n in ("epistemic", "aleatoric"))
        removable, remaining = (std**2 for std in parts)
        return removable, remaining, "squared"
    return (
        needed(data, "predictions", "mutual_information"),
        needed(data, "predictions", "expected_entropy"),
        "nats",
    )


def stacked_parts(ax: Axes, removable: np.ndarray, remaining: np.ndarray) -> None:
    """Draw bars from the bottom up, told apart by hatches, too."""
    num = len(removable)
    places = np.arange(num)
    height = 0.72 if num <= MOST_LABELS else 1.0
    line: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.8 if num <= MOST_LABELS else 0.0}
    ax.barh(places, remaining, height, color="0.75", label=REMAINING, **line)
    ax.barh(
        places,
        removable,
        height,
        left=remaining,
        color=COLORS[1],
        label=REMOVABLE,
        hatch="///" if num <= MOST_LABELS else None,
        **line,
    )
    ax.set_ylim(-0.6, num - 0.4)
    ax.set_xlim(left=0.0)


def _training_rows(data: xr.DataTree) -> dict[object, int]:
    if "observed_data" not in data.children or "task" not in data["observed_data"].coords:
        return {}
    return Counter(data["observed_data"].dataset["task"].values.tolist())
