"""Predictions of one task over its inputs: regression bands and decision regions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from pyro_vmtl.analysis.canvas import COLORS, INK, MUTED, label_axes, on_axes
from pyro_vmtl.analysis.predictions.prediction_grids import read_rows
from pyro_vmtl.analysis.tree_parts import shorten

__all__ = ["plot_decision_regions", "plot_regression_bands"]

NORMAL_90 = 1.645
"""Standard deviations from the mean that hold 90 % of a normal distribution."""

MARKERS = "os^DvPX<>p"
"""Markers of classes, which differ not by colour alone."""

LEVELS = {0.7: "dotted", 0.9: "dashed"}
"""Probabilities of the most probable class with a contour, and its line style."""

MOST_NAMED = 10
"""Classes that are named in the legend."""

DEEPEST = 0.6
"""Share of a class's colour where it is certain, so that rows in the full colour stand out."""

OTHER_ROWS: dict[str, Any] = {"marker": ".", "linestyle": "none", "color": MUTED, "markersize": 4}


def plot_regression_bands(
    data: xr.Dataset, ax: Axes | None = None, *, rows: Sequence[Any] | None = None
) -> Axes:
    """Plot predictions of a task along its one feature: the mean, and bands of new targets.

    Parameters
    ----------
    data
        From :func:`regression_grid`, of one task.
    ax
        Axes to draw on; new ones by default.
    rows
        Rows to draw on top, ``(X, y, tasks)``, or ``(X, y)`` if all are of this task. Those of
        other tasks are small grey dots.

    Returns
    -------
    Axes
        Bands of 50 % and 90 % of new targets, noise included, and between dashed lines the 90 %
        band of the mean function, taken as normal, which more rows would narrow.

    Examples
    --------
    >>> from pyro_vmtl.analysis import regression_grid
    >>> from pyro_vmtl import Preset, VMTLRegressor
    >>> quick = VMTLRegressor(Preset(fitting={"num_steps": 20}))
    >>> X = [[0.0], [1.0], [2.0]]
    >>> reg = quick.fit(X, [0.0, 1.1, 1.9], ["Ada", "Ada", "Bo"])
    >>> plot_regression_bands(regression_grid(reg, X, task="Bo")).get_xlabel()
    'x0'
    """
    missing = {"mean", "quantile", "epistemic_std"} - set(data.data_vars)
    if missing or data["mean"].dims != ("x0",):
        raise ValueError(
            f"data has the variables {sorted(map(str, data.data_vars))}, expected what "
            "regression_grid returns."
        )
    ax = on_axes(ax, (6.4, 4.4))
    x, mean = data["x0"].values, data["mean"].values
    low, first, third, high = data["quantile"].transpose("probability", "x0").values
    blue, half = COLORS[0], NORMAL_90 * data["epistemic_std"].values
    ax.fill_between(x, low, high, color=blue, alpha=0.16, linewidth=0, label="90 % of new targets")
    ax.fill_between(x, first, third, color=blue, alpha=0.25, linewidth=0, label="50 %")
    for line, label in ((mean - half, "90 % for the mean"), (mean + half, None)):
        ax.plot(x, line, color=blue, linestyle="dashed", linewidth=1.4, label=label)
    ax.plot(x, mean, color=blue, linewidth=2.2, label="mean")
    if rows is not None:
        X, targets, own = read_rows(rows, data.attrs.get("task"), num_features=1)
        y = np.asarray(targets, dtype=float)
        if not own.all():
            ax.plot(X[~own, 0], y[~own], **OTHER_ROWS, alpha=0.6, zorder=1.5, label="other tasks")
        ax.scatter(X[own, 0], y[own], 46, INK, edgecolor="white", zorder=3, label="its rows")
    ax.set_xlim(x[0], x[-1])
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _label(ax, data, "target, in its unit")


