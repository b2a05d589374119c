"""What of a fit can be relied on: predictions, relatedness, coefficients, each by its own check."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import binomtest

from pyro_vmtl.analysis.diagnostics.khat import psis_khat
from pyro_vmtl.analysis.tree_parts import get_variable

__all__ = ["assess_reliability", "main_member"]

SMALL = 0.03
"""Difference of a share of rows, in absolute terms, that hardly matters to anybody."""

RARE = 0.1
"""Probability of a difference, if there is none, below which it counts as one."""

MOST = 0.9
"""Share of the tasks that stands for all of them."""


def assess_reliability(data: xr.DataTree) -> pd.DataFrame:
    """Assess what can be relied on, by the check that was made for it.

    Parameters
    ----------
    data
        Tree from :func:`to_datatree`, of a single fit or of a stack.

    Returns
    -------
    DataFrame
        A row each for ``predictions``, ``relatedness`` and ``coefficients``, with the columns
        ``reliable`` (``"yes"``, ``"no"``, ``"in part"``, or ``"not tested"``), ``because`` and
        ``otherwise``, the way out.

        - Predictions are reliable if of the rows in the group ``predictions`` as many are right as
          their probabilities say, or if as many targets as should be are in central intervals of
          90 %: up to a difference of 0.03, or one that chance has in a tenth of all cases.
        - Relatedness is if members of the stack that share have more than half of the weight, which
          is by their predictions of rows that they did not see.
        - Coefficients are if the Pareto k of nine in ten tasks is good, in the member with the
          largest weight. It is that of all numbers of a task together, against the target of the
          fit, and not tested where that has none.

    See Also
    --------
    psis_khat, plot_reliability, plot_coverage, nuts_reference

    Examples
    --------
    >>> assess_reliability(tree)["reliable"].to_dict()
    {'predictions': 'no', 'relatedness': 'not tested', 'coefficients': 'no'}
    """
    found = {
        "predictions": _predictions(data),
        "relatedness": _relatedness(data),
        "coefficients": _coefficients(data),
    }
    columns = ["reliable", "because", "otherwise"]
    return pd.DataFrame.from_dict(found, orient="index", columns=columns)


def main_member(data: xr.DataTree) -> str | None:
    """Return the name of the member of a stack with the largest weight; None for a single fit."""
    if "stack" not in data:
        return None
    weights = get_variable(data, "stack", "member_weights").mean("task")
    return str(weights["member"].values[int(weights.values.argmax())])


def _predictions(data: xr.DataTree) -> tuple[str, str, str]:
    group = data["predictions"].dataset if "predictions" in data.children else xr.Dataset()
    names = set(group.data_vars)
    if "y" not in names or not names & {"proba", "pit"} or not group["y"].size:
        way_out = "Hold rows out (--holdout 0.2), or pass rows with their targets."
        return "not tested", "There are no rows with targets that were not fitted.", way_out
    if "proba" in names:
        proba = group["proba"].values
        inside = proba.argmax(1) == group["y"].values.astype(int)
        expected = min(1.0, float(proba.max(1).mean()))
        text = "{:.1%} of {} rows are right, {:.1%} by their probabilities."
    else:
        inside, expected = np.abs(2 * group["pit"].values - 1) <= 0.9, 0.9
        text = "{:.1%} of {} targets are in their central intervals of {:.0%}."
    share, rows = inside.mean(), len(inside)
    close = abs(share - expected) <= SMALL
    close = close or binomtest(int(inside.sum()), rows, expected).pvalue > RARE
    way_out = "Look at single tasks: rows may differ from those of the fit."
    return "yes" if close else "no", text.format(share, rows, expected), way_out


def _relatedness(data: xr.DataTree) -> tuple[str, str, str]:
    if "stack" not in data:
        way_out = "Fit a Stack with a member that does not share, or compare restarts."
        return "not tested", "There is no other fit to compare with.", way_out
    weights = get_variable(data, "stack", "member_weights").mean("task").to_series()
    shares = [name for name in weights.index if _has_sources(data.children.get(name))]
    total = float(weights[shares].sum())
    text = f"Members that share have {total:.0%} of the weight, by rows that they did not see."
    way_out = "Take tasks as exchangeable: no groups of them predict better."
    return ("yes" if total > 0.5 else "no"), text, way_out


def _has_sources(fit: xr.DataTree | None) -> bool:
    variables = fit["posterior"].data_vars if fit is not None and "posterior" in fit else ()
    return any(str(name).endswith("_sources") for name in variables)


def _coefficients(data: xr.DataTree) -> tuple[str, str, str]:
    name = main_member(data)
    fit = data if name is None else data.children[name]
    way_out = "Take their intervals as rough; nuts_reference tests them, in small models."
    try:
        found = psis_khat(fit)
    except ValueError as error:  # no target, few draws, or densities that are not finite
        return "not tested", str(error), way_out
    good = found["khat_task"].values <= found.attrs["good_k"]
    verdict = "yes" if good.mean() >= MOST else "in part" if good.any() else "no"
    of_member = "" if name is None else f", in {name}"
    text = f"Pareto k is good in {good.sum()} of {len(good)} tasks{of_member}."
    numbers = _numbers_of_a_task(fit)
    if verdict != "yes" and numbers:
        text += (
            f" That is about all {numbers} numbers of a task together: each adds to k, and "
            "intervals of single ones may be about right."
        )
    return verdict, text, way_out


def _numbers_of_a_task(fit: xr.DataTree) -> int:
    """Count the latent numbers of a task, without its source weights."""
    variables = fit["posterior"].data_vars if "posterior" in fit else {}
    own = [v for name, v in variables.items() if "task" in v.dims and "source" not in v.dims]
    return sum(v.isel(chain=0, draw=0, task=0).size for v in own)
