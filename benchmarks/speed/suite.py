"""The measurements: steps, the loop, growth, memory, and imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from benchmarks.speed.loops import loop_step
from benchmarks.speed.memory import peak_bytes
from benchmarks.speed.problems import Shapes, random_rows, unequal
from benchmarks.speed.steps import prepare
from benchmarks.speed.timing import milliseconds, ratio
from pyro_vmtl import MeanFieldELBO, TaskBlocks
from pyro_vmtl.handlers.isolation import validation
from pyro_vmtl.handlers.schedules import as_schedule
from pyro_vmtl.inference.step import Step
from pyro_vmtl.methods.preset import Preset

__all__ = ["growth", "imports", "loop", "memory", "padding", "steps"]

LINEAR_GOALS = {
    Shapes(T=4): 3.0,
    Shapes(T=64): None,
    Shapes(T=256): 1.5,
    Shapes(T=1024): 1.5,
}
LATENT_GOALS = {
    Shapes(F=4096, D=512): 1.5,
    Shapes(N=260, F=4096, C=65, D=512): 1.5,
}
"""Maximum ratio of a step to its floor; None where no goal was set."""

QUICK = {None: Shapes(T=3, N=5, F=4, C=3), 1: Shapes(T=3, N=5, F=4, C=3, D=2)}

GROWTH = {
    "T": [4, 16, 64, 256, 1024],
    "N": [10, 40, 160, 640],
    "F": [16, 64, 256, 1024],
    "C": [2, 10, 50],
    "D": [8, 32, 128],
}


def steps(preset: Preset, *, device: str, quick: bool) -> Iterator[dict[str, Any]]:
    """Time steps against their floors."""
    latent = preset.latent_size is not None
    goals = LATENT_GOALS if latent else LINEAR_GOALS
    if quick:
        goals = {QUICK[1 if latent else None]: None}
    for shapes, goal in goals.items():
        prepared = prepare(preset, shapes, device)
        measured = ratio(prepared.step, prepared.floor, steps=2 if quick else 20)
        yield {
            "name": str(shapes),
            "ratio_to_floor": measured.median,
            "low": measured.low,
            "high": measured.high,
            "goal": goal,
            "step_ms": measured.first_ms,
            "floor_ms": measured.second_ms,
        }


def loop(preset: Preset, *, quick: bool) -> dict[str, Any] | None:
    """Time a loop over tasks and sources against the step, and compare their losses."""
    weight = as_schedule(preset.kl_weights)(0)  # one for all sites
    shapes = QUICK[None] if quick else Shapes(T=64)
    prepared = prepare(preset, shapes)
    by_loop = loop_step(prepared, weight)
    losses = []
    for step in (prepared.step, by_loop):
        torch.manual_seed(1)
        losses.append(float(step()))
    measured = ratio(by_loop, prepared.step, steps=2 if quick else 5)
    return {
        "name": str(shapes),
        "times_faster": measured.median,
        "goal": None if quick else 30.0,
        "relative_difference_of_losses": abs(losses[0] / losses[1] - 1),
        "loop_ms": measured.first_ms,
        "step_ms": measured.second_ms,
    }


def growth(preset: Preset, *, device: str, quick: bool) -> Iterator[dict[str, Any]]:
    """Time step and floor while one size grows and the others stay fixed."""
    latent = preset.latent_size is not None
    base = Shapes(D=32) if latent else Shapes()
    letters = [letter for letter in GROWTH if (letter == "D") == latent]
    for letter in letters[:1] if quick else letters:
        for size in GROWTH[letter][:1] if quick else GROWTH[letter]:
            prepared = prepare(preset, replace(base, **{letter: size}), device, record=not quick)
            step_ms, floor_ms = milliseconds(
                [prepared.step, prepared.floor], steps=2 if quick else 20
            )
            yield {"size": letter, "value": size, "step_ms": step_ms, "floor_ms": floor_ms}


def padding(preset: Preset, *, quick: bool) -> dict[str, Any]:
    """Time a step on very unequal tasks, all padded to the longest and in blocks of like size."""
    shapes = QUICK[None] if quick else Shapes(T=64, N=5000)
    least = 2 if quick else 10
    data = unequal(random_rows(shapes), least).with_intercept()
    loss_of = MeanFieldELBO()(*preset.programs(data))
    loss_of(data)
    padded, blocks = Step(loss_of, (data,)), Step(loss_of, (data,), tasks=TaskBlocks(512))
    with validation(False):
        for step in (padded, blocks):
            step()
            step.choose_precision()
            step.recording = True
            step()
        measured = ratio(padded, blocks, steps=2 if quick else 10)
    return {
        "name": f"{shapes.T} tasks of {least} to {shapes.N} rows, C={shapes.C}, F={shapes.F}",
        "padded_ms": measured.first_ms,
        "blocks_ms": measured.second_ms,
        "times_faster": measured.median,
        "padding": data.mask.numel() / int(data.mask.sum()),
    }


def memory(preset: Preset, *, quick: bool) -> Iterator[dict[str, Any]]:
    """Measure the peak memory of a step, with parameters, optimizer and data."""
    for num_tasks in (3, 6) if quick else (64, 256, 1024):
        shapes = replace(QUICK[None], T=num_tasks) if quick else Shapes(T=num_tasks)
        prepared = prepare(preset, shapes, record=not quick)
        parameters = sum(p.nbytes for p in prepared.of.parameters)
        rows = prepared.data
        data = sum(v.nbytes for v in (rows.x, rows.y, rows.mask, rows.row))
        for parameter in prepared.of.parameters:
            parameter.grad = None  # as a step does first
        # Adam keeps two numbers for each parameter.
        peak = 3 * parameters + data + peak_bytes(prepared.step)
        yield {
            "name": str(shapes),
            "tasks": num_tasks,
            "peak_bytes": peak,
            "times_parameters_data_and_pairs": peak / (parameters + data + 4 * num_tasks**2),
        }


def imports() -> dict[str, float]:
    """Time imports and ``--help`` in fresh processes, in s: the shortest of five."""
    code = {
        "pyro": "import pyro",
        "pyro_and_pyro_vmtl": "import pyro; from pyro_vmtl import *",
    }
    commands = {name: [sys.executable, "-c", line] for name, line in code.items()}
    show_help = "from pyro_vmtl.cli.main import app; app()"
    commands["help"] = [sys.executable, "-c", show_help, "--help"]
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(5):
        for name, command in commands.items():
            [ms] = milliseconds([lambda c=command: _run(c)], steps=1)
            taken[name].append(ms / 1e3)
    return {name: min(seconds) for name, seconds in taken.items()}


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)
