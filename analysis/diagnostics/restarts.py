"""Does it matter which seed a fit was started from?

The ELBO of a shared model has local optima: a group of tasks may be found or not. Fits from several
seeds show it. Where all end at about the same ELBO, with posterior means that differ by little of
their own width, any of them will do. Where one has a clearly higher ELBO, take that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import COLORS, INK, MUTED, dressed, on_axes
from pyro_vmtl.analysis.tree_parts import SAMPLE_DIMS, needed, shortened

__all__ = ["plot_restarts", "restart_spread"]

LAST_STEPS = 50
"""Steps at the end over which the loss is averaged: that of one step is of one draw."""

MOST_NAMED = 6
"""Restarts away from the best one that are named on the picture."""

ROOM = 0.06
"""Least distance of two names on the picture, as part of its height."""


def restart_spread(
    fits: Mapping[str, xr.DataTree], var_names: str | Sequence[str] | None = None
) -> xr.Dataset:
    """Compare fits of the same rows from several seeds.

    Parameters
    ----------
    fits
        For each name the tree of a fit, with the groups ``posterior`` and ``history``.
    var_names
        Variables of the posterior; by default all, source weights apart.

    Returns
    -------
    Dataset
        ``elbo`` (restart), nats, the mean of the last 50 steps; ``distance`` (restart), how far the
        posterior means are from those of the restart with the highest ELBO, in posterior standard
        deviations (root mean square over all numbers). For each variable ``spread_{name}`` (task),
        the standard deviation of posterior means between restarts over that of the posterior, root
        mean square over the numbers of a task. For source weights ``{name}`` the standard deviation
        of mean weights between restarts, ``spread_{name}`` (task, source).

    Raises
    ------
    ValueError
        If there are fewer than two fits, or a variable is missing.

    Examples
    --------
    >>> def tree(shift, loss):
    ...     w = np.random.default_rng(0).normal(size=(1, 100, 2)) + shift
    ...     posterior = xr.Dataset({"w": (("chain", "draw", "task"), w)})
    ...     history = xr.Dataset({"loss": ("step", np.full(100, loss))})
    ...     return xr.DataTree.from_dict({"posterior": posterior, "history": history})
    >>> spread = restart_spread({"seed 0": tree(0.0, 10.0), "seed 1": tree(2.0, 15.0)})
    >>> spread["elbo"].values, spread["distance"].values.round()
    (array([-10., -15.]), array([0., 2.]))
    """
    if len(fits) < 2:
        raise ValueError(f"fits has {list(fits)}, expected at least two restarts to compare.")
    losses = [needed(tree, "history", "loss") for tree in fits.values()]
    elbo = [-float(loss.isel(step=slice(-LAST_STEPS, None)).mean()) for loss in losses]
    best = int(np.argmax(elbo))
    found = {str(name) for name in next(iter(fits.values()))["posterior"].data_vars}
    weights = sorted(name for name in found if name.endswith("_sources"))
    if var_names is None:
        names = sorted(found - set(weights))
    else:
        names = [var_names] if isinstance(var_names, str) else list(var_names)
    spreads: dict[str, xr.DataArray] = {}
    squares = []
    for name in [*names, *weights]:
        draws = _in_one_order([needed(tree, "posterior", name) for tree in fits.values()], name)
        means = np.stack([values.mean(SAMPLE_DIMS).values for values in draws])
        dims = [dim for dim in draws[0].dims if dim not in SAMPLE_DIMS]
        form = draws[0].isel(chain=0, draw=0, drop=True)
        if name in weights:
            spreads[f"spread_{name}"] = form.copy(data=means.std(0, ddof=1))
            continue
        var = np.mean([values.var(SAMPLE_DIMS).values for values in draws], axis=0)
        var = np.where(var > 0, var, np.nan)  # a point has no width to compare with
        relative = form.copy(data=means.var(0, ddof=1) / var)
        spreads[f"spread_{name}"] = relative.mean([d for d in dims if d != "task"]) ** 0.5
        squares.append(((means - means[best]) ** 2 / var).reshape(len(fits), -1))
    distance = np.sqrt(np.nanmean(np.concatenate(squares, axis=1), axis=1))
    by_restart = {"elbo": ("restart", elbo), "distance": ("restart", distance)}
    return xr.Dataset({**by_restart, **spreads}, {"restart": list(fits)})


def _in_one_order(draws: list[xr.DataArray], name: str) -> list[xr.DataArray]:
    """Put numbers in the order of the first fit's labels: tasks stand in that of the rows."""
    first = draws[0]
    labelled = [d for d in first.dims if d not in SAMPLE_DIMS and d in first.coords]
    try:
        ordered = [values.sel({dim: first[dim] for dim in labelled}) for values in draws]
    except KeyError as error:
        raise ValueError(
            f"The fits have other labels in {name!r} ({error}), expected the same tasks, classes "
            "and features. Compare fits of the same rows."
        ) from error
    if any(values.shape[2:] != first.shape[2:] for values in ordered):
        raise ValueError(
            f"The fits have {name!r} of shapes {[values.shape[2:] for values in draws]}, expected "
            "one shape. Compare fits of the same rows."
        )
    return ordered


def plot_restarts(
    fits: Mapping[str, xr.DataTree],
    ax: Axes | None = None,
    *,
    var_names: str | Sequence[str] | None = None,
) -> Axes:
    """Picture of whether it matters which seed was taken.

    Parameters
    ----------
    fits, var_names
        As for :func:`restart_spread`.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    Axes
        A dot for each restart. To the right is what it lacks of the best ELBO, and upwards how far
        its posterior means are from those of the best, in posterior standard deviations. Dots below
        the line at 1 differ by less than the posterior's own width. The best, a star, and up to six
        restarts above the line are named.
    """
    spread = restart_spread(fits, var_names)
    lacking = (spread["elbo"].max() - spread["elbo"]).values
    distance = spread["distance"].values
    best = int(np.argmin(lacking))
    ax = on_axes(ax)
    ax.axhline(1.0, color=MUTED, linewidth=1, linestyle="--")
    far = distance >= 1.0
    for kept, color, marker in ((~far, COLORS[0], "o"), (far, COLORS[1], "X")):
        ax.plot(lacking[kept], distance[kept], marker, color=color, markersize=8)
    ax.plot(0.0, 0.0, "*", color=INK, markersize=15)
    right, top = 1.4 * max(lacking.max(), 1.0), 1.15 * max(distance.max(), 1.2)
    ax.set(xlim=(-0.03 * right, right), ylim=(-0.06 * top, top))
    height = -top
    for i in [best, *(j for j in np.argsort(distance)[-MOST_NAMED:] if far[j])]:
        height = max(distance[i], height + ROOM * top)  # names do not overlap
        name = shortened(spread["restart"].values[i], 18)
        text, place = f"{name} (best)" if i == best else name, (lacking[i], height)
        label = ax.annotate(text, place, (10, 0), textcoords="offset points", va="center")
        label.set(fontsize=11, color=INK)
    words = "the posterior's own width"
    ax.text(right, 1.0, words, ha="right", va="bottom", fontsize=11, color=INK)
    near = int((~far).sum()) - 1  # the best itself
    return dressed(
        ax,
        title=f"Does the seed matter? {near} of {len(far) - 1} others agree with the best",
        xlabel="ELBO below that of the best (nats)",
        ylabel="means away from the best's (sd)",
    )
