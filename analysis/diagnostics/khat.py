r"""Diagnose a variational posterior by the Pareto k-hat of its importance ratios.

A guide :math:`q` is fitted to a target :math:`p`. If it is close, the ratios
:math:`r_s = p(w_s) / q(w_s)` of its draws are nearly equal; if it misses a part of the target, a
small number of draws have most of the weight. The shape :math:`\hat k` of a generalised Pareto
distribution fitted to the largest ratios shows which (Yao, Vehtari, Simpson and Gelman, ICML 2018,
arXiv 1802.02538):

======================= ================= ========================================================
:math:`\hat k`          verdict           meaning
======================= ================= ========================================================
below 0.5               good              the ratios have a finite variance: nearly the target
0.5 to ``good_k``       usable            means and intervals are about right
above ``good_k``        do not trust      the guide misses a part that matters
======================= ================= ========================================================

With few draws large shapes cannot be estimated, so that ``good_k`` is
:math:`\min(1 - 1 / \log_{10} S, 0.7)` (Vehtari et al., JMLR 2024). A small k-hat does not prove
that nothing is missed: a mode that no draw came near goes unnoticed. All tasks together have as
many dimensions as all coefficients, and every one adds to the variation of the ratios; predictions
in a task depend on that of the task alone. In a fit tempered by a KL weight :math:`b` the target is
the generalised posterior, with the likelihood to the power :math:`1 / b`; where tasks share, it is
that of each task given the posteriors of its sources, at their mean weights. A fit whose KL weights
differ between sites has no target, and no :math:`\hat k`.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.arviz_api import az as _az  # noqa: F401  it adds `azstats` to arrays
from pyro_vmtl.analysis.canvas import COLORS, INK, label_axes, on_axes
from pyro_vmtl.analysis.tree_parts import SAMPLE_DIMS, get_variable, shorten

__all__ = ["good_khat", "log_ratios", "plot_khat", "psis_khat", "smoothed_weights"]

EQUAL = 0.01
"""Range of log ratios, in nats, up to which they count as equal: weights within 1 %."""

MIN_DRAWS = 25
"""A fifth of them are the tail, and a Pareto distribution is fitted to at least five."""

MAX_KHAT = 1.2
"""Largest k-hat on the plot; larger ones are as bad."""

MAX_TASKS = 30
"""Tasks on the plot."""


def good_khat(num_samples: int) -> float:
    """Return the largest k-hat at which S draws can be trusted."""
    return float(min(1 - 1 / np.log10(num_samples), 0.7))


def smoothed_weights(log_ratios: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Compute Pareto-smoothed log weights, normalised over the draws, and k-hat, from log ratios.

    k-hat is -inf where all ratios, or all of the largest fifth, are equal, and inf where one draw
    outweighs all others numerically, or a draw has no density; then weights are not smoothed.
    """
    num_samples = log_ratios.sizes["chain"] * log_ratios.sizes["draw"]
    if num_samples < MIN_DRAWS:
        raise ValueError(
            f"There are {num_samples} draws, expected at least {MIN_DRAWS}: a distribution is "
            "fitted to the largest fifth of their ratios. Draw more from the posterior."
        )
    if log_ratios.isnull().any() or np.isposinf(log_ratios).any():
        raise ValueError(
            "A log density is infinite or not a number, expected finite ones. Check log_p and "
            "log_q in the group sample_stats, and the loss of the fit."
        )
    spread = log_ratios.max(SAMPLE_DIMS) - log_ratios.min(SAMPLE_DIMS)
    equal = spread <= EQUAL
    # A Pareto distribution cannot be fitted to equal numbers: replace them, and drop the result.
    placeholder = np.linspace(0.0, 1.0, num_samples).reshape(-1, log_ratios.sizes["draw"])
    others = xr.DataArray(placeholder, dims=SAMPLE_DIMS)
    ratios = log_ratios.astype(float).where(~equal, others)
    log_weights, khat = _smoothed(ratios)
    # Where all but the largest weights are 0 in floating point, ArviZ's results are meaningless.
    lost = ~(log_weights > -np.inf).all(SAMPLE_DIMS) | khat.isnull()
    log_weights, khat = log_weights.where(~lost, _plain(ratios)), khat.where(~lost, np.inf)
    return (log_weights.where(~equal, -np.log(num_samples)), khat.where(~equal, -np.inf))


