"""Markdown tables of benchmarks, for RESULTS.md.

python -m benchmarks.markdown runs/benchmark-digits runs/benchmark-suite
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.comparison import HIGHER_IS_BETTER, summarise
from benchmarks.suite import METHODS, SAFE
from benchmarks.suite_scores import average_ranks, judge, suite_means

SHOWN = ("accuracy", "rmse", "nmse", "nll", "ece", "coverage_50", "coverage_90")


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def methods_table(results: pd.DataFrame) -> str:
    """Tabulate mean ± standard error of each metric, mean ranks and seconds of every method."""
    summary = summarise(results)
    metrics = [metric for metric in SHOWN if (metric, "mean") in summary]
    first = "accuracy" if "accuracy" in metrics else "nmse"
    rows = []
    for method, row in summary.iterrows():
        cells = [str(method)]
        for metric in metrics:
            mean = f"{row[metric, 'mean']:.3f}"
            column = summary[metric, "mean"] * (1 if HIGHER_IS_BETTER.get(metric) else -1)
            if metric in HIGHER_IS_BETTER and column[method] == column.max():
                mean = f"**{mean}**"
            cells.append(f"{mean} ± {row[metric, 'se']:.3f}")
        cells += [f"{row[first, 'rank']:.1f}", f"{row['nll', 'rank']:.1f}"]
        rows.append([*cells, f"{row['seconds', 'mean']:.1f}"])
    return markdown(["method", *metrics, f"rank by {first}", "rank by nll", "fit s"], rows)


def judgement_table(results: pd.DataFrame) -> str:
    """Compare the default with the best of the simple methods, in standard errors."""
    kinds = ["default", "best other", "gain"]
    columns = ["data", "metric", *kinds, "nll default", *kinds[1:], "ECE or in 90 %"]
    rows = []
    for row, values in judge(results, "default", SAFE).iterrows():
        cells = [str(row), str(values["main", "metric"])]
        for kind in ("main", "nll"):
            gain = values[kind, "gain"]
            cells += [
                f"{values[kind, 'mean']:.3f} ± {values[kind, 'se']:.3f}",
                f"{values[kind, 'its mean']:.3f} {values[kind, 'best other']}",
                f"{gain:+.1f}" if gain > -1 else f"**{gain:+.1f}**",
            ]
        rows.append([*cells, f"{values['calibration'].dropna().iloc[0]:.3f}"])
    return markdown(columns, rows)


def data_sets_table(results: pd.DataFrame, metrics: tuple[str, ...]) -> str:
    """Tabulate a metric with a row per data set and a column per method, the best in bold."""
    means = suite_means(results)
    methods = [m for m in METHODS if m in set(results["method"])]
    rows = []
    for row in dict.fromkeys(results["row"]):
        of_row = means.loc[row]
        metric = next(m for m in metrics if m in of_row.index.get_level_values("metric"))
        values = of_row.xs(metric, level="metric")
        best = values["mean"].max() if metric == "accuracy" else values["mean"].min()
        cells = [str(row)]
        for method in methods:
            if method not in values.index:
                cells.append("–")
                continue
            mean, error = values.loc[method, "mean"], values.loc[method, "se"]
            text = f"{mean:.3f} ± {error:.3f}"
            cells.append(f"**{text}**" if mean == best else text)
        rows.append(cells)
    return markdown(["data", *methods], rows)


def ranks_table(results: pd.DataFrame) -> str:
    """Tabulate mean ranks over the data sets that a method ran on."""
    rows = [
        [str(method), f"{row['main']:.2f}", f"{row['nll']:.2f}", f"{row['rows']:.0f}"]
        for method, row in average_ranks(results).iterrows()
    ]
    return markdown(["method", "by accuracy or nmse", "by nll", "data sets"], rows)


def main() -> None:
    """Print the tables of finished benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="directories of benchmarks")
    for run in parser.parse_args().runs:
        results = pd.read_parquet(run / "results.parquet")
        if "row" in results:
            tables = [judgement_table(results), ranks_table(results)]
            tables += [data_sets_table(results, m) for m in (("accuracy", "nmse"), ("nll",))]
            print(*tables, sep="\n\n", end="\n\n")
            continue
        data = json.loads((run / "benchmark.json").read_text())["data"]
        seeds = ", ".join(map(str, sorted(results["seed"].unique())))
        print(f"{data}, splits {seeds}\n\n{methods_table(results)}\n")


if __name__ == "__main__":
    main()
