"""Are the ranks of simulation-based calibration uniform?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.calibration.uniform_bands import (
    UniformBands,
    effective_number,
    fault_in_words,
    normal_scores,
)
from pyro_vmtl.analysis.calibration.uniform_histogram import (
    draw_uniform_histogram,
    draw_uniform_steps,
    fault_and_size,
)
from pyro_vmtl.analysis.canvas import dressed, on_axes
from pyro_vmtl.analysis.tree_parts import shortened

__all__ = ["plot_ranks", "rank_uniformity"]

GROUP = "prior_sbc"
CALIBRATED = "calibrated"


def rank_uniformity(
    data: xr.DataTree,
    *,
    var_names: str | Sequence[str] | None = None,
    sample_dims: Sequence[str] | None = None,
    ci_prob: float = 0.99,
) -> pd.DataFrame:
    """Test the ranks of every site, and say what is wrong with its posterior.

    All ranks of a site are pooled. They are compared with uniform ones by their empirical
    distribution function, at all places at once (Säilynoja, Bürkner, Vehtari 2022, arXiv
    2103.10522): of right posteriors, 1 - ``ci_prob`` are found fault with, site by site. The ranks
    of one simulation's dimensions are alike, and so may be those of its tasks. They count for as
    many independent ones as their spread from simulation to simulation shows, and with fewer than
    10 simulations for one each.

    Parameters
    ----------
    data
        What :func:`simulate_ranks` gives.
    var_names
        Sites to test; all by default.
    sample_dims
        Dimensions along which ranks are independent; those that :func:`simulate_ranks` noted by
        default.
    ci_prob
        Probability that a right posterior passes.

    Returns
    -------
    DataFrame
        A row per site: ``ranks`` and the ``effective`` number of independent ones; ``p_value``;
        ``bias``, how far the posterior is above the truth in its own standard deviations, and
        ``width``, its standard deviation as a multiple of the right one, both as if it were normal
        and nearer to right than they are: ranks cannot tell how far out of all draws a value is;
        ``verdict``, one of "calibrated" (no fault found), "too narrow" (ranks pile up at both
        ends), "too wide" (in the middle), "biased up" (at 0), "biased down" (at 1), "not uniform".

    Raises
    ------
    ValueError
        If there are no ranks, or no such site.

    Examples
    --------
    >>> u = np.random.default_rng(0).beta(0.5, 0.5, size=(200, 1))  # ranks at both ends
    >>> ranks = xr.Dataset({"w": (("simulation", "task"), u)})
    >>> table = rank_uniformity(xr.DataTree.from_dict({"prior_sbc": ranks}))
    >>> table.loc["w", "verdict"]
    'too narrow'
    """
    rows = {}
    for site, ranks in _sites(data, var_names).items():
        values, number = _pooled(ranks, sample_dims)
        p_value = UniformBands.of(number).p_value(values)
        bias, width = normal_scores(values)
        passed = p_value > 1 - ci_prob
        rows[site] = {
            "ranks": len(values),
            "effective": number,
            "p_value": p_value,
            "bias": bias,
            "width": width,
            "verdict": CALIBRATED if passed else fault_in_words(values, number),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("site")


def plot_ranks(
    data: xr.DataTree,
    ax: Axes | None = None,
    *,
    var_names: str | Sequence[str] | None = None,
    sample_dims: Sequence[str] | None = None,
    ci_prob: float = 0.99,
) -> Axes:
    """Draw a histogram of ranks, with the band that those of a right posterior keep to.

    Parameters
    ----------
    data, var_names, sample_dims
        As for :func:`rank_uniformity`.
    ax
        Axes to draw on; new ones by default.
    ci_prob
        Probability that a right posterior passes, and that no bar of it leaves the band.

    Returns
    -------
    Axes
        One site as bars, hatched where they leave the band; several as outlines, with the band of
        the site with the fewest ranks. The verdict is that of :func:`rank_uniformity`.

    Raises
    ------
    ValueError
        If there are no ranks, or no such site.
    """
    table = rank_uniformity(data, var_names=var_names, sample_dims=sample_dims, ci_prob=ci_prob)
    pooled = {s: _pooled(r, sample_dims) for s, r in _sites(data, var_names).items()}
    ax = on_axes(ax)
    verdicts = {str(site): str(verdict) for site, verdict in table["verdict"].items()}
    if len(pooled) == 1:
        ((site, (values, number)),) = pooled.items()
        draw_uniform_histogram(ax, values, number, ci_prob)
        fault = fault_and_size(values, verdicts[site])
        title = f"Posterior of {shortened(site)}: {fault}"
        title += "" if "\n" in fault else f" in {len(values)} ranks"
    else:
        labels = {site: f"{shortened(site, 12)}: {verdicts[site]}" for site in pooled}
        draw_uniform_steps(ax, {labels[site]: value for site, value in pooled.items()}, ci_prob)
        faults = sum(verdict != CALIBRATED for verdict in verdicts.values())
        title = f"{len(verdicts) - faults} of {len(verdicts)} sites are calibrated"
    return dressed(
        ax,
        title=title,
        xlabel="rank of the true value among posterior draws",
        ylabel="density",
    )


def _sites(data: xr.DataTree, var_names: str | Sequence[str] | None) -> dict[str, xr.DataArray]:
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
    return {str(name): ranks[name].assign_attrs(ranks.attrs) for name in names}


def _pooled(ranks: xr.DataArray, sample_dims: Sequence[str] | None) -> tuple[np.ndarray, int]:
    """Give all ranks of a site, and how many independent ones say as much."""
    noted = ranks.attrs.get("sample_dims", ["simulation"]) if sample_dims is None else sample_dims
    noted = [noted] if isinstance(noted, str) else noted
    independent = [dim for dim in noted if dim in ranks.dims]
    values = ranks.transpose(*independent, ...).values
    clusters = values.reshape(int(np.prod(values.shape[: len(independent)])), -1)
    return clusters.ravel(), effective_number(clusters)
