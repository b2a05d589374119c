"""Test the ranks of simulation-based calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from pyro_vmtl.analysis.calibration.uniform import (
    effective_number,
    name_fault,
    normal_scores,
    uniform_p_value,
)

__all__ = ["rank_uniformity"]

GROUP = "prior_sbc"


def rank_uniformity(
    data: xr.DataTree,
    *,
    var_names: str | Sequence[str] | None = None,
    sample_dims: Sequence[str] | None = None,
    ci_prob: float = 0.99,
) -> pd.DataFrame:
    """Test whether the ranks of every site are uniform, and name the fault where they are not.

    All ranks of a site are pooled, and their ECDF is compared with the diagonal at all points at
    once: of calibrated posteriors, 1 - ``ci_prob`` are rejected, site by site. The ranks of a
    simulation are correlated. They count for as many independent ones as their variation between
    simulations shows, and with fewer than 10 simulations for one per simulation.

    Parameters
    ----------
    data
        Tree from :func:`simulate_ranks`.
    var_names
        Sites to test; all by default.
    sample_dims
        Dimensions along which ranks are independent; by default those that :func:`simulate_ranks`
        recorded.
    ci_prob
        Probability that a calibrated posterior passes.

    Returns
    -------
    DataFrame
        A row per site: number of ``ranks``, ``effective`` number of independent ones; ``p_value``;
        ``bias`` of the posterior in its own standard deviations, and ``width``, its standard
        deviation as a multiple of the right one, both under a normal approximation and closer to
        right than they are, as ranks do not show how far a value lies outside of all draws;
        ``verdict``, one of "calibrated", "too narrow" (ranks pile up at both ends), "too wide" (in
        the middle), "biased up" (at 0), "biased down" (at 1), "not uniform".

    Raises
    ------
    ValueError
        If there are no ranks, or no such site.

    See Also
    --------
    simulate_ranks
    arviz_plots.plot_ecdf_pit : Plot the ranks, which it takes for independent.

    References
    ----------
    Säilynoja, Bürkner and Vehtari, Statistics and Computing 2022, arXiv 2103.10522.

    Examples
    --------
    >>> u = np.random.default_rng(0).beta(0.5, 0.5, size=(200, 1))  # ranks at both ends
    >>> ranks = xr.Dataset({"w": (("simulation", "task"), u)})
    >>> table = rank_uniformity(xr.DataTree.from_dict({"prior_sbc": ranks}))
    >>> table.loc["w", "verdict"]
    'too narrow'
    """
    rows = {}
    for site, (values, number) in _pooled(data, var_names, sample_dims).items():
        p_value = uniform_p_value(values, number)
        bias, width = normal_scores(values)
        rows[site] = {
            "ranks": len(values),
            "effective": number,
            "p_value": p_value,
            "bias": bias,
            "width": width,
            "verdict": "calibrated" if p_value > 1 - ci_prob else name_fault(values, number),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("site")


def _pooled(
    data: xr.DataTree, var_names: str | Sequence[str] | None, sample_dims: Sequence[str] | None
) -> dict[str, tuple[np.ndarray, int]]:
    """Return for each site all ranks, and how many independent ones they are worth."""
    if GROUP not in data.children:
        raise ValueError(
            f"The data have no group {GROUP!r}, found {list(data.children)}. Make it with "
            "`simulate_ranks`."
        )
    ranks = data[GROUP].to_dataset()
    every = [str(name) for name in ranks.data_vars]
    names = [var_names] if isinstance(var_names, str) else var_names or every
    missing = [name for name in names if name not in ranks]
    if missing:
        raise ValueError(
            f"Group {GROUP!r} has no site {', '.join(map(repr, missing))}, found {every}."
        )
    dims = ranks.attrs.get("sample_dims", ["simulation"]) if sample_dims is None else sample_dims
    dims = [dims] if isinstance(dims, str) else dims
    pooled = {}
    for name in names:
        independent = [dim for dim in dims if dim in ranks[name].dims]
        values = ranks[name].transpose(*independent, ...).values
        clusters = values.reshape(int(np.prod(values.shape[: len(independent)])), -1)
        pooled[str(name)] = (clusters.ravel(), effective_number(clusters))
    return pooled
