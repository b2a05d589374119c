"""Checks of what programs sample and where, and of what they keep between runs."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from torch import nn

from pyro_vmtl.data.plates import DATA_PLATE, TASK_PLATE
from pyro_vmtl.data.row_batches import RandomRows
from pyro_vmtl.handlers.isolation import isolated, validation
from pyro_vmtl.handlers.program_handler import unwrap
from pyro_vmtl.handlers.tracing import sample_sites, trace_guide_and_model
from pyro_vmtl.inference.elbo import MeanFieldELBO, evaluate
from pyro_vmtl.inference.step import Step, can_be_recorded
from pyro_vmtl.inference.svi import fit
from pyro_vmtl.predictive.posterior_predictive import log_predictive_density
from pyro_vmtl.testing.variant import Variant

__all__ = [
    "check_parameters_of_all_rows",
    "check_plates_and_shapes",
    "check_repeated_runs",
    "check_same_sites",
    "check_side_by_side",
]

FEW_STEPS = 5


def check_same_sites(variant: Variant) -> None:
    """Check that model and guide have the same latent sites, and that the targets are observed.

    A latent site that the guide lacks is drawn from its prior at every step: nothing is learned
    about it, and Pyro's plain ELBO says nothing.
    """
    name = "check_same_sites"
    model, guide = variant.programs()
    try:
        with isolated(0), torch.no_grad():
            traces = trace_guide_and_model(model, guide, variant.data)
    except Exception:  # programs that do not run are reported by the next check
        return
    in_model, in_guide = (sample_sites(trace) for trace in traces)
    latent = {site for site, node in in_model.items() if not node["is_observed"]}
    own = {site for site, node in in_guide.items() if not node["infer"].get("is_auxiliary")}
    for site in sorted(latent - own):
        raise variant.fails(
            name,
            f"site {site!r} is in the model and not in the guide, which has {sorted(own)}.",
            f"Sample {site!r} in the guide, too, or observe it in the model: obs=data.y.",
            site,
        )
    for site in sorted(own - latent):
        raise variant.fails(
            name,
            f"site {site!r} is in the guide and not among the model's {sorted(latent)}.",
            "Sample it in the model under the same name, or remove it.",
        )
    if variant.site not in in_model:
        raise variant.fails(
            name,
            f"there is no observed site {variant.site!r}, found {sorted(in_model)}.",
            f"pyro.sample({variant.site!r}, ..., obs=data.y), or pass `site=`.",
        )


def check_plates_and_shapes(variant: Variant) -> None:
    """Check that sites have the shapes of their plates, also under many draws.

    A wrong shape is broadcast in silence: coefficients that belong to one task are used for all,
    or a log density is counted T times.
    """
    name = "check_plates_and_shapes"
    model, guide = variant.programs()
    data, site = variant.data, variant.site
    change = (
        f"Sample inside `{TASKS}`, rows inside `{DATA}`; all other dimensions are events: "
        "`.to_event(...)`."
    )
    doing = "model and guide do not run"
    with isolated(0), torch.no_grad(), variant.errors_of(name, doing, change):
        traces = trace_guide_and_model(model, guide, data)
    nodes = sample_sites(traces.model)
    expected = {TASK_PLATE: (data.num_tasks, -2), DATA_PLATE: (data.num_rows, -1)}
    frames = {f.name: (f.size, f.dim) for f in nodes[site]["cond_indep_stack"] if f.vectorized}
    for plate, (size, dim) in expected.items():
        if frames.get(plate) != (size, dim):
            raise variant.fails(
                name,
                f"site {site!r} is in the plates (size, dimension) {frames}, expected {expected}.",
                f"with pyro.plate({plate!r}, {SIZES[plate]}, dim={dim}):",
                site,
            )
    for where, trace in (("model", traces.model), ("guide", traces.guide)):
        for one, node in sample_sites(trace).items():
            inside = {f.dim: f.size for f in node["cond_indep_stack"] if f.vectorized}
            shape = tuple(node["fn"].batch_shape)
            allowed = tuple(inside.get(dim, 1) for dim in range(-max(2, len(shape)), 0))
            if len(shape) > len(allowed) or any(
                size not in (1, most)
                for size, most in zip(shape[::-1], allowed[::-1], strict=False)
            ):
                raise variant.fails(
                    name,
                    f"site {one!r} has batch shape {shape} in the {where}, expected {allowed}, the "
                    "sizes of its plates.",
                    f"pyro.sample({one!r}, dist.Normal(...).to_event(1)): numbers of one task are "
                    "an event.",
                    one,
                )
    with isolated(0), torch.no_grad(), validation(True), variant.errors_of(name, doing, change):
        evaluate(MeanFieldELBO(), model, guide, data)
        with pyro.plate("draws", 3, dim=-3):
            many = sample_sites(trace_guide_and_model(model, guide, data).model)
    shape = tuple(many[site]["fn"].log_prob(many[site]["value"]).shape)
    if shape[-2:] != (data.num_tasks, data.num_rows):
        raise variant.fails(
            name,
            f"under 3 draws the log density of {site!r} has shape {shape}, expected "
            f"{(3, data.num_tasks, data.num_rows)}.",
            "Count dimensions from the right: `w[..., 0]`, `.squeeze(-1)`, `x @ w.mT`.",
            site,
        )


TASKS = "with pyro.plate('task', data.num_tasks, dim=-2):"
DATA = "with pyro.plate('data', data.num_rows, dim=-1), poutine.mask(mask=data.mask):"
SIZES = {TASK_PLATE: "data.num_tasks", DATA_PLATE: "data.num_rows"}


def check_repeated_runs(variant: Variant) -> None:
    """Check that runs with the same parameters and seed have the same loss, bit for bit.

    A program that counts its steps, or keeps what it has seen, has another loss at every run: a
    fit that is resumed, recorded or repeated then ends elsewhere.
    """
    name = "check_repeated_runs"
    model, guide, data = variant.ready(double=False)
    loss_of = MeanFieldELBO()(model, guide).train()
    losses = []
    for _ in range(4):
        with isolated(0), validation(False):
            losses.append(loss_of(data).item())
    if len(set(losses)) > 1:
        raise variant.fails(
            name,
            f"four runs with the same numbers and seed have the losses {losses}.",
            "Keep no counters and no results in the program. What changes during a fit is a "
            "schedule: share(temperature=...), temper(kl_weights=...).",
        )
    if not can_be_recorded(loss_of):
        return
    change = "Remove `fixed_graph = True`: the program does not do the same at every step."
    for seed in (1, 2):
        found = []
        for recording in (False, True):
            step = Step(loss_of, (data,))
            step.recording = recording
            with isolated(0), validation(False), variant.errors_of(name, RECORDING, change):
                step()
                torch.manual_seed(seed)
                found.append(float(step()[0]))
        if found[0] != found[1]:
            raise variant.fails(
                name,
                f"a step has the loss {found[0]}, and replayed from a recording {found[1]}.",
                change,
            )


RECORDING = "a step cannot be recorded"


def check_parameters_of_all_rows(variant: Variant) -> None:
    """Check that parameters have the same shapes, whatever rows the programs run on first.

    Parameters with the size of a batch, or of one part of the tasks, fail at the next batch, or
    are used for rows that they were not learned on.
    """
    name = "check_parameters_of_all_rows"
    change = "Make parameters for all tasks, none for rows: torch.zeros(data.num_tasks, 1, ...)."
    shapes = []
    for size in (variant.data.num_rows, max(1, variant.data.num_rows // 2)):
        model, guide = variant.programs()
        with isolated(0), torch.no_grad():
            rows, _ = RandomRows(size)(variant.data)
            doing = f"the programs do not run on {size} of {variant.data.num_rows} rows"
            with variant.errors_of(name, doing, change):
                trace_guide_and_model(model, guide, rows)
        shapes.append(_shapes(model) | _shapes(guide))
    for parameter in {**shapes[0], **shapes[1]}:
        first, second = (found.get(parameter) for found in shapes)
        if first != second:
            raise variant.fails(
                name,
                f"parameter {parameter} has shape {first} after a run on all rows, {second} after "
                f"one on {size} of a task.",
                change,
            )


def _shapes(program: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in program.named_parameters()}


def check_side_by_side(variant: Variant) -> None:
    """Check that two instances in one process share nothing, and leave global state alone.

    Parameters in Pyro's global store, in a class or in a module are found by name: the second
    model then predicts with the numbers of the first.
    """
    name = "check_side_by_side"
    change = (
        "Make the numbers in the function that returns model and guide, as nn.Parameter of a "
        "module of its own; no bare pyro.param, no names of a class or a file."
    )
    store = pyro.get_param_store()
    predictions: list[Any] = []
    for first_another in (False, True):
        with store.scope():
            if first_another:
                other = variant.programs(seed=1)
                with variant.errors_of(name, "a fit fails", change):
                    fit(*other, variant.data, num_steps=FEW_STEPS, seed=1)
            before = set(store.keys())
            model, guide = variant.programs()
            with variant.errors_of(name, "a fit fails", change):
                fit(model, guide, variant.data, num_steps=FEW_STEPS)
            if first_another:  # goes on, between fit and prediction
                fit(*other, variant.data, num_steps=FEW_STEPS, seed=2)
            predictions.append(
                log_predictive_density(
                    *(unwrap(model), unwrap(guide), variant.data), site=variant.site, num_samples=5
                )
            )
            left = set(store.keys()) - before
        if left:
            raise variant.fails(name, f"a fit left {sorted(left)} in Pyro's store.", change)
    if not torch.equal(*predictions):
        raise variant.fails(
            name,
            "log densities of the rows differ by up to "
            f"{float((predictions[0] - predictions[1]).abs().max()):.3g} when another instance is "
            "fitted in the same process.",
            change,
        )
