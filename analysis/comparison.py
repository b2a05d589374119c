"""Comparing methods over many splits of a data set."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

__all__ = ["ALL_TASKS", "HIGHER_IS_BETTER", "plot_comparison", "summarise"]

ALL_TASKS = "(all)"
"""What the column ``task`` says where a value is of all tasks together."""

HIGHER_IS_BETTER = {"accuracy": True, "nll": False, "ece": False, "rmse": False, "nmse": False}
"""Metrics that methods are ranked by; others, such as coverage, have a best value in between."""


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard error and mean rank of every method.

    Parameters
    ----------
    results
        Tidy results with the columns ``split``, ``seed``, ``method``, ``task``, ``metric``,
        ``value`` and ``seconds``.

    Returns
    -------
    DataFrame
        A row per method, the best mean rank first. For each metric the columns
        ``(metric, "mean")``, ``(metric, "se")`` over splits and seeds (missing for a single one),
        and ``(metric, "rank")``, the mean over splits and seeds of the rank, 1 being the best; then
        ``("seconds", "mean")`` of a fit and ``("runs", "count")``.
    """
    runs = results[results["task"] == ALL_TASKS]
    table = runs.pivot_table(
        index=["split", "seed"], columns=["method", "metric"], values="value", sort=False
    )
    metrics = list(dict.fromkeys(runs["metric"]))
    columns: dict[tuple[str, str], pd.Series] = {}
    for metric in metrics:
        values = pd.DataFrame(table.xs(metric, axis=1, level="metric"))
        columns[metric, "mean"] = values.mean()
        columns[metric, "se"] = values.sem()
        if metric in HIGHER_IS_BETTER:
            ranks = values.rank(axis=1, ascending=not HIGHER_IS_BETTER[metric])
            columns[metric, "rank"] = ranks.mean()
    per_run = runs.drop_duplicates(["split", "seed", "method"]).groupby("method")["seconds"]
    columns["seconds", "mean"] = per_run.mean()
    columns["runs", "count"] = per_run.count()
    summary = pd.DataFrame(columns).rename_axis("method")
    ranks = summary[[c for c in summary.columns if c[1] == "rank"][:2]]
    return summary.loc[ranks.mean(axis=1).sort_values(kind="stable").index]


def plot_comparison(results: pd.DataFrame, metric: str, ax: Axes | None = None) -> Axes:
    """Every method's value of a metric: a dot for each split, mean and standard error on top.

    Parameters
    ----------
    results
        As for :func:`summarise`.
    metric
        Name of the metric.
    ax
        Axes to draw on; new ones by default.

    Returns
    -------
    Axes
        Methods from best to worst, the best on top. Where a few methods are far off, the axis ends
        before them, and an arrow and a number tell where they are.
    """
    runs = results[(results["task"] == ALL_TASKS) & (results["metric"] == metric)]
    higher = HIGHER_IS_BETTER.get(metric, True)
    groups = runs.groupby("method")["value"]
    means, errors = groups.mean().sort_values(ascending=higher), groups.sem()
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 1.2 + 0.3 * len(means)), layout="constrained")
    low, high = _shown(means, higher=higher)
    for place, (method, mean) in enumerate(zip(means.index, means, strict=True)):
        values = runs.loc[runs["method"] == method, "value"]
        error = errors.fillna(0.0).loc[method]
        if low <= mean <= high:
            ax.plot(values, [place] * len(values), "o", color="0.75", markersize=4, zorder=1)
            ax.errorbar(mean, place, xerr=error, fmt="o", color="tab:blue", capsize=3, zorder=2)
            continue
        edge, arrow, align = (low, "\N{LEFTWARDS ARROW} {:.3g}", "left")
        if mean > high:
            edge, arrow, align = (high, "{:.3g} \N{RIGHTWARDS ARROW}", "right")
        ax.text(edge, place, arrow.format(mean), ha=align, va="center", color="tab:blue")
    ax.yaxis.set_major_locator(FixedLocator(range(len(means))))
    ax.set_yticklabels(means.index)
    ax.set_xlim(low, high)
    direction = "higher" if higher else "lower"
    better = f" ({direction} is better)" if metric in HIGHER_IS_BETTER else ""
    ax.set(xlabel=f"{metric}{better}: mean ± standard error, grey: each split")
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    return ax


def _shown(means: pd.Series, *, higher: bool) -> tuple[float, float]:
    """Range of values to show: all, unless the worst are over three times as far as the middle."""
    best = means.max() if higher else means.min()
    distance = (means - best).abs()
    reach = min(distance.max(), 3 * distance.median()) or 0.1 * abs(best) or 1.0
    margin = 0.12 * reach
    return (
        (best - reach - margin, best + margin) if higher else (best - margin, best + reach + margin)
    )
