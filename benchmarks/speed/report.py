"""Format the measurements as tables and a figure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from benchmarks.markdown import markdown

__all__ = ["plot_growth", "tables"]

LETTERS = {
    "T": "T, tasks",
    "N": "N, rows per task",
    "F": "F, features",
    "C": "C, classes",
    "D": "D, latent size",
}


def tables(results: dict[str, Any]) -> str:
    """Format the measurements as Markdown tables."""
    parts = [
        _table(
            "Step against its floor",
            ["method", "problem", "step ms", "floor ms", "ratio", "range", "goal"],
            (
                [
                    row["method"],
                    row["name"],
                    f"{row['step_ms']:.2f}",
                    f"{row['floor_ms']:.2f}",
                    f"**{row['ratio_to_floor']:.2f}**",
                    f"{row['low']:.2f} to {row['high']:.2f}",
                    _goal(row["goal"], "at most {:g}"),
                ]
                for row in results["step"]
            ),
        ),
        _table(
            "Step against a loop over tasks and sources",
            ["problem", "loop ms", "step ms", "times faster", "goal", "losses differ by"],
            (
                [
                    row["name"],
                    f"{row['loop_ms']:.0f}",
                    f"{row['step_ms']:.2f}",
                    f"**{row['times_faster']:.0f}**",
                    _goal(row["goal"], "at least {:g}"),
                    f"{row['relative_difference_of_losses']:.0e}",
                ]
                for row in results["loop"]
            ),
        ),
        _table(
            "Very unequal tasks: all padded to the longest, or in blocks of like size",
            ["problem", "places / rows", "padded ms", "in blocks ms", "times faster"],
            (
                [
                    row["name"],
                    f"{row['padding']:.1f}",
                    f"{row['padded_ms']:.1f}",
                    f"{row['blocks_ms']:.1f}",
                    f"**{row['times_faster']:.1f}**",
                ]
                for row in results["padding"]
            ),
        ),
        _table(
            "Memory of the step of `shared`, with parameters, optimiser and data",
            ["problem", "MiB", "times parameters + data + T²", "times the first"],
            (
                [
                    row["name"],
                    f"{row['peak_bytes'] / 2**20:.1f}",
                    f"{row['times_parameters_data_and_pairs']:.1f}",
                    f"{row['peak_bytes'] / results['memory'][0]['peak_bytes']:.1f}",
                ]
                for row in results["memory"]
            ),
        ),
        _table(
            "Whole fits of `shared`, on validation splits",
            ["data", "fit s", "s to 99 % of the score", "steps", "score (nats a row)", "goal s"],
            (
                [
                    row["name"],
                    f"{row['seconds']:.1f}",
                    f"{row['seconds_to_99']:.1f}",
                    str(row["steps"]),
                    f"{row['score']:.3f}",
                    _goal(row["goal"], "{:g}"),
                ]
                for row in results["wall"]
            ),
        ),
        _table(
            "Imports in a fresh process",
            ["what", "s"],
            ([name.replace("_", " "), f"{s:.2f}"] for name, s in results["imports"].items()),
        ),
    ]
    return "\n".join(parts)


def plot_growth(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot step and floor against each size, on logarithmic axes."""
    letters = list(dict.fromkeys(row["size"] for row in rows))
    columns = min(len(letters), 3)
    lines = -(-len(letters) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.9 * lines), layout="tight")
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for ax in axes.flat[len(letters) :]:
        ax.set_visible(False)
    for ax, letter in zip(axes.flat, letters, strict=False):
        chosen = [row for row in rows if row["size"] == letter]
        values = [row["value"] for row in chosen]
        ax.plot(values, [row["step_ms"] for row in chosen], "o-", color="#0072b2", label="step")
        ax.plot(values, [row["floor_ms"] for row in chosen], "s--", color="#d55e00", label="floor")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(values, [str(value) for value in values])
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_formatter(ScalarFormatter())
        ax.set_xlabel(f"{LETTERS[letter]} ({chosen[0]['method']})")
        ax.grid(alpha=0.3)
    for ax in axes[:, 0]:
        ax.set_ylabel("one training step (ms)")
    axes[0, 0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def _goal(goal: float | None, form: str) -> str:
    return "–" if goal is None else form.format(goal)


def _table(title: str, columns: list[str], rows: Iterable[list[str]]) -> str:
    return f"## {title}\n\n{markdown(columns, rows)}\n"
