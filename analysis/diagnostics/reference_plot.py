"""Compare a variational posterior with a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from pyro_vmtl.analysis.arviz_api import az
from pyro_vmtl.analysis.tree_parts import SAMPLE_DIMS, needed, shortened

__all__ = ["plot_reference"]

MAX_NUMBERS = 30
"""Numbers on the plot; of more, those that differ most."""


def plot_reference(
    data: xr.DataTree,
    reference: xr.DataTree,
    *,
    var_names: str | Sequence[str] | None = None,
    coords: Mapping[str, Any] | None = None,
    ci_prob: float = 0.9,
) -> Any:
    """Plot the posterior of each number in a fit, beside that of a reference.

    Parameters
    ----------
    data
        Tree of a fit.
    reference
        Tree of the reference, as from :func:`nuts_reference`.
    var_names
        Variables of the posterior; by default all of the reference.
    coords
        For dimensions the labels to show; all by default.
    ci_prob
        Probability of the central intervals.

    Returns
    -------
    PlotCollection
        ArviZ's ``plot_forest`` of both. Of more than 30 numbers, those whose means differ most, in
        standard deviations of the reference. The title has the largest difference.

    Raises
    ------
    ValueError
        If there is no such variable.

    See Also
    --------
    nuts_reference
    arviz_plots.plot_forest
    """
    names = [var_names] if isinstance(var_names, str) else var_names
    names = sorted(map(str, reference["posterior"].data_vars)) if names is None else names
    ours, theirs = (
        xr.concat([_numbers(needed(tree, "posterior", n), coords) for n in names], "number")
        for tree in (data, reference)
    )
    off = np.abs(ours.mean("draw") - theirs.mean("draw")) / theirs.std("draw")
    kept = np.sort(np.argsort(off.values)[-MAX_NUMBERS:])
    # ArviZ puts both into one array: as many draws of both, evenly taken.
    num = min(ours.sizes["draw"], theirs.sizes["draw"])
    both = {
        label: xr.Dataset({"value": values.isel(number=kept, draw=_evenly(values, num))})
        for label, values in (("fit", ours), ("reference", theirs))
    }
    collection = az.plot_forest(
        {label: xr.DataTree.from_dict({"posterior": values}) for label, values in both.items()},
        combined=True,
        backend="matplotlib",
        sample_dims=["draw"],
        labels=["number"],
        ci_kind="eti",
        ci_probs=(0.5, ci_prob),
        point_estimate="mean",
        figure_kwargs={"figsize": (8.0, 1.6 + 0.34 * len(kept))},
    )
    collection.add_legend("model")
    chosen = "" if len(kept) == len(off) else f" ({len(kept)} of {len(off)} numbers)"
    title = f"Posterior means differ by at most {float(off.max()):.2f} sd{chosen}"
    collection.viz["figure"].item().suptitle(title, x=0.02, ha="left", fontsize=13)
    return collection


def _evenly(values: xr.DataArray, num: int) -> np.ndarray:
    return np.linspace(0, values.sizes["draw"] - 1, num).astype(int)


def _numbers(values: xr.DataArray, coords: Mapping[str, Any] | None) -> xr.DataArray:
    """Return the draws of each number of a variable, (draw, number), labelled by its name."""
    for dim, labels in (coords or {}).items():
        if dim in values.dims:
            values = values.sel({dim: np.atleast_1d(labels)})
    rest = [dim for dim in values.dims if dim not in SAMPLE_DIMS]
    shape = [values.sizes[dim] for dim in rest]
    flat = values.transpose(*SAMPLE_DIMS, *rest).values.reshape(-1, int(np.prod(shape)))
    names = []
    for place in np.ndindex(*shape):
        labels = [shortened(values[dim].values[i], 13) for dim, i in zip(rest, place, strict=True)]
        names.append(f"{values.name}[{', '.join(labels)}]" if rest else str(values.name))
    return xr.DataArray(flat, {"number": names}, ["draw", "number"])
