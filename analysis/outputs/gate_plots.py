"""Which output feeds which, and the outputs of a row over the iterations."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch

from pyro_vmtl.analysis.canvas import COLORS, INK, MUTED, add_caption, label_axes, on_axes
from pyro_vmtl.analysis.tree_parts import shorten

__all__ = ["plot_gates", "plot_iterations"]

FEEDS = 0.5
"""Probability from which an arrow is drawn."""


def plot_gates(gates: xr.DataArray, ax: Axes | None = None) -> Axes:
    """Plot which output feeds which, as a graph.

    Parameters
    ----------
    gates
        ``gates_`` of an estimator: probabilities (from, to, gate).
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    Axes
        Outputs in a circle. An arrow from an output to another that it feeds more probably than
        not, with the probability; orange where it feeds a hidden layer.

    Examples
    --------
    >>> import numpy as np
    >>> names = {"from": ["rain", "sales"], "to": ["rain", "sales"], "gate": ["none", "output"]}
    >>> gates = xr.DataArray(np.array([[[1, 0], [0.1, 0.9]], [[1, 0], [1, 0]]]), names, [*names])
    >>> plot_gates(gates).get_title(loc="left")
    'Which output feeds which'
    """
    names = [shorten(str(name)) for name in gates["from"].values]
    number = len(names)
    size = max(4.6, 3.4 + 0.28 * number)
    ax = on_axes(ax, (size + 0.8, size))
    angle = np.pi / 2 - 2 * np.pi * np.arange(number) / number
    places = np.stack([np.cos(angle), np.sin(angle)], 1)
    values = gates.values
    for s, t in np.argwhere(1 - values[..., 0] > FEEDS):
        if s == t:
            continue
        choice = 1 + int(values[s, t, 1:].argmax())
        arrow = FancyArrowPatch(
            places[s], places[t], connectionstyle="arc3,rad=0.14", arrowstyle="-|>",
            mutation_scale=16, shrinkA=30, shrinkB=30, linewidth=1.6, color=COLORS[choice - 1],
        )  # fmt: skip
        ax.add_patch(arrow)
        if number <= 8:
            along = places[t] - places[s]
            # the arrow bends to the right of the way from s to t
            middle = places[s] + 0.42 * along + 0.085 * np.array([along[1], -along[0]])
            x, y = middle
            text = ax.text(x, y, f"{1 - values[s, t, 0]:.2f}", ha="center", va="center")
            text.set(fontsize=9, color=INK, bbox={"fc": "white", "ec": "none", "pad": 0.8})
    for (x, y), name in zip(places, names, strict=True):
        text = ax.text(x, y, name, ha="center", va="center", fontsize=11, color=INK)
        text.set_bbox({"boxstyle": "round,pad=0.45", "fc": "white", "ec": MUTED})
    ax.set(xlim=(-1.45, 1.45), ylim=(-1.25, 1.25), aspect="equal")
    ax.set_axis_off()
    caption = "An arrow where an output feeds another more probably than not, with the probability."
    return add_caption(ax, "Which output feeds which", caption)


def plot_iterations(iterations: xr.DataArray, ax: Axes | None = None) -> Axes:
    """Plot how the outputs of a row change from one iteration to the next.

    Parameters
    ----------
    iterations
        ``iterations`` of an estimator for one row: values (iteration, output).
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    Axes
        A line for each output, from what it says by itself, at 0, to where it settles.

    Examples
    --------
    >>> import numpy as np
    >>> names = {"iteration": [0, 1], "output": ["rain", "sales"]}
    >>> plot_iterations(xr.DataArray(np.array([[0.5, 0.0], [0.8, 0.4]]), names)).get_xlabel()
    'iteration'
    """
    ax = on_axes(ax, (6.4, 3.9))
    steps, lines = iterations["iteration"].values, iterations.values.T
    for i, (name, line) in enumerate(zip(iterations["output"].values, lines, strict=True)):
        color: Any = COLORS[i % len(COLORS)]
        style = ("-", "--", ":")[i // len(COLORS) % 3]
        ax.plot(steps, line, style, color=color, marker="o", ms=4, label=shorten(str(name)))
    ax.set_xticks(steps)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=10)
    label_axes(ax, xlabel="iteration", ylabel="probability, or mean in standard deviations")
    caption = "Iteration 0 is what each output says without the others."
    return add_caption(ax, "The outputs of a row settle", caption)
