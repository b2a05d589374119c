r"""Pareto k-hat: are the draws of a fit draws from the posterior?

A guide :math:`q` is fitted to a target :math:`p`. If it is close, the ratios
:math:`r_s = p(w_s) / q(w_s)` of its draws are nearly equal; if it misses a part of the target, a
few draws have most of the weight. The shape :math:`\hat k` of a generalised Pareto distribution
fitted to the largest ratios tells which (Yao, Vehtari, Simpson and Gelman, ICML 2018, arXiv
1802.02538):

======================= ================= ========================================================
:math:`\hat k`          in words          what it means
======================= ================= ========================================================
below 0.5               good              the ratios have a finite variance: nearly the target
0.5 to ``good_k``       usable            means and intervals are about right
above ``good_k``        do not trust      the guide misses a part that matters
======================= ================= ========================================================

With few draws large shapes cannot be told, so that ``good_k`` is
:math:`\min(1 - 1 / \log_{10} S, 0.7)` (Vehtari et al., JMLR 2024). A small one does not tell that
nothing is missed: a mode that no draw came near is not seen. All tasks together have as many
dimensions as all coefficients, and every one adds to the spread of the ratios. What is predicted in
a task needs only that of the task. In a fit tempered by a KL weight :math:`b` the log ratios are
:math:`1 / b` times what they are in the ELBO, and with them those of source weights, whose KL is
not tempered: these alone can make a large :math:`\hat k`.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import COLORS, INK, MUTED, dressed, on_axes
from pyro_vmtl.analysis.tree_parts import SAMPLE_DIMS, needed, shortened

__all__ = ["good_khat", "plot_khat", "psis_khat", "smoothed_weights"]

EQUAL = 0.01
"""Spread of log ratios, in nats, up to which they are all the same: weights within 1 %."""

LEAST_DRAWS = 25
"""A fifth of them are the tail, and a Pareto distribution is fitted to at least five."""

FARTHEST = 1.2
"""Largest k-hat that has a place of its own on the picture; larger ones are as bad."""

MOST_NAMED = 30
"""Tasks that have a name on the picture."""


def good_khat(num_samples: int) -> float:
    """Give the largest k-hat at which so many draws can be trusted.

    Examples
    --------
    >>> good_khat(100), good_khat(4000)
    (0.5, 0.7)
    """
    return float(min(1 - 1 / np.log10(num_samples), 0.7))


def smoothed_weights(log_ratios: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Pareto-smoothed importance weights.

    Parameters
    ----------
    log_ratios
        Log importance ratios in nats, with the dimensions ``chain`` and ``draw`` and any others.

    Returns
    -------
    tuple of DataArray
        Log weights, which sum to 1 over the draws, and k-hat, without the dimensions of draws:
        -inf where all ratios, or all of the largest fifth, are the same, and inf where one draw
        outweighs all others so far that these count for nothing, or a draw has no density at all.
        In both cases the weights are not smoothed.

    Raises
    ------
    ValueError
        If there are fewer than 25 draws, or a ratio is not a number.
    """
    num_samples = log_ratios.sizes["chain"] * log_ratios.sizes["draw"]
    if num_samples < LEAST_DRAWS:
        raise ValueError(
            f"There are {num_samples} draws, expected at least {LEAST_DRAWS}: the largest fifth of "
            "their ratios is looked at. Draw more from the posterior."
        )
    if log_ratios.isnull().any() or np.isposinf(log_ratios).any():
        raise ValueError(
            "A log density is infinite or not a number, expected finite ones. Look at log_p and "
            "log_q in the group sample_stats, and at the loss of the fit."
        )
    spread = log_ratios.max(SAMPLE_DIMS) - log_ratios.min(SAMPLE_DIMS)
    equal = spread <= EQUAL
    # A Pareto distribution cannot be fitted to equal numbers: put any others there, then take out.
    places = np.linspace(0.0, 1.0, num_samples).reshape(-1, log_ratios.sizes["draw"])
    others = xr.DataArray(places, dims=SAMPLE_DIMS)
    ratios = log_ratios.astype(float).where(~equal, others)
    log_weights, khat = _smoothed(ratios)
    # Where all but the largest weights are 0 in floating point, ArviZ's numbers mean nothing.
    lost = ~(log_weights > -np.inf).all(SAMPLE_DIMS) | khat.isnull()
    log_weights, khat = log_weights.where(~lost, _plain(ratios)), khat.where(~lost, np.inf)
    return (
        log_weights.where(~equal, -np.log(num_samples)),
        khat.where(~equal, -np.inf),
    )