def _smoothed(ratios: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Smooth with ArviZ, one by one where the largest ratios of some are all equal."""
    try:
        with np.errstate(invalid="ignore", divide="ignore"):
            log_weights, khat = (-ratios).azstats.psislw(dim=list(SAMPLE_DIMS))
        return log_weights, khat
    except ValueError:  # nothing to fit a Pareto distribution to
        others = [dim for dim in ratios.dims if dim not in SAMPLE_DIMS]
        if not others:
            return _plain(ratios), xr.DataArray(-np.inf)
        parts = [_smoothed(ratios.isel({others[0]: i})) for i in range(ratios.sizes[others[0]])]
        weights, khats = zip(*parts, strict=True)
        return xr.concat(weights, others[0]), xr.concat(khats, others[0])


def _plain(ratios: xr.DataArray) -> xr.DataArray:
    """Normalise log ratios; equal weights where no draw has any density."""
    ratios = ratios.where(np.isfinite(ratios.max(SAMPLE_DIMS)), 0.0)
    shifted = ratios - ratios.max(SAMPLE_DIMS)
    return shifted - np.log(xr.apply_ufunc(np.exp, shifted).sum(SAMPLE_DIMS))


def log_ratios(data: xr.DataTree, part: str = "") -> xr.DataArray:
    """Return the log density of the target minus that of the guide; of tasks, by ``"_task"``.

    Raises
    ------
    ValueError
        If the fit has no target.
    """
    if "sample_stats" not in data.children and "target" in data.attrs:
        raise ValueError(f"The fit has no target to compare with. {data.attrs['target']}")
    log_p, log_q = (get_variable(data, "sample_stats", f"log_{name}{part}") for name in "pq")
    return log_p - log_q


def psis_khat(data: xr.DataTree) -> xr.Dataset:
    """Compute the Pareto k-hat of a variational posterior, and of each task's part of it.

    Parameters
    ----------
    data
        Tree of a fit, with ``log_p``, ``log_q``, ``log_p_task`` and ``log_q_task`` in the group
        ``sample_stats``: at least 25 draws.

    Returns
    -------
    Dataset
        ``khat`` of all latent variables together, and ``khat_task`` (task); -inf where all ratios
        are equal, as for the exact posterior. The attributes are ``num_samples`` and ``good_k``,
        the largest value to trust.

    See Also
    --------
    plot_khat, loo

    Examples
    --------
    >>> psis_khat(tree)["khat_task"].dims
    ('task',)
    """
    together, by_task = (log_ratios(data), log_ratios(data, "_task"))
    num_samples = together.sizes["chain"] * together.sizes["draw"]
    return xr.Dataset(
        {"khat": smoothed_weights(together)[1], "khat_task": smoothed_weights(by_task)[1]},
        attrs={"num_samples": num_samples, "good_k": good_khat(num_samples)},
    )


def plot_khat(data: xr.DataTree, ax: Axes | None = None) -> Axes:
    """Plot the k-hat of each task, and of all together.

    Parameters
    ----------
    data
        As for :func:`psis_khat`.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    Axes
        A dot for each task, the worst on top, over zones named in words, and a cross where draws
        cannot be trusted; above them, as a diamond, all tasks together. Values are clipped to 0 and
        1.2. Of more than 30 tasks, only the worst are shown.

    See Also
    --------
    psis_khat
    arviz_plots.plot_khat : The k-hat of each row, from :func:`loo`.

    Examples
    --------
    >>> plot_khat(tree).get_ylabel()
    'task'
    """
    khat = psis_khat(data)
    by_task, good_k = khat["khat_task"].values, khat.attrs["good_k"]
    order = np.argsort(by_task, kind="stable")[-MAX_TASKS:]
    labels = khat["task"].values if "task" in khat.coords else np.arange(len(by_task))
    names = [*(shorten(labels[t]) for t in order), "all together"]
    values = np.clip([*by_task[order], khat["khat"].item()], 0.0, MAX_KHAT)
    rows = np.arange(len(values))
    ax = on_axes(ax, (6.8, 1.7 + 0.28 * len(values)))
    edges = [0.0, min(0.5, good_k), good_k, MAX_KHAT]
    zones = zip(("good", "usable", "do not trust"), ("1.0", "0.94", "0.86"), strict=True)
    for (name, shade), left, right in zip(zones, edges, edges[1:], strict=False):
        if right - left > 0.02:
            ax.axvspan(left, right + 0.03, color=shade, linewidth=0, zorder=0)
            label = ax.text((left + right) / 2, 1.01, name, fontsize=11, color=INK, ha="center")
            label.set_transform(ax.get_xaxis_transform())
    for value, row in zip(values[:-1], rows, strict=False):
        color, marker = (COLORS[0], "o") if value <= good_k else (COLORS[1], "X")
        ax.plot(value, row, marker, color=color, markersize=7)
    ax.plot(values[-1], rows[-1], "D", color=INK, markersize=7)
    ax.set_yticks(rows, names)
    ax.set(xlim=(-0.03, MAX_KHAT + 0.03), ylim=(-0.6, rows[-1] + 0.6))
    shown = "" if len(order) == len(by_task) else f", the worst {len(order)} tasks"
    label_axes(ax, xlabel=rf"Pareto $\hat k$ of the importance ratios{shown}", ylabel="task")
    good = f"good in {(by_task <= good_k).sum()} of {len(by_task)} tasks"
    title = f"All numbers of a task together: {good}"
    ax.set_title(title, fontsize=13, color=INK, loc="left", pad=20)
    return ax
