"""Compare methods over many splits of a data set."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from pyro_vmtl.analysis.metrics import ALL_TASKS

__all__ = ["HIGHER_IS_BETTER", "plot_comparison", "summarise"]

HIGHER_IS_BETTER = {"accuracy": True, "nll": False, "ece": False, "rmse": False, "nmse": False}
"""Metrics to rank methods by. Others, such as coverage, are best somewhere in between."""


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """Compute the mean, standard error and mean rank of every method.

    Parameters
    ----------
    results
        Tidy results with the columns ``split``, ``seed``, ``method``, ``task``, ``metric``,
        ``value`` and ``seconds``.

    Returns
    -------
    DataFrame
        One row per method, the best mean rank first. For each metric the columns
        ``(metric, "mean")``, ``(metric, "se")`` over splits and seeds (NaN for a single one),
        and ``(metric, "rank")``, the mean over splits and seeds of the rank, 1 being the best and a
        missing run the last; then ``("seconds", "mean")`` of a fit and ``("runs", "count")``.
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
            ranks = values.rank(axis=1, ascending=not HIGHER_IS_BETTER[metric], na_option="bottom")
            columns[metric, "rank"] = ranks.mean()
    per_run = (
        runs.dropna(subset="value")
        .drop_duplicates(["split", "seed", "method"])
        .groupby("method")["seconds"]
    )
    columns["seconds", "mean"] = per_run.mean()
    columns["runs", "count"] = per_run.count()
    summary = pd.DataFrame(columns).rename_axis("method")
    ranks = summary[[c for c in summary.columns if c[1] == "rank"][:2]]
    return summary.loc[ranks.mean(axis=1).sort_values(kind="stable").index]


def plot_comparison(results: pd.DataFrame, metric: str, ax: Axes) -> None:
    """Plot every method's value of a metric, from best to worst.

    Grey dots are splits; mean and standard error are in color. Where some methods are far off, the
    axis ends before them, and an arrow and a number say where they are.

    Parameters
    ----------
    results
        As for :func:`summarise`.
    metric
        Name of the metric.
    ax
        Axes to draw on.
    """
    runs = results[(results["task"] == ALL_TASKS) & (results["metric"] == metric)]
    higher = HIGHER_IS_BETTER.get(metric, True)
    groups = runs.groupby("method")["value"]
    means, errors = groups.mean().sort_values(ascending=higher), groups.sem()
    best = means.iloc[-1]
    distance = (means - best).abs()
    near = distance <= 4 * distance.median()
    shown = runs.loc[runs["method"].isin(means.index[near]), "value"]
    margin = 0.05 * (shown.max() - shown.min()) or 0.05 * abs(best) or 1.0
    low, high = shown.min() - margin, shown.max() + margin
    for place, (method, mean) in enumerate(zip(means.index, means, strict=True)):
        if near[method]:
            values = runs.loc[runs["method"] == method, "value"]
            error = errors.fillna(0.0).loc[method]
            ax.plot(values, [place] * len(values), "o", color="0.75", markersize=4, zorder=1)
            ax.errorbar(mean, place, xerr=error, fmt="o", color="tab:blue", capsize=3, zorder=2)
        elif mean < low:
            text = f" \N{LEFTWARDS ARROW} {mean:.3g}"
            ax.text(low, place, text, ha="left", va="center", color="tab:blue")
        else:
            text = f"{mean:.3g} \N{RIGHTWARDS ARROW} "
            ax.text(high, place, text, ha="right", va="center", color="tab:blue")
    ax.set_yticks(range(len(means)), means.index)
    ax.set(xlim=(low, high), ylim=(-0.6, len(means) - 0.4))
    direction = "higher" if higher else "lower"
    better = f" ({direction} is better)" if metric in HIGHER_IS_BETTER else ""
    ax.set_xlabel(f"{metric}{better}")
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
