"""Markdown tables of benchmarks, for RESULTS.md.

python -m benchmarks.results runs/benchmark-digits runs/benchmark-school
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from benchmarks.comparison import HIGHER_IS_BETTER, summarise

SHOWN = ("accuracy", "rmse", "nmse", "nll", "ece", "coverage_50", "coverage_90")


def table(results: pd.DataFrame) -> str:
    """A row per method: mean ± standard error of each metric, mean ranks, seconds of a fit."""
    summary = summarise(results)
    metrics = [metric for metric in SHOWN if (metric, "mean") in summary]
    first = "accuracy" if "accuracy" in metrics else "nmse"
    lines = [
        f"| method | {' | '.join(metrics)} | rank by {first} | rank by nll | fit s |",
        "|---|" + "---|" * (len(metrics) + 3),
    ]
    for method, row in summary.iterrows():
        cells = [str(method)]
        for metric in metrics:
            mean = f"{row[metric, 'mean']:.3f}"
            column = summary[metric, "mean"] * (1 if HIGHER_IS_BETTER.get(metric) else -1)
            if metric in HIGHER_IS_BETTER and column[method] == column.max():
                mean = f"**{mean}**"
            cells.append(f"{mean} ± {row[metric, 'se']:.3f}")
        cells += [f"{row[first, 'rank']:.1f}", f"{row['nll', 'rank']:.1f}"]
        cells.append(f"{row['seconds', 'mean']:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="directories of benchmarks")
    for run in parser.parse_args().runs:
        results = pd.read_parquet(run / "results.parquet")
        about = json.loads((run / "benchmark.json").read_text())
        splits = results[["split", "seed"]].drop_duplicates()
        seeds = ", ".join(map(str, sorted(splits["seed"])))
        print(f"{about['data']}, splits {seeds}\n\n{table(results)}\n")


if __name__ == "__main__":
    main()
