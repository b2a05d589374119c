"""Plot the loss of a fit over its steps, and the terms of its ELBO."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from pyro_vmtl.analysis.canvas import COLORS, INK, in_nats, label_axes, on_axes
from pyro_vmtl.analysis.task_lines import MOST_LINES, draw_bands, name_ends, quantiles_of
from pyro_vmtl.analysis.tree_parts import get_variable, shorten, task_sizes

__all__ = ["plot_elbo", "plot_elbo_terms"]

Term = Literal["log_likelihood", "kl"]

SMOOTHED_STEPS = 51
"""Steps in a running median of the loss."""

SMOOTHED_RECORDS = 9
"""Recorded steps in a running median of a term."""

MOST_CURVES = 2_000
"""Tasks whose curves are smoothed: of more, every second, third, ..., which do for quantiles."""


def plot_elbo(data: xr.DataTree, ax: Axes | None = None) -> Axes:
    """Plot the loss over the steps of a fit.

    Parameters
    ----------
    data
        Tree of a fit, with ``loss`` (step) in the group ``history``, in nats.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    Axes
        Every step, estimated from a small number of draws, and the running median of 51 steps. The
        axis is scaled to all but the first twentieth of the steps and the highest losses.

    See Also
    --------
    plot_elbo_terms

    Examples
    --------
    >>> plot_elbo(tree).get_xlabel()
    'step'
    """
    loss = get_variable(data, "history", "loss").values
    ax = on_axes(ax)
    ax.plot(loss, color="0.78", linewidth=0.6, label="each step, noisy")
    smooth = _smooth(loss, SMOOTHED_STEPS)
    ax.plot(smooth, color=INK, linewidth=1.8, label=f"median of {SMOOTHED_STEPS} steps")
    shown = loss[len(loss) // 20 :]
    _limit(ax, np.quantile(shown, [0.0, 0.995]), smooth[len(loss) // 20 :])
    ax.legend(loc="upper right")
    title = f"Loss (negative ELBO): {in_nats(smooth[-1])} at the end"
    return label_axes(ax, title=title, xlabel="step", ylabel="nats")


def plot_elbo_terms(
    data: xr.DataTree,
    ax: Axes | None = None,
    *,
    term: Term = "log_likelihood",
    site: str | None = None,
) -> Axes:
    """Plot one term of the ELBO over the steps of a fit, task by task.

    Parameters
    ----------
    data
        Tree of a fit, with ``log_likelihood_{site}`` and ``kl_{site}`` (term_step, task) or
        (term_step) in the group ``history``, in nats.
    ax
        Axes to draw on; new ones by default.
    term
        ``"log_likelihood"`` of an observed site, or ``"kl"`` of a latent one, as weighted in the
        loss.
    site
        Name of the site; by default the first that has such a term.

    Returns
    -------
    Axes
        Running medians of 9 recorded steps: a line with its name for each task, or for more than
        seven tasks their median, and the middle half and nine tenths of them. Log-likelihoods are
        per row where the tree has the tasks of its rows.

    See Also
    --------
    plot_elbo

    Examples
    --------
    >>> plot_elbo_terms(tree, term="kl", site="w").get_ylabel()
    'nats per task'
    """
    site = next(iter(_sites(data, term)), "y") if site is None else site
    values = get_variable(data, "history", f"{term}_{site}")
    ax = on_axes(ax)
    split = "task" in values.dims
    curves = values.transpose("term_step", ...).values.reshape(values.sizes["term_step"], -1)
    unit = "nats per task" if split else "nats"
    sizes = task_sizes(data, values["task"].values.tolist()) if split else None
    if term == "log_likelihood" and sizes is not None:
        curves, unit = curves / np.array(sizes, dtype=float), "nats per row"
    steps = np.asarray(values["term_step"].values)
    curves = curves[:, :: -(-curves.shape[1] // MOST_CURVES)]
    smooth = np.stack([_smooth(curve, SMOOTHED_RECORDS) for curve in curves.T], axis=1)
    if smooth.shape[1] > MOST_LINES:
        ends = draw_bands(ax, steps, smooth)
        low, *_, high = quantiles_of(smooth[len(smooth) // 20 :])
        _limit(ax, low, high)
    else:
        labels = [shorten(label, 16) for label in values["task"].values] if split else [""]
        ends = []
        for curve, label, color in zip(smooth.T, labels, COLORS, strict=False):
            line = color if split else INK
            ax.plot(steps, curve, color=line, linewidth=1.8, label=label)
            ends.append((float(curve[-1]), label, line))
        _limit(ax, smooth[len(smooth) // 20 :])
    name_ends(ax, float(steps[-1]), ends)
    title = f"Log-likelihood of {site}"
    if term == "kl":
        choice = str(site).endswith("_sources")
        what = "cost of choosing sources" if choice else "from the prior, as weighted"
        title = f"KL of {site}: {what}"
    return label_axes(ax, title=title, xlabel="step", ylabel=unit)


def _sites(data: xr.DataTree, term: Term) -> list[str]:
    """List the sites with such a term, source weights last."""
    get_variable(data, "history", "loss")
    history, start = data["history"].dataset, f"{term}_"
    found = [str(name) for name in history.data_vars if str(name).startswith(start)]
    sites = [name.removeprefix(start) for name in found if bool(history[name].any())]
    return sorted(sites, key=lambda site: site.endswith("_sources"))


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    smooth = pd.Series(values).rolling(window, center=True, min_periods=1).median()
    return smooth.to_numpy()


def _limit(ax: Axes, *shown: np.ndarray) -> None:
    """Scale the y axis to the finite ones of these values."""
    values = np.concatenate([each.ravel() for each in shown])
    values = values[np.isfinite(values)]
    if len(values) and np.ptp(values):
        margin = 0.06 * np.ptp(values)
        ax.set_ylim(values.min() - margin, values.max() + margin)
