"""Source weights over the steps of a fit."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import COLORS, MUTED, add_caption, label_axes, on_axes
from pyro_vmtl.analysis.task_lines import MOST_LINES, draw_bands, name_ends
from pyro_vmtl.analysis.tree_parts import get_variable, shorten, task_name

__all__ = ["plot_relatedness_evolution"]

MARKERS = "os^Dv<>"
"""Markers of lines, which differ not by colour alone."""


def plot_relatedness_evolution(
    data: xr.DataTree, ax: Axes | None = None, *, var_names: str = "w"
) -> Axes:
    """Plot mean weights over the steps of a fit.

    Each task is shown by the weight of the source that has the largest weight at the end: the line
    rises where the fit finds that source, and is flat where it has converged. The caption says how
    much of any task's weights, of all its sources, still moved in the last tenth of the steps
    (total variation distance, from 0 to 1).

    Parameters
    ----------
    data
        Tree of a fit, with ``relatedness_{site}`` (snapshot_step, task, source) in the group
        ``history``.
    ax
        Axes to draw on; new ones by default.
    var_names
        The site whose pool it is, such as ``"z"``.

    Returns
    -------
    Axes
        A line for each task, named "task ← source" at its end; with more than seven tasks their
        median, and the middle half and nine tenths of them.

    Examples
    --------
    >>> ax = plot_relatedness_evolution(tree)
    """
    weights = get_variable(data, "history", f"relatedness_{var_names}")
    weights = weights.transpose("snapshot_step", "task", "source")
    last = weights[-1].drop_vars("snapshot_step")
    largest = weights.isel(source=last.argmax("source"))
    pairs = zip(weights["task"].values, largest["source"].values, strict=True)
    names = [" ← ".join(shorten(label, 14) for label in pair) for pair in pairs]
    curves, steps = largest.values, weights["snapshot_step"].values
    ax = on_axes(ax, (7.2, 4.4))
    ax.set_ylim(0, min(1.02, 1.2 * float(curves.max())) or 1.0)
    if len(names) > MOST_LINES:
        ends = draw_bands(ax, steps, curves)
    else:
        ends = []
        every = max(1, len(steps) // 8)
        for i, (curve, name) in enumerate(zip(curves.T, names, strict=True)):
            (line,) = ax.plot(steps, curve, color=COLORS[i], linewidth=1.8, label=name)
            line.set(marker=MARKERS[i], markevery=(i % every, every), markersize=5)
            ends.append((float(curve[-1]), name, COLORS[i]))
    name_ends(ax, float(steps[-1]), ends)
    ax.grid(axis="y", color="0.92")
    ax.set_axisbelow(True)
    start = int(np.searchsorted(steps, 0.9 * steps[-1] + 0.1 * steps[0], side="right")) - 1
    moved = 0.5 * float(abs(weights[-1] - weights[start]).sum("source").max())
    ax.axvline(steps[start], color=MUTED, linewidth=1, linestyle=":")
    label_axes(ax, xlabel="step", ylabel="mean weight")
    whose = task_name(data)
    caption = (
        f"In the last tenth of the steps (dotted line), at most {moved:.2f} of any {whose}'s "
        "weights moved."
    )
    return add_caption(ax, f"Weight of each {whose}'s largest source at the end", caption)