def _smoothed(ratios: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Smooth by ArviZ; one after the other where some have largest ratios that are all the same."""
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
    """Normalise log ratios; even weights where none has any density."""
    ratios = ratios.where(np.isfinite(ratios.max(SAMPLE_DIMS)), 0.0)
    shifted = ratios - ratios.max(SAMPLE_DIMS)
    return shifted - np.log(xr.apply_ufunc(np.exp, shifted).sum(SAMPLE_DIMS))


def psis_khat(data: xr.DataTree) -> xr.Dataset:
    """Pareto k-hat of a variational posterior, and of each task's part of it.

    Parameters
    ----------
    data
        Tree of a fit, with ``log_p``, ``log_q``, ``log_p_task`` and ``log_q_task`` in the group
        ``sample_stats``.

    Returns
    -------
    Dataset
        ``khat``, that of all latent variables together, and ``khat_task`` (task); -inf where all
        ratios are the same, as they are for the exact posterior. The attributes ``num_samples`` and
        ``good_k``, the largest value to trust.

    Raises
    ------
    ValueError
        If there are fewer than 25 draws, or a variable is missing.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(1, 1000, 2))  # of N(0, 1)
    >>> log_q = xr.DataArray(-0.5 * draws**2, dims=["chain", "draw", "task"])
    >>> log_p = log_q - 0.5 * draws**2 * [0, -0.75]  # the second task is twice as wide
    >>> stats = {"log_p_task": log_p, "log_q_task": log_q}
    >>> stats |= {"log_p": log_p.sum("task"), "log_q": log_q.sum("task")}
    >>> psis_khat(xr.DataTree.from_dict({"sample_stats": xr.Dataset(stats)})).khat_task > 0.7
    <xarray.DataArray 'khat_task' (task: 2)> Size: 2B
    array([False,  True])
    Dimensions without coordinates: task
    """
    whole, by_task = (
        needed(data, "sample_stats", f"log_p{part}") - needed(data, "sample_stats", f"log_q{part}")
        for part in ("", "_task")
    )
    num_samples = whole.sizes["chain"] * whole.sizes["draw"]
    return xr.Dataset(
        {"khat": smoothed_weights(whole)[1], "khat_task": smoothed_weights(by_task)[1]},
        attrs={"num_samples": num_samples, "good_k": good_khat(num_samples)},
    )


def plot_khat(data: xr.DataTree, ax: Axes | None = None) -> Axes:
    """Picture of which tasks' posteriors can be trusted.

    Parameters
    ----------
    data
        As for :func:`psis_khat`.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    Axes
        A dot for each task, the worst on top, over zones named in words; above them, as a diamond,
        the posterior of all tasks together. Values below 0 are drawn at 0, and those above 1.2
        at 1.2. With more than 30 tasks only the five worst are named.
    """
    khat = psis_khat(data)
    order = np.argsort(khat["khat_task"].values, kind="stable")
    values, whole = khat["khat_task"].values[order], float(khat["khat"])
    names = [shortened(khat["task"].values[t] if "task" in khat.coords else t) for t in order]
    num_tasks, good_k = len(values), khat.attrs["good_k"]
    few = num_tasks <= MOST_NAMED
    gap = 1.0 if few else 0.06 * num_tasks
    rows, top = np.arange(num_tasks), num_tasks - 1 + gap
    ax = on_axes(ax, (6.8, 1.7 + (0.28 * (num_tasks + 1) if few else 3.0)))
    ends = [0.0, min(0.5, good_k), good_k, FARTHEST]
    zones = zip(("good", "usable", "do not trust"), ("1.0", "0.94", "0.86"), strict=True)
    for (name, shade), left, end in zip(zones, ends, ends[1:], strict=False):
        if end - left > 0.02:
            ax.axvspan(left, end + 0.03, color=shade, linewidth=0, zorder=0)
            label = ax.text((left + end) / 2, 1.01, name, fontsize=11, color=INK, ha="center")
            label.set_transform(ax.get_xaxis_transform())
    trusted = values <= good_k
    shown = np.clip(values, 0.0, FARTHEST)
    for kept, color, marker in ((trusted, COLORS[0], "o"), (~trusted, COLORS[1], "X")):
        ax.plot(shown[kept], rows[kept], marker, color=color, markersize=7 if few else 4)
    ax.plot(np.clip(whole, 0.0, FARTHEST), top, "D", color=INK, markersize=7)
    ax.axhline(top - gap / 2, color=MUTED, linewidth=0.8)
    far = [(whole, top), *(zip(values, rows, strict=True) if few else ())]
    for value, row in far:
        if value > FARTHEST:
            text = f"{value:.1f} \N{RIGHTWARDS ARROW}  "
            ax.text(FARTHEST, row, text, ha="right", va="center", fontsize=11, color=INK)
    ax.set_yticks([*(rows if few else ()), top], [*(names if few else ()), "all together"])
    ax.set(xlim=(-0.03, FARTHEST + 0.03), ylim=(-0.6 * gap, top + 0.6 * gap))
    if not few and not trusted.all():
        worst = [name for name, kept in zip(names, trusted, strict=True) if not kept][:-6:-1]
        text = "\n".join(["the worst:", *worst])
        label = ax.text(0.98, 0.04, text, fontsize=11, color=INK, ha="right")
        label.set_transform(ax.transAxes)
    title = f"Can the draws be trusted? In {trusted.sum()} of {num_tasks} tasks"
    if num_tasks == 1:
        title = f"Can the draws be trusted? {'Yes' if trusted.all() else 'No'}"
    ylabel = "task" if few else f"{num_tasks} tasks, the worst on top"
    dressed(ax, xlabel=r"Pareto $\hat k$ of the importance ratios", ylabel=ylabel)
    ax.set_title(title, fontsize=13, color=INK, loc="left", pad=20)
    return ax
