"""When a fit found out whom to borrow from, and whether that has settled."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import COLORS, MUTED, dressed, on_axes
from pyro_vmtl.analysis.task_lines import MOST_LINES, draw_bands, name_ends
from pyro_vmtl.analysis.task_names import captioned
from pyro_vmtl.analysis.tree_parts import needed, shortened

__all__ = ["plot_relatedness_evolution"]

MARKERS = "os^Dv<>"
"""Marks of lines, so that they are told apart without colours."""

OTHERS = "all others"


def plot_relatedness_evolution(
    data: xr.DataTree,
    ax: Axes | None = None,
    *,
    var_names: str = "w",
    task: Hashable | None = None,
) -> Axes:
    """Picture of mean weights over the steps of a fit.

    Each task is shown by the weight of the source that it ends up with, the one with the largest
    weight at the end: the line rises where the fit finds that source, and is flat where it has
    settled. The caption says how much of any task's weights, of all its sources, still moved in
    the last tenth of the steps (total variation distance, from 0 to 1).

    Parameters
    ----------
    data
        Tree of a fit, with ``relatedness_{site}`` (snapshot_step, task, source) in the group
        ``history``.
    ax
        Axes to draw on; new ones by default.
    var_names
        The site whose pool it is, such as ``"z"``.
    task
        Label of one task, to show its six largest weights and the sum of all others instead.

    Returns
    -------
    Axes
        A line for each task, named "task ← source" at its end; with more than seven tasks their
        median, and the middle half and nine tenths of them.

    Raises
    ------
    ValueError
        If the weights were not noted during the fit, or there is no such task.

    Examples
    --------
    >>> weights = np.linspace([[0.0, 0.4, 0.6], [0.0, 0.0, 1.0]], [[0.0, 0.9, 0.1], [0.0, 0, 1]], 5)
    >>> noted = xr.Dataset(
    ...     {"relatedness_w": (("snapshot_step", "task", "source"), weights)},
    ...     {"snapshot_step": range(0, 50, 10), "task": ["a", "b"], "source": ["a", "b", "base"]},
    ... )
    >>> ax = plot_relatedness_evolution(xr.DataTree.from_dict({"history": noted}))
    >>> [text.get_text() for text in ax.texts[:2]]
    ['a ← b', 'b ← base']
    """
    weights = needed(data, "history", f"relatedness_{var_names}")
    weights = weights.transpose("snapshot_step", "task", "source")
    steps, values = weights["snapshot_step"].values, weights.values
    tasks = weights["task"].values.tolist()
    name = str(data.attrs.get("task_name", "task"))
    ax = on_axes(ax, (7.2, 4.4))
    if task is None:
        curves, names = _strongest(weights)
        title = f"Weight of the source that each {name} ends up with"
        most, whose = "at most ", f"any {name}'s weights"
    else:
        if task not in tasks:
            shown = ", ".join(repr(label) for label in tasks[:10])
            raise ValueError(f"There is no task {task!r}, expected one of {shown}.")
        values = values[:, [tasks.index(task)]]
        curves, names = _largest(values[:, 0], weights["source"].values.tolist())
        title = f"Whom {shortened(task)} borrows from"
        most, whose = "", "the weights"
    ax.set_ylim(0, min(1.02, 1.2 * float(curves.max())) or 1.0)
    if curves.shape[1] > MOST_LINES:
        ends = draw_bands(ax, steps, curves)
    else:
        ends = []
        for i, (curve, label) in enumerate(zip(curves.T, names, strict=True)):
            color = "0.4" if label == OTHERS else COLORS[i]
            style = "--" if label == OTHERS else "-"
            every = max(1, len(steps) // 8)
            (line,) = ax.plot(steps, curve, style, color=color, linewidth=1.8, label=label)
            line.set(marker=MARKERS[i], markevery=(i % every, every), markersize=5)
            ends.append((float(curve[-1]), label, color))
    name_ends(ax, float(steps[-1]), ends)
    ax.grid(axis="y", color="0.92")
    ax.set_axisbelow(True)
    start = int(np.searchsorted(steps, steps[-1] - 0.1 * (steps[-1] - steps[0]), side="right")) - 1
    moved = 0.5 * np.abs(values[-1] - values[start]).sum(-1).max()
    ax.axvline(steps[start], color=MUTED, linewidth=1, linestyle=":")
    dressed(ax, xlabel="step", ylabel="mean weight")
    caption = f"In the last tenth of the steps (dotted line), {most}{moved:.2f} of {whose} moved."
    return captioned(ax, title, caption)


def _strongest(weights: xr.DataArray) -> tuple[np.ndarray, list[str]]:
    """Give the weight of each task's finally largest source, (steps, T), and its name."""
    best = weights.values[-1].argmax(-1)
    curves = np.take_along_axis(weights.values, best[None, :, None], axis=2)[..., 0]
    tasks, sources = weights["task"].values.tolist(), weights["source"].values.tolist()
    names = [
        f"{shortened(task, 14)} ← {shortened(sources[i], 14)}"
        for task, i in zip(tasks, best, strict=True)
    ]
    return curves, names


def _largest(values: np.ndarray, sources: list[str]) -> tuple[np.ndarray, list[str]]:
    """Give the finally largest weights of one task, and the sum of all others."""
    order = np.argsort(-values[-1], kind="stable")
    order = order[values[:, order].max(0) > 0]  # not itself
    first, others = order[: MOST_LINES - 1], order[MOST_LINES - 1 :]
    curves, names = values[:, first], [shortened(sources[i]) for i in first]
    if len(others) == 0:
        return curves, names
    rest = values[:, others].sum(1, keepdims=True)
    return np.concatenate([curves, rest], axis=1), [*names, OTHERS]
