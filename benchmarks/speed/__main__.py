"""Measure: ``python -m benchmarks.speed --json speed.json --tables speed.md``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.speed import report, suite
from benchmarks.speed.timing import machine
from benchmarks.speed.walls import GOALS, wall_time
from pyro_vmtl.methods.preset import Preset
from pyro_vmtl.methods.presets import presets


def main(
    methods: Annotated[
        str, typer.Option(help="Comma-separated presets to measure.")
    ] = "shared,vmtl",
    json_path: Annotated[
        Path | None, typer.Option("--json", help="JSON file for all measurements.")
    ] = None,
    tables: Annotated[Path | None, typer.Option(help="Markdown file for the tables.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Image file for the plot of growth.")] = None,
    device: Annotated[str, typer.Option(help="Device to compute on: cpu or cuda.")] = "cpu",
    quick: Annotated[
        bool, typer.Option("--quick", help="Use tiny problems and few steps, as a smoke test.")
    ] = False,
) -> None:
    """Measure training steps against their floors, a loop, memory, complete fits and imports."""
    known = presets("classification")
    chosen = {}
    for name in methods.split(","):
        preset = getattr(known[name], "many_features", known[name])
        if not isinstance(preset, Preset):
            raise typer.BadParameter(f"{name} is a stack. Measure its members.")
        chosen[name] = preset
    results: dict[str, Any] = {"machine": machine(), "step": [], "loop": [], "growth": []}
    results |= {"padding": [], "memory": [], "wall": []}

    def record(kind: str, method: str, row: dict[str, Any]) -> None:
        results[kind].append({"method": method, **row})
        print(kind, method, row, file=sys.stderr, flush=True)

    for method, preset in chosen.items():
        for row in suite.steps(preset, device=device, quick=quick):
            record("step", method, row)
        for row in suite.growth(preset, device=device, quick=quick):
            record("growth", method, row)
        if method == "shared":  # the loop is written for its objective
            record("loop", method, suite.loop(preset, quick=quick))
        if preset.latent_size is None:
            record("padding", method, suite.padding(preset, quick=quick))
            for row in suite.memory(preset, quick=quick):
                record("memory", method, row)
            settings = {"num_steps": 20} if quick else {}
            for name in ["digits"] if quick else GOALS:
                row = wall_time(name, method, **settings)
                if row is not None:
                    record("wall", method, row)
    results["imports"] = {} if quick else suite.imports()
    if json_path is not None:
        json_path.write_text(json.dumps(results, indent=1))
    if picture is not None:
        report.plot_growth(results["growth"], picture)
    text = report.tables(results)
    if tables is not None:
        tables.write_text(text)
    print(text)


if __name__ == "__main__":
    typer.run(main)
