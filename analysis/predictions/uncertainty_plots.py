"""Uncertainty of predictions by task and by row, split by whether more rows could reduce it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import COLORS, label_axes, legend_above, on_axes
from pyro_vmtl.analysis.tree_parts import get_variable, row_tasks, shorten, task_sizes

__all__ = ["most_uncertain_rows", "plot_uncertain_rows", "plot_uncertainty"]

MOST_LABELS = 30
"""Tasks that are named along the axis."""

PARTS_OF_CLASSES = ("mutual_information", "expected_entropy")
PARTS_OF_REAL = ("epistemic_std", "aleatoric_std")
OF_CLASSES = ("mutual_information", "entropy", "expected_entropy")
OF_REAL = ("std", *PARTS_OF_REAL)
"""Quantities to order rows by, the default first."""


def plot_uncertainty(data: xr.DataTree, ax: Axes | None = None) -> Axes:
    """Plot the mean uncertainty of each task's predictions, in two parts that add up.

    Parameters
    ----------
    data
        A tree with the group ``predictions``. For classes, the entropy is the expected entropy
        (which more rows would not remove) plus the mutual information of prediction and posterior
        (which they could remove), in nats; for real targets, the variance is an aleatoric and an
        epistemic one, in the square of their unit.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    Axes
        A bar for each task, the most uncertain on top, with its number of training rows in brackets
        where the tree has those rows. With more than 30 tasks, some are named.

    Examples
    --------
    >>> [label.get_text() for label in plot_uncertainty(tree).get_yticklabels()]
    ['Bo (12)', 'Cy (12)', 'Ada (12)']
    """
    real = "predictions" in data.children and PARTS_OF_REAL[0] in data["predictions"].data_vars
    names = PARTS_OF_REAL if real else PARTS_OF_CLASSES
    parts = [get_variable(data, "predictions", name) for name in names]
    table = pd.DataFrame({name: part.values for name, part in zip(names, parts, strict=True)})
    table = table**2 if real else table  # variances add up, standard deviations do not
    means = table.groupby(pd.Index(row_tasks(parts[0]), tupleize_cols=False), sort=False).mean()
    means = means.loc[means.sum(axis=1).sort_values(kind="stable").index]  # the largest on top
    num = len(means)
    ax = on_axes(ax, (6.8, 2.0 + 0.34 * min(num, 14)))
    _stack_bars(ax, *means.to_numpy().T)
    sizes = task_sizes(data, means.index)
    every = range(num - 1, -1, -num // MOST_LABELS)
    labels = [shorten(name) for name in means.index[every]]
    if sizes is not None:
        labels = [f"{label} ({sizes[i]})" for i, label in zip(every, labels, strict=True)]
    ax.set_yticks(every, labels)
    label_axes(
        ax,
        title="How uncertain predictions are, by task",
        xlabel=f"mean {_unit(real=real)}",
        ylabel="task" if sizes is None else "task (training rows)",
    )
    return legend_above(ax)


def most_uncertain_rows(data: xr.DataTree, n: int = 10, *, by: str | None = None) -> pd.DataFrame:
    """Return the rows whose predictions are the most uncertain.

    Parameters
    ----------
    data
        A tree with the group ``predictions``.
    n
        Number of rows.
    by
        Quantity to order by. For classes ``"mutual_information"``, the default: rows that more
        data would help; ``"entropy"`` or ``"expected_entropy"``: rows that are between classes. For
        real targets ``"std"``, the default, ``"epistemic_std"`` or ``"aleatoric_std"``.

    Returns
    -------
    DataFrame
        The most uncertain first. Columns ``row`` (its place in the rows that were predicted),
        ``task``, ``true`` where it is known, then for classes ``predicted``, ``probability`` (of
        that class), ``entropy``, ``expected_entropy`` and ``mutual_information`` in nats, or for
        real targets ``mean``, ``std``, ``epistemic_std`` and ``aleatoric_std`` in their unit.

    Examples
    --------
    >>> len(most_uncertain_rows(tree, n=3))
    3
    """
    real = "predictions" in data.children and "mean" in data["predictions"].data_vars
    known = OF_REAL if real else OF_CLASSES
    by = by or known[0]
    if by not in known:
        raise ValueError(
            f"by is {by!r}, expected one of {', '.join(known)} for "
            f"{'real targets' if real else 'classes'}."
        )
    if n < 1:
        raise ValueError(f"n is {n}, expected at least 1.")
    for name in known:
        values = get_variable(data, "predictions", name)
    group = data["predictions"].dataset
    order = np.argsort(-group[by].values, kind="stable")[:n]
    table: dict[str, Any] = {"row": group["row"].values[order], "task": row_tasks(values)[order]}
    columns: tuple[str, ...] = ("mean", *OF_REAL)
    if "y" in group:
        table["true"] = group["y"].values[order]
    if not real:
        proba = get_variable(data, "predictions", "proba").transpose("row", "class").values[order]
        classes = group["class"].values
        if "y" in group:
            stored = group["y"].attrs.get("classes")
            labels = classes if stored is None else np.array(json.loads(stored), dtype=object)
            table["true"] = labels[table["true"].astype(int)]
        table |= {"predicted": classes[proba.argmax(1)], "probability": proba.max(1)}
        columns = ("entropy", "expected_entropy", "mutual_information")
    return pd.DataFrame(table | {name: group[name].values[order] for name in columns})


def plot_uncertain_rows(
    data: xr.DataTree, ax: Axes | None = None, *, n: int = 10, by: str | None = None
) -> Axes:
    """Plot the rows whose predictions are the most uncertain, in two parts that add up.

    Parameters
    ----------
    data, n, by
        As for :func:`most_uncertain_rows`.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    Axes
        A bar for each row, the most uncertain on top: entropies in nats, or variances in the square
        of the targets' unit.

    Examples
    --------
    >>> ax = plot_uncertain_rows(tree, n=5)
    """
    table = most_uncertain_rows(data, n, by=by)[::-1]
    real = "std" in table
    ax = on_axes(ax, (7.2, 1.9 + 0.44 * len(table)))
    names = PARTS_OF_REAL if real else PARTS_OF_CLASSES
    _stack_bars(ax, *(table[[*names]].to_numpy() ** (2 if real else 1)).T)
    ax.set_yticks(range(len(table)), [_describe(row) for row in table.to_dict("records")])
    by = by or (OF_REAL if real else OF_CLASSES)[0]
    title = f"Largest {by.replace('_std', ' std').replace('_', ' ')}"
    label_axes(ax, title=title, xlabel=_unit(real=real))
    return legend_above(ax)


def _unit(*, real: bool) -> str:
    return "predictive variance (unit of the target, squared)" if real else "entropy (nats)"


def _stack_bars(ax: Axes, removable: np.ndarray, remaining: np.ndarray) -> None:
    """Draw bars from the bottom up, whose parts differ by hatches, too."""
    num = len(removable)
    small, places = num <= MOST_LABELS, np.arange(num)
    style: dict[str, Any] = {
        "height": 0.72 if small else 1.0,
        "edgecolor": "white",
        "linewidth": 0.8 if small else 0.0,
    }
    ax.barh(places, remaining, color="0.75", label="more rows would not remove", **style)
    style |= {"left": remaining, "hatch": "///" if small else None}
    ax.barh(places, removable, color=COLORS[1], label="more rows could remove", **style)
    ax.set_ylim(-0.6, num - 0.4)
    ax.set_xlim(left=0.0)


def _describe(row: dict[Any, Any]) -> str:
    """Format a row as two lines, such as ``row 812 · task B`` and ``true 3, says 8 (0.41)``."""
    start = f"row {row['row']} · task {shorten(row['task'])}\n"
    if "predicted" in row:
        true = f"true {shorten(row['true'], 12)}, " if "true" in row else ""
        return f"{start}{true}says {shorten(row['predicted'], 12)} ({row['probability']:.2f})"
    true = f"true {row['true']:.3g}, " if "true" in row else ""
    return f"{start}{true}says {row['mean']:.3g} ± {row['std']:.2g}"
