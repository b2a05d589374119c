"""Compare fits from several seeds.

The ELBO of a shared model has local optima: a group of tasks may be found or not, depending on the
seed. Where all fits end at about the same ELBO, with posterior means that differ by little compared
to the posterior's width, any of them will do. Where one has a clearly higher ELBO, use that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from pyro_vmtl.analysis.tree_parts import SAMPLE_DIMS, get_variable

__all__ = ["restart_spread"]

LAST_STEPS = 50
"""Steps at the end over which the loss is averaged: each is estimated from one draw."""


def restart_spread(
    fits: Mapping[str, xr.DataTree], var_names: str | Sequence[str] | None = None
) -> xr.Dataset:
    """Compare fits of the same rows from several seeds.

    Parameters
    ----------
    fits
        Trees of fits by name, with the groups ``posterior`` and ``history``.
    var_names
        Variables of the posterior; by default all but source weights.

    Returns
    -------
    Dataset
        ``elbo`` (restart), nats, the mean of the last 50 steps; ``distance`` (restart), of the
        posterior means from those of the restart with the highest ELBO, in posterior standard
        deviations (root mean square over all numbers; below 1 it is less than the posterior's own
        width). For each variable ``spread_{name}`` (task), the standard deviation of posterior
        means between restarts over that of the posterior, root mean square over the numbers of a
        task. For source weights ``spread_{name}`` (task, source), the standard deviation of mean
        weights between restarts.

    Examples
    --------
    >>> spread = restart_spread({"one": tree, "same": tree}, "w")
    >>> float(spread["spread_w"].max())
    0.0
    """
    if len(fits) < 2:
        raise ValueError(f"fits has {list(fits)}, expected at least two restarts to compare.")
    losses = [get_variable(tree, "history", "loss") for tree in fits.values()]
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
        draws = _aligned([get_variable(tree, "posterior", name) for tree in fits.values()], name)
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


def _aligned(draws: list[xr.DataArray], name: str) -> Sequence[xr.DataArray]:
    """Align numbers by their labels: tasks are in the order of the rows."""
    shapes = {values.shape[2:] for values in draws}
    if len(shapes) == 1:
        aligned = xr.align(*draws, join="inner", exclude=SAMPLE_DIMS)
        if aligned[0].shape[2:] in shapes:
            return aligned
    raise ValueError(
        f"The fits have other labels in {name!r}, of the shapes {sorted(shapes)}, expected the "
        "same tasks, classes and features. Compare fits of the same rows."
    )
