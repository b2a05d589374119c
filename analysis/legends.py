"""A legend between the plot and its title, where no data is under it."""

from __future__ import annotations

from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import INK

__all__ = ["legend_above"]

LINE = 17.0
"""Height of a line of the legend, in points."""


def legend_above(ax: Axes, *, ncols: int = 1) -> Axes:
    """Move the title up and put the legend under it, from the left edge of the plot.

    Parameters
    ----------
    ax
        Axes with their title, :func:`~pyro_vmtl.analysis.canvas.dressed` before.
    ncols
        Entries side by side. One is never wider than the plot.
    """
    lines = -(-len(ax.get_legend_handles_labels()[1]) // ncols)
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        borderaxespad=0.1,
        ncols=ncols,
        frameon=False,
        fontsize=11,
        columnspacing=1.2,
    )
    pad = 8.0 + LINE * lines
    ax.set_title(ax.get_title(loc="left"), fontsize=13, color=INK, loc="left", pad=pad)
    return ax
