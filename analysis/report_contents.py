"""What a report says of a fit: which pictures, what they show, and what would be a bad sign."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import pandas as pd
import xarray as xr

from pyro_vmtl.analysis.calibration.calibration_curves import (
    plot_coverage,
    plot_pit,
    plot_reliability,
)
from pyro_vmtl.analysis.calibration.predictive_checks import plot_ppc_by_task
from pyro_vmtl.analysis.diagnostics.history_plots import plot_elbo, plot_elbo_terms
from pyro_vmtl.analysis.diagnostics.khat import plot_khat, psis_khat
from pyro_vmtl.analysis.diagnostics.leave_one_out import loo_by_task
from pyro_vmtl.analysis.diagnostics.loo_plot import plot_loo
from pyro_vmtl.analysis.predictions.shrinkage_plots import plot_shrinkage
from pyro_vmtl.analysis.predictions.uncertainty_plots import plot_uncertain_rows, plot_uncertainty
from pyro_vmtl.analysis.relatedness.comparison_plots import plot_relatedness_evolution
from pyro_vmtl.analysis.relatedness.weight_plots import plot_relatedness, plot_relatedness_graph
from pyro_vmtl.analysis.report import Picture, ReportTable, Section
from pyro_vmtl.analysis.tree_parts import needed

__all__ = ["report_sections"]


def report_sections(data: xr.DataTree) -> list[Section]:
    """Choose what there is to say of a fit.

    Parameters
    ----------
    data
        From :func:`to_datatree`, of a single fit or of a stack. What the tree has not, such as rows
        to test, is left out.
    """
    name = _main_member(data)
    fit = data if name is None else data.children[name]
    which = "" if name is None else f" This is about {name}, the member that counts most here."
    return [
        Section(
            "relatedness",
            "Who borrows from whom?",
            "A task borrows from others as much as the model finds them alike. The base is what it "
            "does not borrow: its own prior.",
            pictures=list(_relatedness(data)),
        ),
        Section(
            "predictions",
            "How good are the predictions, and how sure?",
            "All of this is about rows that were not fitted.",
            pictures=list(_predictions(data)),
        ),
        Section(
            "coefficients",
            "What do tasks gain from one another?",
            pictures=list(_coefficients(data)),
        ),
        Section(
            "trust",
            "Can the posterior be trusted?",
            "Predictions are tested above, on rows that were not fitted. Here it is about the "
            f"draws of the coefficients themselves.{which}",
            tables=[] if name is None else [_members(data)],
            pictures=list(_trust(fit)),
        ),
    ]


def _main_member(data: xr.DataTree) -> str | None:
    """Name the member of a stack that counts most; None for a single fit."""
    if "stack" not in data:
        return None
    weights = needed(data, "stack", "member_weights").mean("task")
    return str(weights["member"].values[int(weights.values.argmax())])


def _members(data: xr.DataTree) -> ReportTable:
    """Lay out what the members of a stack are, and how much they count."""
    weights = needed(data, "stack", "member_weights")
    members = [str(member) for member in weights["member"].values]
    table = pd.DataFrame(
        {
            "mean weight": weights.mean("task").values,
            "least": weights.min("task").values,
            "largest": weights.max("task").values,
            "Pareto k": [_khat(data.children[member]) for member in members],
        },
        pd.Index(members, name="member"),
    )
    return ReportTable(
        "What the fit is made of",
        table,
        note="Weights are by how well each member predicted rows held out, task by task. Pareto k "
        "is explained below.",
    )


def _khat(fit: xr.DataTree) -> float:
    """Give the Pareto k of all tasks together; NaN where it cannot be told."""
    try:
        return float(psis_khat(fit).khat)
    except ValueError:  # few draws, or densities that are not finite
        return float("nan")


def _relatedness(data: xr.DataTree) -> Iterator[Picture]:
    if "posterior" not in data or "w_sources" not in data["posterior"]:
        return
    yield Picture(
        "relatedness",
        "How much each task borrows, and from whom",
        "Rows borrow, columns lend: the darker, the more. Tasks that borrow alike stand side by "
        "side, so that groups show as blocks along the diagonal.",
        "A task that you know to be unlike all others, and that hardly uses the base; or two that "
        "you know to be alike, in different blocks: look at their rows, wrong labels do that. "
        "Weights that are all about even say that no groups stand out, not that there are none: "
        "with few features or rows they are often not found.",
        partial(plot_relatedness, data),
    )
    yield Picture(
        "relatedness-graph",
        "The same as a graph",
        "An arrow goes to each task from those it mainly borrows from; the thicker, the more.",
        "Arrows across groups that should have nothing in common.",
        partial(plot_relatedness_graph, data),
    )
    shared = next((m for m in data.children.values() if _evolves(m)), data)
    if _evolves(shared):
        yield Picture(
            "relatedness-evolution",
            "When did it find that out?",
            "The same weights during the fit, from the first step to the last.",
            "Lines that still move at the end: fit longer, or with another seed to see whether "
            "it ends in the same place.",
            partial(plot_relatedness_evolution, shared),
        )


def _evolves(data: xr.DataTree) -> bool:
    return "history" in data and "relatedness_w" in data["history"]


def _predictions(data: xr.DataTree) -> Iterator[Picture]:
    if "predictions" not in data:
        return
    if "proba" in data["predictions"]:
        yield Picture(
            "reliability",
            "Do probabilities mean what they say?",
            "Rows that were said to be right with a probability of 0.8, say, should be right in "
            "80 % of all cases: points on the diagonal. ECE is the mean distance from it.",
            "Points clearly below the diagonal: predictions are too sure of themselves.",
            partial(plot_reliability, data),
        )
    else:
        yield Picture(
            "coverage",
            "Do intervals hold what they promise?",
            "Of the central intervals of 50 %, say, half should hold the true value: a line on "
            "the diagonal.",
            "A line clearly below the diagonal: intervals are too narrow. Above it: too wide.",
            partial(plot_coverage, data),
        )
        yield Picture(
            "pit",
            "Where in its predictive distribution does each true value fall?",
            "Where predictions are right, all places are equally likely: even bars.",
            "High bars at both ends: too narrow. A hill in the middle: too wide. A slope: "
            "predictions are too high or too low on the whole.",
            partial(plot_pit, data),
        )
    yield Picture(
        "uncertainty",
        "What would more data help?",
        "The uncertainty of predictions in each task, split in two: what more rows of the task "
        "could remove, and what is in the nature of its targets, as far as this model can say.",
        "A task in which more rows could remove most: do not rely on single predictions there.",
        partial(plot_uncertainty, data),
    )
    yield Picture(
        "uncertain-rows",
        "The rows it knows least about",
        "Rows whose prediction would gain most from more data.",
        "Rows that have something in common, such as a task, a day or a sensor: look there first.",
        partial(plot_uncertain_rows, data),
    )


def _coefficients(data: xr.DataTree) -> Iterator[Picture]:
    if "alone" in data.children and "shared" in data.children:
        yield Picture(
            "shrinkage",
            "One coefficient: from each task alone to all together",
            "Hollow: what a task says alone. Filled: what it says with the others' help, and its "
            "90 % interval. Tasks with few rows move most.",
            "A task with many rows that moves far: its own data say otherwise.",
            partial(plot_shrinkage, data),
        )


def _trust(fit: xr.DataTree) -> Iterator[Picture]:
    if "history" in fit:
        site = "w" if "kl_w" in fit["history"].data_vars else None
        yield Picture(
            "elbo",
            "Had the fit settled?",
            "The loss (negative ELBO) at every step, and its running mean. Lower is better; it "
            "bounds what the data are worth under the model.",
            "A line that still falls at the end: give the fit more steps.",
            partial(plot_elbo, fit),
        )
        yield Picture(
            "log-likelihood",
            "How well does each task fit its rows?",
            "The log-likelihood of each task's own rows during the fit.",
            "A task far below all others: its rows do not follow this model, or labels are wrong.",
            partial(plot_elbo_terms, fit, term="log_likelihood"),
        )
        yield Picture(
            "kl",
            "How far is each task from its prior?",
            "The KL divergence of each task's coefficients from their prior: for shared ones the "
            "pool of tasks it borrows from, for others what all tasks have in common.",
            "A task far above all others is a stranger here.",
            partial(plot_elbo_terms, fit, term="kl", site=site),
        )
    if "sample_stats" in fit and not math.isnan(_khat(fit)):
        yield Picture(
            "khat",
            "Is the posterior's shape right?",
            "Pareto k of the importance weights: how far the fitted normal distribution is from "
            "the exact posterior of the same model. Below 0.5 it is close, above 0.7 it is not.",
            "Values above 0.7, usual for these tempered fits: read intervals of single "
            "coefficients as rough, and trust predictions by the pictures above. For exact "
            "intervals of a small model see nuts_reference.",
            partial(plot_khat, fit),
        )
        found = loo_by_task(fit).iloc[-1]
        if found["num_bad_k"] < found["num_rows"] / 2:  # else it says nothing
            yield Picture(
                "loo",
                "Which training rows surprise the model?",
                "The log density of each training row when it is left out (PSIS-LOO).",
                "Single rows far below all others of their task: outliers, or wrong labels.",
                partial(plot_loo, fit),
            )
    if "posterior_predictive" in fit:
        yield Picture(
            "ppc",
            "Would the model make data like yours?",
            "For each task, what was observed, and what the fitted model would expect.",
            "Observed values outside the intervals in more than about a tenth of all tasks.",
            partial(plot_ppc_by_task, fit),
        )
