"""Pictures of a fit. Every function draws on Axes and returns them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

__all__ = ["plot_relatedness"]

MOST_LABELS = 40
"""Tasks that are named along an axis."""


def plot_relatedness(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Heat map of mean weights: who borrows from whom.

    Parameters
    ----------
    table
        What :func:`relatedness_table` gives.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    Axes
        Rows borrow, columns are borrowed from. Each cell shows the mean and, below, the 90 %
        interval, as long as there are at most 12 tasks; 0 stands for an interval below 0.005. With
        more, colours end at the largest mean weight, and the base is drawn wider.
    """
    mean, low, high = (table.xs(name, axis=1, level=1).to_numpy() for name in ("mean", "5%", "95%"))
    num_tasks = len(table)
    sources = list(dict.fromkeys(table.columns.get_level_values(0)))
    if ax is None:
        side = 1.6 + 0.75 * min(num_tasks, 14)
        _, ax = plt.subplots(figsize=(side + 1.6, side), layout="constrained")
    # With many tasks the base would be too thin to see.
    wide = max(1, num_tasks // 30)
    shown = np.concatenate([mean, np.repeat(mean[:, -1:], wide - 1, axis=1)], axis=1)
    blues = plt.get_cmap("Blues").with_extremes(bad="0.85")  # a task and itself
    largest = 1.0 if num_tasks <= 12 else float(np.nanmax(mean))
    image = ax.imshow(shown, cmap=blues, vmin=0, vmax=largest, aspect="auto")
    every = range(0, num_tasks, -(-num_tasks // MOST_LABELS))
    ax.set_xticks([*every, num_tasks + (wide - 1) / 2], [str(sources[i]) for i in (*every, -1)])
    ax.set_yticks(every, [str(table.index[i]) for i in every])
    if num_tasks > 20 or max(len(str(s)) for s in sources) > 6:
        ax.tick_params(axis="x", labelrotation=90)
    ax.set(
        xlabel="borrows from",
        ylabel="task",
        title="How much each task borrows: mean weight"
        + (" [90 % interval]" if num_tasks <= 12 else ""),
    )
    ax.axvline(num_tasks - 0.5, color="black", linewidth=1)
    if num_tasks <= 12:
        for (row, column), value in np.ndenumerate(mean):
            text = f"{value:.2f}\n[{low[row, column]:.2f}, {high[row, column]:.2f}]"
            if np.isnan(value) or high[row, column] < 0.005:
                text = "–" if np.isnan(value) else "0"
            color = "white" if value > 0.6 else "black"
            ax.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    ax.figure.colorbar(image, ax=ax, label="mean weight")
    return ax
