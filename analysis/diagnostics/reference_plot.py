"""A picture of a variational posterior beside a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import COLORS, dressed, on_axes
from pyro_vmtl.analysis.tree_parts import SAMPLE_DIMS, needed, shortened

__all__ = ["plot_reference"]

MOST_NUMBERS = 30
"""Numbers on the picture; of more, those that differ most."""


def plot_reference(
    data: xr.DataTree,
    reference: xr.DataTree,
    ax: Axes | None = None,
    *,
    var_names: str | Sequence[str] | None = None,
    coords: Mapping[str, Any] | None = None,
    ci_prob: float = 0.9,
) -> Axes:
    """Picture of each number's posterior in a fit, beside that of a reference.

    Parameters
    ----------
    data
        Tree of a fit.
    reference
        Tree of the reference, such as :func:`nuts_reference` gives.
    ax
        Axes to draw on; new ones by default.
    var_names
        Variables of the posterior; by default all that the reference has.
    coords
        For dimensions the labels to show; all by default.
    ci_prob
        Probability inside the central interval.

    Returns
    -------
    Axes
        For each number a dot and a line, mean and interval of the fit, and below a diamond and a
        thinner line, those of the reference. Of more than 30 numbers, those whose means differ
        most, measured in standard deviations of the reference. The title tells the largest
        difference of all.

    Raises
    ------
    ValueError
        If there is no such variable.
    """
    names = [var_names] if isinstance(var_names, str) else var_names
    if names is None:
        names = sorted(map(str, reference["posterior"].data_vars))
    numbers: list[tuple[str, np.ndarray, np.ndarray]] = []
    for name in names:
        pair = [_numbers(needed(tree, "posterior", name), coords) for tree in (data, reference)]
        both = zip(*pair, strict=True)
        numbers += [(label, ours, theirs) for (label, ours), (_, theirs) in both]
    off = np.array([abs(ours.mean() - theirs.mean()) / theirs.std() for _, ours, theirs in numbers])
    kept = np.sort(np.argsort(off)[-MOST_NUMBERS:])
    ax = on_axes(ax, (6.8, 1.6 + 0.34 * len(kept)))
    tails = [(1 - ci_prob) / 2, (1 + ci_prob) / 2]
    styles = (("fit", COLORS[0], "o", 2.4, -0.15), ("reference", COLORS[1], "D", 1.2, 0.15))
    for which, (label, color, marker, width, shift) in enumerate(styles):
        draws = [numbers[i][1 + which] for i in kept]
        rows = np.arange(len(kept)) + shift
        bounds = np.array([np.quantile(values, tails) for values in draws])
        ax.hlines(rows, bounds[:, 0], bounds[:, 1], color=color, linewidth=width)
        means = [values.mean() for values in draws]
        ax.plot(means, rows, marker, color=color, markersize=6, label=label)
    ax.set_yticks(range(len(kept)), [shortened(numbers[i][0], 30) for i in kept])
    ax.set_ylim(len(kept) - 0.5, -0.5)
    _name_first(ax)
    chosen = "" if len(kept) == len(numbers) else f" ({len(kept)} of {len(numbers)} numbers)"
    title = f"Posterior means differ by at most {off.max():.2f} sd{chosen}"
    xlabel = f"value: mean and {ci_prob:.0%} interval"
    return dressed(ax, title=title, xlabel=xlabel)


def _name_first(ax: Axes) -> None:
    """Write the names of both beside their first lines, on the side that has more room."""
    low, high = ax.get_xlim()
    for marks, lines in zip(ax.lines, ax.collections, strict=True):
        first = np.asarray(lines.get_paths()[0].vertices)
        left, right = first[:, 0].min(), first[:, 0].max()
        at_right = high - right > left - low
        ax.annotate(
            str(marks.get_label()),
            (right if at_right else left, first[0, 1]),
            xytext=(6 if at_right else -6, 0),
            textcoords="offset points",
            ha="left" if at_right else "right",
            va="center",
            fontsize=11,
            color=marks.get_color(),
        )


def _numbers(
    values: xr.DataArray, coords: Mapping[str, Any] | None
) -> list[tuple[str, np.ndarray]]:
    """Give the draws of each number of a variable, under its name and labels."""
    for dim, labels in (coords or {}).items():
        if dim in values.dims:
            values = values.sel({dim: np.atleast_1d(labels)})
    rest = [dim for dim in values.dims if dim not in SAMPLE_DIMS]
    flat = values.transpose(*SAMPLE_DIMS, *rest).values.reshape(
        -1, *(values.sizes[d] for d in rest)
    )
    found = []
    for place in np.ndindex(flat.shape[1:]):
        labels = [shortened(values[dim].values[i], 13) for dim, i in zip(rest, place, strict=True)]
        label = f"{values.name}[{', '.join(labels)}]" if rest else str(values.name)
        found.append((label, flat[(slice(None), *place)]))
    return found
