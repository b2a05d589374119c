"""Judge a method by many data sets at once."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from pyro_vmtl.analysis.metrics import ALL_TASKS

__all__ = ["average_ranks", "judge", "plot_average_ranks", "suite_means"]

MAIN = {"accuracy": 1, "nmse": -1}
"""The main metric of classes and of real targets; 1 where higher is better, -1 otherwise."""


def suite_means(results: pd.DataFrame) -> pd.DataFrame:
    """Compute the mean and standard error of every metric, for each data set and method.

    Parameters
    ----------
    results
        Tidy results as for :func:`~benchmarks.comparison.summarise`, with a column ``row`` that
        names the data set.

    Returns
    -------
    DataFrame
        Index (row, method, metric), columns ``mean``, ``se`` over splits and seeds, and ``count``.
    """
    runs = results[results["task"] == ALL_TASKS]
    values = runs.groupby(["row", "method", "metric"], sort=False)["value"]
    return pd.DataFrame({"mean": values.mean(), "se": values.sem(), "count": values.count()})


def average_ranks(results: pd.DataFrame) -> pd.DataFrame:
    """Compute the mean rank of every method over the data sets that it ran on; 1 is the best.

    Parameters
    ----------
    results
        As for :func:`suite_means`. Means over splits are ranked.

    Returns
    -------
    DataFrame
        One row per method, the best first: ``main`` (by accuracy or nmse), ``nll``, and ``rows``,
        the number of data sets.
    """
    means = suite_means(results)["mean"].unstack("metric")
    main = pd.concat([sign * means[m].dropna() for m, sign in MAIN.items() if m in means])
    ranks = pd.DataFrame(
        {
            "main": main.groupby("row").rank(ascending=False),
            "nll": means["nll"].groupby("row").rank(),
        }
    )
    table = ranks.groupby("method").mean().assign(rows=ranks.groupby("method")["main"].count())
    return table.loc[table[["main", "nll"]].mean(axis=1).sort_values(kind="stable").index]


def judge(results: pd.DataFrame, method: str, others: Sequence[str]) -> pd.DataFrame:
    """Compare a method with the best of others, on every data set.

    Parameters
    ----------
    results
        As for :func:`suite_means`.
    method
        The method to judge.
    others
        Methods to beat.

    Returns
    -------
    DataFrame
        One row per data set that the method and one of the others ran on. For the main metric
        (accuracy or nmse) and for ``nll``: mean and standard error of the method, name and mean of
        the best other, and ``(..., "gain")``, the difference in standard errors of the method,
        negative where it is worse. Then ``ece`` or ``coverage_90``.
    """
    table = suite_means(results)
    rows = {}
    for row in dict.fromkeys(results["row"]):
        of_row = table.loc[row]
        main = next((m for m in MAIN if (method, m) in of_row.index), None)
        if main is None or not set(others) & set(of_row.index.get_level_values("method")):
            continue
        entry: dict[tuple[str, str], object] = {("main", "metric"): main}
        for kind, metric, sign in (("main", main, MAIN[main]), ("nll", "nll", -1)):
            own = of_row.loc[method, metric]
            rivals = of_row["mean"].xs(metric, level="metric").reindex(others).dropna() * sign
            best = rivals.idxmax()
            entry |= {
                (kind, "mean"): own["mean"],
                (kind, "se"): own["se"],
                (kind, "best other"): best,
                (kind, "its mean"): rivals[best] * sign,
                (kind, "gain"): (sign * own["mean"] - rivals[best]) / own["se"],
            }
        for metric in ("ece", "coverage_90"):
            if (method, metric) in of_row.index:
                entry["calibration", metric] = of_row.loc[(method, metric), "mean"]
        rows[row] = entry
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("row")


def plot_average_ranks(ranks: pd.DataFrame, ax: Axes) -> None:
    """Plot every method's mean rank over the data sets, by the main metric and by nll.

    Parameters
    ----------
    ranks
        From :func:`average_ranks`.
    ax
        Axes to draw on.
    """
    places = range(len(ranks) - 1, -1, -1)
    both = ranks[["main", "nll"]]
    ax.hlines(places, both.min(axis=1), both.max(axis=1), color="0.85", zorder=1)
    ax.plot(ranks["main"], places, "o", color="tab:blue", label="by accuracy or nmse", zorder=2)
    ax.plot(ranks["nll"], places, "s", color="tab:orange", label="by log-likelihood", zorder=2)
    names = [f"{name} ({rows:.0f})" for name, rows in ranks["rows"].items()]
    ax.set_yticks(list(places), names)
    ax.set_xlabel("mean rank over data sets, 1 is best (number of data sets in brackets)")
    ax.set_xlim(left=0.8)
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    ax.legend(loc="lower left")
