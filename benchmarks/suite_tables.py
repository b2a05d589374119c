"""Markdown tables of the suite, for RESULTS.md.

python -m benchmarks.suite_tables runs/benchmark-suite
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from benchmarks.suite import METHODS, SAFE
from benchmarks.suite_scores import average_ranks, judge, suite_means


def verdict(results: pd.DataFrame) -> str:
    """The default beside the best of the simple methods, in standard errors."""
    lines = [
        "| data | metric | default | best other | gain | nll default | best other | gain | "
        "ECE or in 90 % |",
        "|---|" + "---|" * 8,
    ]
    for row, values in judge(results, "default", SAFE).iterrows():
        cells = [str(row), str(values["main", "metric"])]
        for kind in ("main", "nll"):
            gain = values[kind, "gain"]
            cells += [
                f"{values[kind, 'mean']:.3f} ± {values[kind, 'se']:.3f}",
                f"{values[kind, 'its mean']:.3f} {values[kind, 'best other']}",
                f"{gain:+.1f}" if gain > -1 else f"**{gain:+.1f}**",
            ]
        cells.append(f"{values['calibration'].dropna().iloc[0]:.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def methods_table(results: pd.DataFrame, metrics: tuple[str, ...]) -> str:
    """A row per data set, a column per method, the best in bold."""
    means = suite_means(results)
    methods = [m for m in METHODS if m in set(results["method"])]
    lines = [f"| data | {' | '.join(methods)} |", "|---|" + "---|" * len(methods)]
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
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ranks_table(results: pd.DataFrame) -> str:
    """Mean ranks over the data sets that a method ran on."""
    lines = ["| method | by accuracy or nmse | by nll | data sets |", "|---|---|---|---|"]
    lines += [
        f"| {method} | {row['main']:.2f} | {row['nll']:.2f} | {row['rows']:.0f} |"
        for method, row in average_ranks(results).iterrows()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="directory of the suite")
    results = pd.read_parquet(parser.parse_args().run / "results.parquet")
    print(verdict(results), ranks_table(results), sep="\n\n", end="\n\n")
    print(methods_table(results, ("accuracy", "nmse")), end="\n\n")
    print(methods_table(results, ("nll",)), end="\n\n")


if __name__ == "__main__":
    main()
