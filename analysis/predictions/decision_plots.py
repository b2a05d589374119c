"""Class regions of a task with two features, and how sure it is of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from pyro_vmtl.analysis.canvas import INK, MUTED, dressed, on_axes, task_colors
from pyro_vmtl.analysis.predictions.prediction_grids import rows_of
from pyro_vmtl.analysis.tree_parts import shortened

__all__ = ["plot_decision_regions"]

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
"""Of classes, so that rows are told apart without colours."""

LEVELS = (0.7, 0.9)
"""Probabilities of the most probable class that lines are drawn at."""

MOST_NAMED = 10
"""Classes that are named beside the picture."""

DEEPEST = 0.6
"""Of a class's colour where it is certain, so that rows in the full colour stand out."""


def plot_decision_regions(
    data: xr.Dataset, ax: Axes | None = None, *, rows: Sequence[Any] | None = None
) -> Axes:
    """Class regions of a task: colour is the most probable class, white is not knowing.

    Parameters
    ----------
    data
        From :func:`decision_grid`, of one task.
    ax
        Axes to draw on; new ones by default.
    rows
        Rows to lay on top, ``(X, y, tasks)``, or ``(X, y)`` where all are of this task. Those of
        this task have a marker for each class; of the others there are grey dots.

    Returns
    -------
    Axes
        A solid line is where two classes are equally probable, dotted and dashed ones are where
        the most probable class has 0.7 and 0.9. Colours fade with the entropy, to white where all
        classes are equally probable.

    Raises
    ------
    ValueError
        If this is no such grid, or the rows have another number of features.

    Examples
    --------
    >>> import numpy as np
    >>> from pyro_vmtl.analysis import decision_grid
    >>> def predict(X, tasks):
    ...     p = 1 / (1 + np.exp(-X[:, 0]))
    ...     return np.stack([1 - p, p], axis=1)
    >>> grid = decision_grid(predict, [[-3.0, 0.0], [3.0, 1.0]], task="Ada", num=20)
    >>> ax = plot_decision_regions(grid, rows=([[-2.0, 0.5], [2.0, 0.5]], [0, 1]))
    >>> ax.get_title(loc="left")
    'What task Ada predicts, and how surely'
    """
    if "proba" not in data or {"x0", "x1"} - set(data.dims):
        raise ValueError(
            f"data has the variables {sorted(map(str, data.data_vars))} with the dimensions "
            f"{sorted(map(str, data.dims))}, expected what decision_grid gives."
        )
    ax = on_axes(ax, (6.4, 4.6))
    classes = data["class"].values.tolist()
    proba = data["proba"].transpose("x1", "x0", "class").values
    x0, x1 = data["x0"].values, data["x1"].values
    colors = task_colors(len(classes))
    ax.imshow(
        _faded(proba, colors),
        origin="lower",
        extent=(*_edges(x0), *_edges(x1)),
        aspect="auto",
        interpolation="bilinear",
    )
    _boundaries(ax, x0, x1, proba)
    handles = _rows_on_top(ax, data, rows, classes, colors)
    ax.set_xlim(*_edges(x0))
    ax.set_ylim(*_edges(x1))
    ax.legend(handles=handles, title="class", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    names = data.attrs.get("features", ["x0", "x1"])
    task = shortened(data.attrs.get("task", ""))
    return dressed(
        ax,
        title=f"What task {task} predicts, and how surely",
        xlabel=shortened(names[0], 40),
        ylabel=shortened(names[1], 30),
    )


def _faded(proba: np.ndarray, colors: Sequence[Any]) -> np.ndarray:
    """Mix each class's colour with white, by how much of the largest entropy there is."""
    entropy = -(proba * np.log(np.clip(proba, 1e-300, None))).sum(-1)
    certainty = 1 - entropy / np.log(max(proba.shape[-1], 2))
    depth = DEEPEST * certainty[..., None].clip(0, 1)
    full = np.array([to_rgb(color) for color in colors])[proba.argmax(-1)]
    return 1 - depth * (1 - full)


def _edges(centres: np.ndarray) -> tuple[float, float]:
    half = (centres[-1] - centres[0]) / (2 * (len(centres) - 1))
    return float(centres[0] - half), float(centres[-1] + half)


def _boundaries(ax: Axes, x0: np.ndarray, x1: np.ndarray, proba: np.ndarray) -> None:
    """Draw where two classes are equal, and where the most probable has 0.7 and 0.9."""
    for c in range(proba.shape[-1] if proba.shape[-1] > 2 else 1):
        ahead = proba[..., c] - np.delete(proba, c, axis=-1).max(-1)
        if ahead.min() < 0 < ahead.max():
            ax.contour(x0, x1, ahead, levels=[0.0], colors=[INK], linewidths=1.6)
    best = proba.max(-1)
    inside = [level for level in LEVELS if best.min() < level < best.max()]
    if inside:
        styles = [{0.7: "dotted", 0.9: "dashed"}[level] for level in inside]
        lines = ax.contour(
            x0, x1, best, levels=inside, colors=[INK], linewidths=1.0, linestyles=styles
        )
        ax.clabel(lines, fmt="%.1f", fontsize=10, inline_spacing=2)


def _rows_on_top(
    ax: Axes,
    data: xr.Dataset,
    rows: Sequence[Any] | None,
    classes: list[Hashable],
    colors: Sequence[Any],
) -> list[Line2D]:
    """Draw rows, and give an entry of the legend for each class."""
    markers = list(islice(cycle(MARKERS), len(classes)))
    styles: list[dict[str, Any]] = [
        {
            "marker": marker,
            "linestyle": "none",
            "markerfacecolor": color,
            "markeredgecolor": "white",
            "markersize": 8.5,
            "markeredgewidth": 1.0,
        }
        for marker, color in zip(markers, colors, strict=True)
    ]
    handles = [
        Line2D([], [], **style, label=shortened(label, 14))
        for label, style in list(zip(classes, styles, strict=True))[:MOST_NAMED]
    ]
    if len(classes) > MOST_NAMED:
        more = f"and {len(classes) - MOST_NAMED} more"
        handles.append(Line2D([], [], linestyle="none", label=more))
    if rows is None:
        return handles
    X, y, own = rows_of(rows, data.attrs.get("task"), num_features=2)
    if not own.all():
        others: dict[str, Any] = {
            "marker": ".",
            "linestyle": "none",
            "color": MUTED,
            "markersize": 4,
        }
        ax.plot(*X[~own].T, **others, alpha=0.7, zorder=2)
        handles.append(Line2D([], [], **others, label="other tasks"))
    for label, style in zip(classes, styles, strict=True):
        of_class = own & np.array([value == label for value in y], dtype=bool)
        if of_class.any():
            ax.plot(*X[of_class].T, **style, zorder=3)
    return handles
