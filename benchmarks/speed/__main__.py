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
        str, typer.Option(help="Presets to measure, with commas between.")
    ] = "shared,vmtl",
    json_path: Annotated[
        Path | None, typer.Option("--json", help="File for all measurements.")
    ] = None,
    tables: Annotated[Path | None, typer.Option(help="File for tables in Markdown.")] = None,
    picture: Annotated[Path | None, typer.Option(help="File for the picture of growth.")] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu or cuda.")] = "cpu",
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny problems and few steps: does it work?")
    ] = False,
) -> None:
    """Measure training steps against their floor, a loop, memory, whole fits and imports."""
    known = presets("classification")
    chosen = {}
    for name in methods.split(","):
        preset = known[name]
        if not isinstance(preset, Preset):
            raise typer.BadParameter(f"{name} is a stack of presets. Measure these.")
        chosen[name] = preset
    results: dict[str, Any] = {"machine": machine(), "step": [], "loop": [], "growth": []}
    results |= {"padding": [], "memory": [], "wall": []}

    def note(kind: str, method: str, row: dict[str, Any]) -> None:
        results[kind].append({"method": method, **row})
        print(kind, method, row, file=sys.stderr, flush=True)

    for method, preset in chosen.items():
        for row in suite.steps(preset, device=device, quick=quick):
            note("step", method, row)
        for row in suite.growth(preset, device=device, quick=quick):
            note("growth", method, row)
        if method == "shared":  # the loop is written for its objective
            note("loop", method, suite.loop(preset, quick=quick))
        if preset.latent_size is None:
            note("padding", method, suite.padding(preset, quick=quick))
            for row in suite.memory(preset, quick=quick):
                note("memory", method, row)
            settings = {"num_steps": 20} if quick else {}
            for name in ["digits"] if quick else GOALS:
                row = wall_time(name, method, **settings)
                if row is not None:
                    note("wall", method, row)
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
