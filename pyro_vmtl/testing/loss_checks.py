"""Checks of the loss: what it may depend on, and what must leave it as it is.

All compare ELBOs without draws (:class:`~pyro_vmtl.testing.site_messengers.AtLocations`), in double
precision. They may differ by rounding: ``ROUNDING`` of the sum of the terms' magnitudes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn import functional

from pyro_vmtl.data.row_batches import Batches
from pyro_vmtl.data.task_batches import Part, first_rows
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import evaluating, isolated, validation
from pyro_vmtl.handlers.program_handler import unwrap
from pyro_vmtl.handlers.tracing import sample_sites
from pyro_vmtl.inference.elbo import ELBOTerms
from pyro_vmtl.sharing.messengers import Sharing
from pyro_vmtl.testing.site_messengers import AtLocations
from pyro_vmtl.testing.structure_checks import DATA
from pyro_vmtl.testing.variant import NotApplicable, Variant, VariantError, refused

__all__ = [
    "check_batches",
    "check_gradients",
    "check_padding",
    "check_permuted_tasks",
    "check_row_weights",
    "check_task_blocks",
]

ROUNDING = 1e-9
STEP = 1e-5
"""Step of finite differences, whose error is about its square."""


def check_padding(variant: Variant) -> None:
    """Check that padded rows change nothing.

    Tasks have different numbers of rows and are padded to the longest. A model that does not mask
    them learns from rows of zeros that nobody has observed.
    """
    model, guide, data = variant.ready()
    change = f"Mask padded rows: `{DATA}`. Sums and means of the rows leave them out, too."
    with variant.errors_of("check_padding", "more padding makes the programs fail", change):
        before = variant.terms(model, guide, data)
        after = variant.terms(model, guide, _padded(data, 3))
    _compare(variant, "check_padding", before, after, "with 3 padded rows more", change)


def check_batches(variant: Variant) -> None:
    """Check that the mean ELBO of batches is that of all rows.

    Rows of a batch stand for all rows of their task, which `fit` sees to in the plate ``data``.
    With a likelihood outside of it, or scaled once more, the prior counts too much or too little.
    """
    model, guide, data = variant.ready()
    change = f"Sample rows inside `{DATA}`, and scale nothing yourself: fit does."
    with variant.errors_of("check_batches", "the programs do not run on batches", change):
        whole = variant.terms(model, guide, data)
        halves = [variant.terms(model, guide, data, batches=_every_other(i)) for i in (0, 1)]
    mean = _add(*halves) * 0.5
    _compare(variant, "check_batches", whole, mean, "as the mean of two half batches", change)


def check_row_weights(variant: Variant) -> None:
    """Check that every row twice, at half the weight, is the same as every row once.

    Rows may have weights (``TaskData.regression(..., sample_weight=)``). A model that sums or
    averages rows by itself forgets them.
    """
    model, guide, data = variant.ready()
    change = f"Sample rows inside `{DATA}`, where their weights are applied."
    weight = data.mask.to(data.x) if data.weight is None else data.weight
    twice = data.map_rows(lambda values: torch.cat([values, values], dim=1))
    twice = replace(twice, weight=torch.cat([weight, weight], dim=1) / 2)
    with variant.errors_of("check_row_weights", "the programs do not run on more rows", change):
        before = variant.terms(model, guide, data)
        after = variant.terms(model, guide, twice)
    _compare(variant, "check_row_weights", before, after, "with rows twice at half weight", change)


def check_task_blocks(variant: Variant) -> None:
    """Check that the ELBOs of blocks of tasks add up to that of all tasks.

    ``fit(tasks=TaskBlocks(...))`` runs the programs on some of the tasks at a time. Programs that
    cannot do that may refuse; those that run have to select their part of what exists for every
    task.
    """
    model, guide, data = variant.ready()
    model, guide = unwrap(model), unwrap(guide)
    change = "Select by `pyro.subsample(values, event_dim=...)` or `subsample_tasks(data)`."
    whole = variant.terms(model, guide, data)
    num = data.num_tasks
    for blocks in ([[*range(num - 1)], [num - 1]], [[task] for task in range(num)]):
        found: list[ELBOTerms] = []
        for tasks in blocks:
            part = Part(torch.tensor(tasks), data.num_rows)
            rows = first_rows(data, part.num_rows)
            with refused("The programs do not run on some of the tasks"):
                terms = variant.terms(model, guide, rows, tasks=part.tasks)
            found.append(terms * (len(tasks) / num))
        _compare(
            *(variant, "check_task_blocks", whole, _add(*found)),
            *(f"in blocks of {[len(tasks) for tasks in blocks]} tasks", change),
        )


def check_permuted_tasks(variant: Variant) -> None:
    """Check that tasks in another order have the same terms, in that order.

    Tasks have no order. A model in which the first has a role of its own, or reads the rows or
    coefficients of another, is caught. What is known of single tasks belongs into columns of the
    rows.
    """
    name = "check_permuted_tasks"
    change = "Treat all tasks alike: no index of a task, no cumulative sum or reversal over them."
    programs = variant.ready()
    model, guide, data = unwrap(programs[0]), unwrap(programs[1]), programs[2]
    order = torch.arange(data.num_tasks).roll(1)
    permuted = data.map_rows(lambda values: values[order])
    labels = tuple(data.task_labels[int(task)] for task in order)
    permuted = replace(permuted, task_labels=labels, attended=None)
    located = _located(guide, data)
    values = located.values
    shuffled = {
        site: _permute(value, located.task_dims[site], order)
        if site in located.task_dims
        else value
        for site, value in values.items()
    }
    _make_tasks_alike(model, data.num_tasks)
    terms = [
        _log_densities(model, rows, given) for rows, given in ((data, values), (permuted, shuffled))
    ]
    for site, before in terms[0].items():
        after = terms[1][site]
        if before.shape[:1] == order.shape:
            before = before[order]
        if not torch.allclose(before, after, rtol=1e-8, atol=1e-8):
            raise variant.fails(
                name,
                f"the log densities of site {site!r} by task are {_short(before)}, and with tasks "
                f"in the order {labels} {_short(after)}.",
                change,
                site,
            )
    _make_tasks_alike(guide, data.num_tasks)
    one, other = _located(guide, data), _located(guide, permuted)
    for site, dim in one.task_dims.items():
        if not torch.allclose(_permute(one.values[site], dim, order), other.values[site]):
            raise variant.fails(
                name, f"the guide's posterior of {site!r} depends on the order of tasks.", change
            )


def check_gradients(variant: Variant) -> None:
    """Check the gradients of all parameters together by finite differences.

    A ``.detach()``, ``.item()`` or ``.data`` in a program, or an operation without gradient, makes
    a fit go in a wrong direction, and stop too early.
    """
    model, guide, data = variant.ready()
    modules = [*model.modules(), *guide.modules()]
    if any(isinstance(module, Sharing) and module.detach_sources for module in modules):
        raise NotApplicable("Sources are detached: steps minimize no single loss.")
    parameters = {
        id(p): (f"{where}.{name}", p)
        for where, program in (("model", model), ("guide", guide))
        for name, p in program.named_parameters()
        if p.requires_grad
    }
    generator = torch.Generator().manual_seed(0)
    loss = variant.terms(model, guide, data).loss
    tensors = [p for _, p in parameters.values()]
    found = torch.autograd.grad(loss, tensors, allow_unused=True)
    for (name, parameter), gradient in zip(parameters.values(), found, strict=True):
        direction = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * STEP * direction)
                losses.append(float(variant.terms(model, guide, data).loss))
                parameter.sub_(sign * STEP * direction)
        expected = (losses[0] - losses[1]) / (2 * STEP)
        slope = 0.0 if gradient is None else float((gradient * direction).sum())
        # rounding of the losses, and the next term of the Taylor series
        tolerance = 1e-4 * max(abs(expected), abs(slope)) + 1e-10 * abs(losses[0]) / STEP
        if abs(slope - expected) > max(tolerance, 1e-6):
            raise VariantError(
                "check_gradients",
                f"along a direction of {name} the loss has the slope {expected:.6g} by finite "
                f"differences and {slope:.6g} by its gradient.",
                "Compute with tensors all the way: no .detach(), .item(), .data, torch.no_grad().",
            )


def _compare(
    variant: Variant, check: str, before: ELBOTerms, after: ELBOTerms, how: str, change: str
) -> None:
    """Check that the terms of two ELBOs are the same, but for rounding."""
    one, other = before.by_name(), after.by_name()
    total = sum(float(values.detach().abs().sum()) for values in one.values())
    for term in sorted({*one, *other}, key=lambda term: term.startswith("kl")):
        first, second = (
            float(terms[term].detach().sum()) if term in terms else 0.0 for terms in (one, other)
        )
        if not abs(first - second) <= ROUNDING * (total + 1):
            kind, _, site = term.partition(".")
            raise variant.fails(
                check,
                f"the {kind} of site {site!r} is {first:.8g}, and {second:.8g} {how}.",
                change,
                site,
            )


def _add(*terms: ELBOTerms) -> ELBOTerms:
    """Add up the terms of ELBOs, over all tasks."""
    kinds: list[dict[str, Tensor]] = [{}, {}]
    for each in terms:
        for total, kind in zip(kinds, (each.log_likelihood, each.kl), strict=True):
            for site, values in kind.items():
                total[site] = total.get(site, torch.zeros(())) + values.sum()
    return ELBOTerms(*kinds)


def _padded(data: TaskData, num: int) -> TaskData:
    """Return the rows with more padding."""

    def pad(values: Tensor) -> Tensor:
        return functional.pad(values, (0, 0) * (values.ndim - 2) + (0, num))

    more = data.map_rows(pad)
    return replace(more, row=more.row.masked_fill(~more.mask, -1))


def _every_other(start: int) -> Batches:
    """Return batches of every other row, each of which counts twice."""

    def batch(data: TaskData) -> tuple[TaskData, Tensor]:
        index = torch.arange(start, data.num_rows, 2).expand(data.num_tasks, -1)
        rows = data.take(index, data.mask.gather(1, index))
        return rows, data.x.new_full((data.num_tasks,), 2.0)

    return batch


def _permute(value: Tensor, dim: int, order: Tensor) -> Tensor:
    """Permute tasks, unless a value broadcasts over them."""
    if -dim > value.ndim or value.shape[dim] == 1:
        return value
    return value.index_select(dim, order)


@torch.no_grad()
def _make_tasks_alike(program: Any, num_tasks: int) -> None:
    """Average parameters over all dimensions that may be tasks, so that no task is special."""
    if not isinstance(program, nn.Module):
        return
    for values in (*program.parameters(), *program.buffers()):
        if values.is_floating_point():
            for dim in range(values.ndim):
                if values.shape[dim] == num_tasks:
                    values.copy_(values.mean(dim, keepdim=True).expand_as(values))


def _located(guide: nn.Module, data: TaskData) -> AtLocations:
    """Run a guide at locations."""
    with isolated(0), validation(False), torch.no_grad(), evaluating(guide), AtLocations() as found:
        guide(data)
    return found


def _log_densities(model: nn.Module, data: TaskData, values: dict[str, Tensor]) -> dict[str, Any]:
    """Return the log density of each site of a model at given values, by task where it has some."""
    with isolated(0), validation(False), torch.no_grad(), evaluating(model):
        trace = poutine.trace(poutine.condition(model, data=values)).get_trace(data)
    trace.compute_log_prob()
    found = {}
    for site, node in sample_sites(trace).items():
        log_prob = node["log_prob"]
        by_task = any(f.name == "task" and f.vectorized for f in node["cond_indep_stack"])
        shape = log_prob.shape
        if by_task and len(shape) > 1:
            log_prob = log_prob.sum(tuple(range(1, len(shape))))
        elif not by_task:
            log_prob = log_prob.sum()
        found[site] = log_prob
    return found


def _short(values: Tensor) -> str:
    return str([round(value, 4) for value in values.flatten().tolist()[:6]])
