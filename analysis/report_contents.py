"""Choose what a report shows of a fit, and say what a bad sign would be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
import xarray as xr

from pyro_vmtl.analysis.calibration.calibration_curves import plot_coverage, plot_reliability
from pyro_vmtl.analysis.calibration.predictive_checks import plot_ppc_by_task
from pyro_vmtl.analysis.diagnostics.history_plots import plot_elbo, plot_elbo_terms
from pyro_vmtl.analysis.diagnostics.khat import plot_khat, psis_khat
from pyro_vmtl.analysis.diagnostics.leave_one_out import loo
from pyro_vmtl.analysis.diagnostics.reliability import assess_reliability, main_member
from pyro_vmtl.analysis.influence.influence_section import influence_section
from pyro_vmtl.analysis.predictions.shrinkage_plots import plot_shrinkage
from pyro_vmtl.analysis.predictions.uncertainty_plots import plot_uncertain_rows, plot_uncertainty
from pyro_vmtl.analysis.relatedness.evolution_plot import plot_relatedness_evolution
from pyro_vmtl.analysis.relatedness.weight_plots import plot_relatedness, plot_relatedness_graph
from pyro_vmtl.analysis.report import Picture, ReportTable, Section
from pyro_vmtl.analysis.tree_parts import get_variable

__all__ = ["report_sections"]

LOWEST_ROWS = 10
"""Training rows in the table of those with the lowest density."""


def report_sections(data: xr.DataTree) -> list[Section]:
    """Return the sections of a report on a fit.

    Parameters
    ----------
    data
        Tree from :func:`to_datatree`, of a single fit or of a stack. Sections without data in the
        tree, such as predictions without rows to predict, are empty. A group ``influence`` may be
        what :func:`~pyro_vmtl.influence` returned, with ``features`` (row, feature).

    See Also
    --------
    write_report

    Examples
    --------
    >>> [section.name for section in report_sections(tree)]
    ['relatedness', 'predictions', 'coefficients', 'influence', 'trust']
    """
    name = main_member(data)
    fit = data if name is None else data.children[name]
    which = "" if name is None else f" This is about {name}, the member with the largest weight."
    target = f" What it approximates: {fit.attrs['target']}" if "target" in fit.attrs else ""
    members = [] if name is None else [_members(data)]
    return [
        Section(
            "relatedness",
            "Who borrows from whom?",
            "A task borrows from others as far as the model finds them alike. The base is what it "
            "does not borrow: its own prior.",
            pictures=list(_relatedness(data)),
        ),
        Section(
            "predictions",
            "How good are the predictions, and how certain?",
            "All of this is about rows that were not fitted.",
            pictures=list(_predictions(data)),
        ),
        Section(
            "coefficients",
            "What do tasks gain from one another?",
            pictures=list(_coefficients(data)),
        ),
        influence_section(data),
        Section(
            "trust",
            "Can the posterior be trusted?",
            "Predictions are tested above, on rows that were not fitted. This section is about the "
            f"draws of the coefficients themselves.{which}{target}",
            tables=[_reliability(data), *members, *_lowest_rows(fit)],
            pictures=list(_trust(fit)),
        ),
    ]


def _reliability(data: xr.DataTree) -> ReportTable:
    table = assess_reliability(data)
    table["otherwise"] = table["otherwise"].where(table["reliable"] != "yes", "")
    return ReportTable("What can be relied on", table)


def _members(data: xr.DataTree) -> ReportTable:
    weights = get_variable(data, "stack", "member_weights")
    members = [str(member) for member in weights["member"].values]
    columns = {
        "mean weight": weights.mean("task").values,
        "least": weights.min("task").values,
        "largest": weights.max("task").values,
        "learning rate": [data.children[member].attrs.get("learning_rate") for member in members],
        "Pareto k": [_khat(data.children[member]) for member in members],
    }
    return ReportTable(
        "Members of the stack",
        pd.DataFrame(columns, pd.Index(members, name="member")),
        note="Weights reflect how well each member predicted held-out rows, task by task. The "
        "likelihood has the learning rate as its power in what a member approximates; without one, "
        "it approximates no posterior. Pareto k is explained below.",
    )


def _khat(fit: xr.DataTree) -> float:
    """Compute the Pareto k of all tasks together; NaN where it cannot be estimated."""
    try:
        return float(psis_khat(fit).khat)
    except ValueError:  # few draws, or densities that are not finite
        return float("nan")


def _lowest_rows(fit: xr.DataTree) -> Iterator[ReportTable]:
    """Tabulate the training rows with the lowest leave-one-out density."""
    if "sample_stats" not in fit or math.isnan(_khat(fit)):
        return
    found = loo(fit)
    trusted = found.pareto_k.values <= found.good_k
    if trusted.mean() <= 0.5:  # the estimate is of no use
        return
    rows = found.elpd_i.reset_coords(drop=True).to_series()
    columns = {"task": found.elpd_i["task"].values, "log density": rows.values}
    table = pd.DataFrame({**columns, "trusted": np.where(trusted, "yes", "no")}, rows.index)
    yield ReportTable(
        "Training rows that surprise the model most",
        table.nsmallest(LOWEST_ROWS, "log density"),
        note="Log density of each row when it is left out (PSIS-LOO, nats); of all rows the median "
        f"is {rows.median():.2f}. A bad sign: single rows far below the others, which are outliers "
        "or have wrong labels. Estimates marked 'no' depend too much on the row itself.",
    )


def _relatedness(data: xr.DataTree) -> Iterator[Picture]:
    if "posterior" not in data or "w_sources" not in data["posterior"]:
        return
    yield Picture(
        "relatedness",
        "How much each task borrows, and from whom",
        "Rows borrow, columns lend: the darker, the more. Tasks that borrow alike are side by "
        "side, so that groups show as blocks along the diagonal.",
        "A task that you know to be unlike all others, and that hardly uses the base; or two that "
        "you know to be alike, in different blocks: check their rows for wrong labels. Nearly "
        "equal weights mean that no groups stand out, not that there are none: with few features "
        "or rows they often go unnoticed.",
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
            "When were the groups found?",
            "Source weights, parts of each prior, from the first step of the fit to the last.",
            "Lines that still move at the end: fit longer, or with another seed to see whether "
            "they end in the same place.",
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
            "Of rows predicted with a probability of 0.8, say, 80 % should be right: points on the "
            "diagonal. ECE is the mean distance from it.",
            "Points clearly below the diagonal: predictions are overconfident.",
            partial(plot_reliability, data),
        )
    else:
        yield Picture(
            "coverage",
            "Do intervals contain as many targets as they should?",
            "Half of the targets, say, should be in the central intervals of 50 %: a line on the "
            "diagonal.",
            "A line clearly below the diagonal: intervals are too narrow. Above it: too wide.",
            partial(plot_coverage, data),
        )
    yield Picture(
        "uncertainty",
        "Where would more data help?",
        "The uncertainty of predictions in each task, split in two: what more rows of the task "
        "could remove, and what is noise in its targets, as far as this model can tell.",
        "A task in which more rows could remove most: do not rely on single predictions there.",
        partial(plot_uncertainty, data),
    )
    yield Picture(
        "uncertain-rows",
        "The rows with the most uncertain predictions",
        "Rows whose prediction would gain most from more data.",
        "Rows that have something in common, such as a task, a day or a sensor: check these first.",
        partial(plot_uncertain_rows, data),
    )


def _coefficients(data: xr.DataTree) -> Iterator[Picture]:
    if "alone" in data.children and "shared" in data.children:
        yield Picture(
            "shrinkage",
            "One coefficient: from each task alone to all together",
            "Hollow: estimated from the task alone. Filled: estimated with the others, with a 90 % "
            "interval. Tasks with few rows move most.",
            "A task with many rows that moves far: its own data disagree.",
            partial(plot_shrinkage, data),
        )


def _trust(fit: xr.DataTree) -> Iterator[Picture]:
    if "history" in fit:
        site = "w" if "kl_w" in fit["history"].data_vars else None
        yield Picture(
            "elbo",
            "Has the fit converged?",
            "The loss (negative ELBO) at every step, and its running median. Lower is better.",
            "A line that still falls at the end: fit with more steps.",
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
            "A task far above all others is unlike them.",
            partial(plot_elbo_terms, fit, term="kl", site=site),
        )
    if "sample_stats" in fit and not math.isnan(_khat(fit)):
        yield Picture(
            "khat",
            "Is the posterior's shape right?",
            "Pareto k of the importance weights: how far the fitted distribution of all numbers of "
            "a task is from its target. Below 0.5 it is close, above 0.7 it is not.",
            "Values above 0.7, common with more than some 20 coefficients a task, as each adds to "
            "k: intervals of single ones may be about right, and predictions are judged by the "
            "plots above. For exact intervals of a small model see nuts_reference.",
            partial(plot_khat, fit),
        )
    if "posterior_predictive" in fit:
        yield Picture(
            "ppc",
            "Would the model generate data like these?",
            "For each task, the observed values over those that the fitted model expects.",
            "Observed values outside the intervals in more than about a tenth of all tasks.",
            partial(plot_ppc_by_task, fit),
        )
