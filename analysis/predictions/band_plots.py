"""What a task predicts along one feature, and how surely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import COLORS, INK, MUTED, dressed, on_axes
from pyro_vmtl.analysis.predictions.prediction_grids import rows_of
from pyro_vmtl.analysis.tree_parts import shortened

__all__ = ["plot_regression_bands"]

OF_NORMAL = 1.645
"""Standard deviations from the mean that hold 90 % of a normal distribution."""


def plot_regression_bands(
    data: xr.Dataset, ax: Axes | None = None, *, rows: Sequence[Any] | None = None
) -> Axes:
    """Predictions of a task along its one feature: the mean, and where new targets are expected.

    Parameters
    ----------
    data
        From :func:`regression_grid`, of one task.
    ax
        Axes to draw on; new ones by default.
    rows
        Rows to lay on top, ``(X, y, tasks)``, or ``(X, y)`` where all are of this task. Those of
        other tasks are small grey dots.

    Returns
    -------
    Axes
        Bands of 50 % and 90 % of new targets, noise included, and between dashed lines where the
        mean function itself is with 90 %, taken as normal: what more rows would narrow.

    Raises
    ------
    ValueError
        If this is no such grid, or the rows have another number of features.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> one = np.ones(3)
    >>> along = {"mean": 0 * one, "std": one, "epistemic_std": 0.5 * one}
    >>> grid = xr.Dataset(
    ...     {name: ("x0", values) for name, values in along.items()}
    ...     | {"quantile": (("x0", "probability"), np.outer(one, [-1.6, -0.7, 0.7, 1.6]))},
    ...     coords={"x0": [0.0, 1.0, 2.0], "probability": [0.05, 0.25, 0.75, 0.95]},
    ...     attrs={"task": "Ada", "features": ["hours"]},
    ... )
    >>> ax = plot_regression_bands(grid, rows=([[0.5]], [0.2]))
    >>> ax.get_xlabel(), len(ax.collections)
    ('hours', 3)
    """
    missing = {"mean", "quantile", "epistemic_std"} - set(data.data_vars)
    if missing or data["mean"].dims != ("x0",):
        raise ValueError(
            f"data has the variables {sorted(map(str, data.data_vars))}, expected what "
            "regression_grid gives."
        )
    ax = on_axes(ax, (6.4, 4.4))
    x, mean = data["x0"].values, data["mean"].values
    low, first, third, high = data["quantile"].transpose("probability", "x0").values
    of_mean = OF_NORMAL * data["epistemic_std"].values
    blue = COLORS[0]
    ax.fill_between(x, low, high, color=blue, alpha=0.16, linewidth=0, label="90 % of new targets")
    ax.fill_between(x, first, third, color=blue, alpha=0.25, linewidth=0, label="50 %")
    for side, label in ((-1, "90 % for the mean"), (1, None)):
        line = mean + side * of_mean
        ax.plot(x, line, color=blue, linestyle="dashed", linewidth=1.4, label=label)
    ax.plot(x, mean, color=blue, linewidth=2.2, label="mean")
    task = data.attrs.get("task", "")
    if rows is not None:
        _rows_on_top(ax, rows, task)
    ax.set_xlim(x[0], x[-1])
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return dressed(
        ax,
        title=f"What task {shortened(task)} predicts, and how surely",
        xlabel=shortened(data.attrs.get("features", ["x0"])[0], 40),
        ylabel="target, in its unit",
    )


def _rows_on_top(ax: Axes, rows: Sequence[Any], task: Any) -> None:
    X, y, own = rows_of(rows, task, num_features=1)
    x, values = X[:, 0], np.asarray(y, dtype=float)
    if not own.all():
        others: dict[str, Any] = {"color": MUTED, "markersize": 4, "alpha": 0.6, "zorder": 1.5}
        ax.plot(x[~own], values[~own], ".", **others, label="other tasks")
    ax.scatter(x[own], values[own], s=46, color=INK, edgecolor="white", zorder=3, label="its rows")