def plot_decision_regions(
    data: xr.Dataset, ax: Axes | None = None, *, rows: Sequence[Any] | None = None
) -> Axes:
    """Plot class regions of a task: the colour of the most probable class, white where uncertain.

    Parameters
    ----------
    data
        From :func:`decision_grid`, of one task.
    ax, rows
        As for :func:`plot_regression_bands`; rows of this task have a marker for each class.

    Returns
    -------
    Axes
        A solid line is where two classes are equally probable, dotted and dashed ones are where
        the most probable class has 0.7 and 0.9. Colours fade with the entropy, to white where all
        classes are equally probable.

    Examples
    --------
    >>> import numpy as np
    >>> from pyro_vmtl.analysis import decision_grid
    >>> def predict(X, tasks):
    ...     p = 1 / (1 + np.exp(-X[:, 0]))
    ...     return np.stack([1 - p, p], axis=1)
    >>> grid = decision_grid(predict, [[-3.0, 0.0], [3.0, 1.0]], task="Ada", num=20)
    >>> ax = plot_decision_regions(grid, rows=([[-2.0, 0.5], [2.0, 0.5]], [0, 1]))
    """
    if "proba" not in data or {"x0", "x1"} - set(data.dims):
        raise ValueError(
            f"data has the variables {sorted(map(str, data.data_vars))} with the dimensions "
            f"{sorted(map(str, data.dims))}, expected what decision_grid returns."
        )
    ax = on_axes(ax, (6.4, 4.6))
    classes, x0, x1 = data["class"].values.tolist(), data["x0"].values, data["x1"].values
    proba = data["proba"].transpose("x1", "x0", "class").values
    colors = np.array([to_rgb(color) for color in COLORS])
    if len(classes) > len(COLORS):
        colors = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(classes)))[:, :3]
    box = (*_edges(x0), *_edges(x1))
    image = _faded(proba, colors)
    ax.imshow(image, origin="lower", extent=box, aspect="auto", interpolation="bilinear")
    _boundaries(ax, x0, x1, proba)
    shared: dict[str, Any] = {"linestyle": "none", "markeredgecolor": "white", "markersize": 8.5}
    styles = [
        {**shared, "marker": marker, "markerfacecolor": color}
        for marker, color in zip(cycle(MARKERS), colors[: len(classes)], strict=False)
    ]
    for label, style in zip(classes[:MOST_NAMED], styles, strict=False):
        ax.plot([], [], **style, label=shorten(label, 14))
    if len(classes) > MOST_NAMED:
        ax.plot([], [], " ", label=f"and {len(classes) - MOST_NAMED} more")
    if rows is not None:
        X, y, own = read_rows(rows, data.attrs.get("task"), num_features=2)
        if not own.all():
            ax.plot(*X[~own].T, **OTHER_ROWS, alpha=0.7, zorder=2)
            ax.plot([], [], **OTHER_ROWS, label="other tasks")
        for label, style in zip(classes, styles, strict=True):
            of_class = own & np.array([value == label for value in y], dtype=bool)
            if of_class.any():
                ax.plot(*X[of_class].T, **style, zorder=3)
    ax.set(xlim=box[:2], ylim=box[2:])
    ax.legend(title="class", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _label(ax, data, shorten(data.attrs.get("features", ["x0", "x1"])[1], 30))


def _label(ax: Axes, data: xr.Dataset, ylabel: str) -> Axes:
    title = f"What task {shorten(data.attrs.get('task', ''))} predicts, and how surely"
    xlabel = shorten(data.attrs.get("features", ["x0"])[0], 40)
    return label_axes(ax, title=title, xlabel=xlabel, ylabel=ylabel)


def _faded(proba: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Mix each class's colour with white, by the entropy relative to its maximum."""
    entropy = -(proba * np.log(np.clip(proba, 1e-300, None))).sum(-1)
    certainty = 1 - entropy / np.log(max(proba.shape[-1], 2))
    depth = DEEPEST * certainty[..., None].clip(0, 1)
    return 1 - depth * (1 - colors[proba.argmax(-1)])


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
    levels = {p: style for p, style in LEVELS.items() if best.min() < p < best.max()}
    if levels:
        styles = list(levels.values())
        lines = ax.contour(
            x0, x1, best, levels=list(levels), colors=[INK], linewidths=1.0, linestyles=styles
        )
        ax.clabel(lines, fmt="%.1f", fontsize=10, inline_spacing=2)
