"""Compare a variational posterior with a reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from pyro_vmtl.analysis.arviz_api import az
from pyro_vmtl.analysis.tree_parts import SAMPLE_DIMS, needed

__all__ = ["plot_reference"]


def plot_reference(
    data: xr.DataTree,
    reference: xr.DataTree,
    *,
    var_names: str | Sequence[str] | None = None,
    ci_prob: float = 0.9,
    **kwargs: Any,
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
    ci_prob
        Probability of the central intervals.
    **kwargs
        Passed to ArviZ's ``plot_forest``, such as ``coords={"task": ["a", "b"]}``.

    Returns
    -------
    PlotCollection
        ArviZ's ``plot_forest`` of both, which it needs as many draws of. The title has the largest
        difference of means, in standard deviations of the reference, of all numbers.

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
    both, off = {"fit": data, "reference": reference}, 0.0
    draws: dict[str, dict[str, xr.DataArray]] = {label: {} for label in both}
    for name in names:
        pair = [needed(tree, "posterior", name).stack(sample=SAMPLE_DIMS) for tree in both.values()]
        ours, theirs = (values.drop_vars(["sample", *SAMPLE_DIMS]) for values in pair)
        difference = np.abs(ours.mean("sample") - theirs.mean("sample")) / theirs.std("sample")
        off = max(off, float(difference.max()))
        num = min(ours.sizes["sample"], theirs.sizes["sample"])
        for label, values in zip(both, (ours, theirs), strict=True):
            evenly = np.linspace(0, values.sizes["sample"] - 1, num).astype(int)
            draws[label][name] = values.isel(sample=evenly)
    collection = az.plot_forest(
        {label: xr.DataTree.from_dict({"posterior": xr.Dataset(d)}) for label, d in draws.items()},
        **{"sample_dims": ["sample"], "combined": True, "backend": "matplotlib"},
        **{"ci_kind": "eti", "ci_probs": (0.5, ci_prob), "point_estimate": "mean", **kwargs},
    )
    collection.add_legend("model")
    title = f"Posterior means differ by at most {off:.2f} sd"
    collection.viz["figure"].item().suptitle(title, x=0.02, ha="left", fontsize=13)
    return collection
