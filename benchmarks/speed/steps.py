"""A method's training step, as `fit` runs it, and its floor on the same rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.speed.floors import latent_floor, linear_floor
from benchmarks.speed.problems import Shapes, random_rows
from pyro_vmtl import MeanFieldELBO, TaskData, attend
from pyro_vmtl.handlers.isolation import validation
from pyro_vmtl.inference.step import Step, can_be_recorded
from pyro_vmtl.methods.preset import Preset

__all__ = ["Prepared", "prepare"]

WARM_UP = 12


@dataclass(frozen=True)
class Prepared:
    """A training step and its floor.

    Attributes
    ----------
    step
        runs one training step, gradients and update.
    of
        computes loss and gradients only.
    floor
        the floor's training step.
    data
        the rows.
    """

    step: Callable[[], Tensor]
    of: Step
    floor: Callable[[], Tensor]
    data: TaskData


def prepare(preset: Preset, shapes: Shapes, device: str = "cpu") -> Prepared:
    """Draw rows, make the programs, and run the first steps.

    Parameters
    ----------
    preset
        The method. With D in the shapes it must have representations, whose size becomes D.
    shapes
        Sizes of the problem. Every step uses all rows.
    device
        Device of the data and the programs.
    """
    if (shapes.D is None) != (preset.latent_size is None):
        raise ValueError(f"Latent size is {shapes.D} in {shapes}, but {preset.latent_size} there.")
    torch.manual_seed(0)
    data = random_rows(shapes).to(device)
    if shapes.D is None:
        data = data.with_intercept()
    else:
        data, preset = attend(data), replace(preset, latent_size=shapes.D)
    model, guide = (program.to(device) for program in preset.programs(data))
    elbo = MeanFieldELBO(preset.num_particles, num_draws=preset.num_draws)
    loss_of = elbo(model, guide)
    loss_of.train()
    loss_of(data)
    of = Step(loss_of, (data,), tasks=preset.fitting.get("tasks"))
    optimizer = torch.optim.Adam(of.parameters, lr=0.01, fused=True)
    steps = 0

    def step() -> Tensor:
        nonlocal steps
        of.at_step(steps)
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        with validation(False):
            loss, _ = of()
        if loss.device.type == "cpu" and not torch.isfinite(loss):
            raise FloatingPointError(f"The loss is {loss.item()} at step {steps}.")
        optimizer.step()
        steps += 1
        return loss

    step()
    of.choose_precision()
    of.recording = can_be_recorded(loss_of)
    rows = {"x": data.x, "y": data.y}
    if shapes.D is not None:
        rows["counterparts"] = data.attended.of(data.row)[0]
    floor = (linear_floor if shapes.D is None else latent_floor)(shapes, rows)
    for _ in range(WARM_UP):
        step()
        floor()
    return Prepared(step, of, floor, data)
