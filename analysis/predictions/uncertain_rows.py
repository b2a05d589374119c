"""The rows that a fit is least sure of."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import dressed, legend_above, on_axes
from pyro_vmtl.analysis.predictions.uncertainty_plots import OF_REAL as OF_VARIANCE
from pyro_vmtl.analysis.predictions.uncertainty_plots import stacked_parts, uncertainty_parts
from pyro_vmtl.analysis.tree_parts import needed, row_tasks, shortened

__all__ = ["most_uncertain_rows", "plot_uncertain_rows"]

OF_CLASSES = ("mutual_information", "entropy", "expected_entropy")
OF_REAL = ("std", "epistemic_std", "aleatoric_std")


def most_uncertain_rows(data: xr.DataTree, n: int = 10, *, by: str | None = None) -> pd.DataFrame:
    """Table of the rows whose predictions are least sure.

    Parameters
    ----------
    data
        A tree with the group ``predictions``.
    n
        How many.
    by
        What to order by. For classes ``"mutual_information"``, the default: rows that more data
        would help; ``"entropy"`` or ``"expected_entropy"``: rows that are between classes. For real
        targets ``"std"``, the default, ``"epistemic_std"`` or ``"aleatoric_std"``.

    Returns
    -------
    DataFrame
        The least sure first. Columns ``row`` (its place in the rows that were predicted), ``task``,
        ``true`` where it is known, then for classes ``predicted``, ``probability`` (of that class),
        ``entropy``, ``expected_entropy`` and ``mutual_information`` in nats, or for real targets
        ``mean``, ``std``, ``epistemic_std`` and ``aleatoric_std`` in their unit.

    Raises
    ------
    ValueError
        If there are no predictions, or ``by`` is none of theirs.

    Examples
    --------
    >>> rows = xr.Dataset(
    ...     {
    ...         "proba": (("row", "class"), [[0.9, 0.1], [0.4, 0.6]]),
    ...         "mutual_information": ("row", [0.01, 0.2]),
    ...         "expected_entropy": ("row", [0.3, 0.4]),
    ...         "entropy": ("row", [0.31, 0.6]),
    ...     },
    ...     coords={"class": ["cat", "dog"], "task": ("row", ["zoo", "home"])},
    ... )
    >>> tree = xr.DataTree.from_dict({"predictions": rows})
    >>> most_uncertain_rows(tree, 1)[["row", "task", "predicted", "probability"]].values.tolist()
    [[1, 'home', 'dog', 0.6]]
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
    values = needed(data, "predictions", by)
    order = np.argsort(-values.values, kind="stable")[:n]
    group = data["predictions"].dataset
    rows = group["row"].values if "row" in group.coords else np.arange(group.sizes["row"])
    table: dict[str, Any] = {"row": rows[order], "task": row_tasks(values)[order]}
    if real:
        if "y" in group:
            table["true"] = group["y"].values[order]
        columns = ["mean", *OF_REAL]
    else:
        proba = needed(data, "predictions", "proba").transpose("row", "class").values[order]
        classes = np.asarray(group["class"].values)
        if "y" in group:
            table["true"] = _labels(group["y"], classes)[group["y"].values[order].astype(int)]
        table["predicted"] = classes[proba.argmax(1)]
        table["probability"] = proba.max(1)
        columns = ["entropy", "expected_entropy", "mutual_information"]
    table |= {name: needed(data, "predictions", name).values[order] for name in columns}
    return pd.DataFrame(table)


def plot_uncertain_rows(
    data: xr.DataTree, ax: Axes | None = None, *, n: int = 10, by: str | None = None
) -> Axes:
    """Bars of the rows whose predictions are least sure, in two parts that add up.

    Parameters
    ----------
    data, n, by
        As for :func:`most_uncertain_rows`.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    Axes
        A bar for each row, the least sure on top: entropies in nats, or variances in the square
        of the targets' unit. Labels name row, task, the true and the predicted class with its
        probability, or mean and standard deviation.
    """
    table = most_uncertain_rows(data, n, by=by)[::-1]
    removable, remaining, unit = uncertainty_parts(data)
    place = {row: i for i, row in enumerate(_rows(removable))}
    places = [place[row] for row in table["row"]]
    ax = on_axes(ax, (7.2, 1.9 + 0.44 * len(table)))
    stacked_parts(ax, removable.values[places], remaining.values[places])
    labels = [_described(row) for row in table.to_dict("records")]
    ax.set_yticks(range(len(table)), labels)
    classes = unit == "nats"
    order = by or (OF_CLASSES if classes else OF_REAL)[0]
    dressed(
        ax,
        title=f"Largest {order.replace('_std', ' std').replace('_', ' ')}",
        xlabel="entropy (nats)" if classes else OF_VARIANCE,
    )
    return legend_above(ax)


def _rows(values: xr.DataArray) -> list[Any]:
    rows = values["row"].values if "row" in values.coords else np.arange(values.sizes["row"])
    return rows.tolist()


def _labels(y: xr.DataArray, classes: np.ndarray) -> np.ndarray:
    """Get the labels of integer codes."""
    if "classes" in y.attrs:
        return np.array(json.loads(y.attrs["classes"]), dtype=object)
    return classes


def _described(row: dict[Hashable, Any]) -> str:
    """Write a row in two lines, such as ``row 812 · task B`` and ``true 3, says 8 (0.41)``."""
    start = f"row {row['row']} · task {shortened(row['task'])}\n"
    if "predicted" in row:
        true = f"true {shortened(row['true'], 12)}, " if "true" in row else ""
        return f"{start}{true}says {shortened(row['predicted'], 12)} ({row['probability']:.2f})"
    true = f"true {row['true']:.3g}, " if "true" in row else ""
    return f"{start}{true}says {row['mean']:.3g} ± {row['std']:.2g}"
