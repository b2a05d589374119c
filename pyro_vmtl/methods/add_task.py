"""Adding a task to a fit: its own numbers are learned, all others stay as they are.

The programs are made anew for one task more, and take over what was learned. Then they are fitted
on rows of the new task alone, whose sources are all tasks, with gradients for its numbers only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import repeat

import torch
from torch import Tensor, nn

from pyro_vmtl.data.folds import folds
from pyro_vmtl.data.one_task import as_last_task
from pyro_vmtl.data.task_batches import Part, TaskBatches
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.inference.elbo import MeanFieldELBO
from pyro_vmtl.inference.initialization import counts_start
from pyro_vmtl.inference.svi import fit
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.held_out import HeldOut, of_rows
from pyro_vmtl.methods.stack import FittedStack
from pyro_vmtl.methods.stacking_weights import PRIOR_ROWS
from pyro_vmtl.models import LinearCounts
from pyro_vmtl.models.task_noise import TaskNoise
from pyro_vmtl.sharing.sources import Sources

__all__ = ["add_task"]

NUM_FOLDS = 3

ABSENT = -30.0
"""Logit of a source that was not there when a task was fitted: it has no weight."""


def add_task(
    fitted: Fitted | FittedStack, rows: TaskData, *, seed: int = 0
) -> Fitted | FittedStack:
    """Add a task to a fit, without fitting the others again.

    Parameters
    ----------
    fitted
        A fitted linear preset, or a stack of such. It stays as it is.
    rows
        Rows of the new task with their targets: one task, (1, N).
    seed
        Seed of the fit.

    Returns
    -------
    Fitted or FittedStack
        The same with T + 1 tasks, the new one last. What was learned of the old ones stays as it
        is, and the new one is no source of theirs; the anchor of their base becomes 1 / (T + 1).

    Raises
    ------
    ValueError
        If a preset has representations or amortised coefficients.

    Notes
    -----
    With fewer than 20 rows its noise is the mean of the others', and the members of a stack have
    the weights of new tasks; with more, both are learned from its own rows.

    Examples
    --------
    >>> from pyro_vmtl.methods.preset import Preset
    >>> X = torch.linspace(-1, 1, 24)[:, None]
    >>> data = TaskData.regression(X, X[:, 0], ["a", "b"] * 12).with_intercept()
    >>> new = TaskData.regression([[0.5], [1.0]], [0.5, 1.0], ["c", "c"]).with_intercept()
    >>> fitted = Preset(fitting={"num_steps": 20}).fit(data)  # few, to be quick here
    >>> add_task(fitted, new).num_tasks
    3
    """
    few = bool(rows.mask.sum() < PRIOR_ROWS)
    if isinstance(fitted, Fitted):
        return _extend(fitted, rows, seed, few=few)
    members = {n: _extend(member, rows, seed, few=few) for n, member in fitted.members.items()}
    weights = torch.cat([fitted.weights, _weights(fitted, rows, seed)[None]])
    return replace(fitted, members=members, weights=weights)


def _weights(fitted: FittedStack, rows: TaskData, seed: int) -> Tensor:
    """Weigh the members for a new task, by its own rows where there are enough, (M,)."""
    if rows.mask.sum() < PRIOR_ROWS:
        return fitted.new_task_weights
    parts = []
    for train, held in folds(rows, NUM_FOLDS, seed=seed):
        wide = as_last_task(held, len(fitted.weights))
        draws = {
            name: of_rows(_extend(member, train, seed, few=False).draws(wide, seed=seed), wide.mask)
            for name, member in fitted.members.items()
        }
        parts.append(HeldOut.of_new_task(draws, wide))
    held_out = HeldOut.joined(parts)
    assert held_out is not None
    prior = fitted.new_task_weights
    return held_out.member_weights(fitted.calibrations, prior_mean=prior)[0]


def _extend(fitted: Fitted, rows: TaskData, seed: int, *, few: bool) -> Fitted:
    """Fit one task more; with few rows, its noise is that of the others."""
    preset, num_tasks = fitted.preset, fitted.num_tasks
    if preset.latent_size is not None or preset.amortized:
        raise ValueError(
            f"Adding a task needs a linear preset such as 'shared', found one with latent_size "
            f"{preset.latent_size}. Fit again with rows of that task."
        )
    if preset.pooled:
        return replace(fitted, num_tasks=num_tasks + 1)
    wide = as_last_task(rows, num_tasks)
    with isolated(seed):
        model, guide = (program.to(rows.x.device) for program in preset.programs(wide))
        guide(wide)  # makes the lazy parameters, and notes where the posteriors start
    new = nn.ModuleDict({"model": model, "guide": guide})
    old = nn.ModuleDict({"model": fitted.model, "guide": fitted.guide})
    if preset.counts:
        new["model"].load_state_dict(
            {n: v for n, v in old["model"].state_dict().items() if n.endswith("log_rate")},
            strict=False,
        )
        _start_counts(new, rows, preset.last_kl_weight())
    _take_over(new, old)
    with isolated(seed), torch.no_grad():
        guide(wide)  # notes the posteriors that were taken over
    starts = [sources.start for sources in _sources(new)]
    for sources in _sources(new):
        sources.begin()  # where the weights of the new task start
        sources.start = "even"
    _take_over_weights(new, old)
    # a decay would be one of all tasks
    others = ("tasks", "batches", "weight_decay")
    settings = {k: v for k, v in preset.fitting.items() if k not in others}
    with _only_last_learns(new, old, but=("raw_noise_scale",) if few else ()):
        elbo = MeanFieldELBO(preset.num_particles, num_draws=preset.num_draws)
        only = _only(num_tasks)
        result = fit(model, guide, wide, elbo=elbo, tasks=only, seed=seed, **settings)
    _take_over_weights(new, old)  # candidates may have been looked up
    for sources, start in zip(_sources(new), starts, strict=True):
        sources.start = start
    return Fitted(preset, model, guide, result, num_tasks + 1)


def _only(task: int) -> TaskBatches:
    """Give the parts of steps that are on one task only."""
    return lambda data: repeat([Part(torch.tensor([task], device=data.x.device), data.num_rows)])


@torch.no_grad()
def _take_over(new: nn.Module, old: nn.Module) -> None:
    """Copy what was learned of T tasks, and of all, into programs of T + 1."""
    numbers = dict(old.state_dict())
    for name, value in new.state_dict().items():  # these are the numbers themselves, no copies
        learned = numbers[name]
        if value.shape == learned.shape:
            value.copy_(learned)
        elif value.shape[1:] == learned.shape[1:]:
            value[:-1] = learned
            if name.endswith("raw_transfer_scale"):
                value[-1] = learned.mean(0)  # there is no better guess
    noises = [[m for m in part.modules() if isinstance(m, TaskNoise)] for part in (new, old)]
    for noise, before in zip(*noises, strict=True):
        if len(noise.raw_noise_scale) > len(before.raw_noise_scale):
            log_scale = before.log_noise_scale
            noise.fix_log_noise_scale(torch.cat([log_scale, log_scale.mean(0, keepdim=True)]))
    for module in new.modules():
        if isinstance(module, MeanFieldNormal):
            for site, common in module.raw_common_scales.items():
                module.raw_scales[site][-1] -= common  # the new task's widths start as they were


@torch.no_grad()
def _start_counts(new: nn.Module, rows: TaskData, kl_weight: float) -> None:
    """Start at the rows of the new task, relative to the usual rate of the old ones."""
    (model,) = (module for module in new.modules() if isinstance(module, LinearCounts))
    loc, scale = counts_start(rows, kl_weight=kl_weight, log_rate=model.log_rate.item())
    (guide,) = (module for module in new.modules() if isinstance(module, MeanFieldNormal))
    guide.locs["w"][-1], guide.raw_scales["w"][-1] = loc, scale.log()


@torch.no_grad()
def _take_over_weights(new: nn.Module, old: nn.Module) -> None:
    """Copy the source weights of T tasks: the new one is no source of theirs."""
    for grown, learned in zip(_sources(new), _sources(old), strict=True):
        size = learned.logits.shape[1] - learned.base
        more = grown.logits.shape[1] - learned.logits.shape[1]
        grown.logits[:-1, :size] = learned.logits[:, :size]
        grown.logits[:-1, size : size + more] = ABSENT
        grown.logits[:-1, size + more :] = learned.logits[:, size:]
        if grown.candidates is not None and learned.candidates is not None:
            grown.candidates[:-1, :size] = learned.candidates
            grown.candidates[:-1, size:] = len(learned.candidates)


@contextmanager
def _only_last_learns(
    new: nn.Module, old: nn.Module, *, but: tuple[str, ...] = ()
) -> Iterator[None]:
    """Hold all numbers but those of the last task, and of these some."""
    learned = dict(old.named_parameters())
    held: list[Tensor] = []
    hooks = []
    for name, parameter in new.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.shape != learned[name].shape and not name.endswith(but):
            hooks.append(parameter.register_hook(_of_last))
        else:
            held.append(parameter.requires_grad_(False))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for number in held:
            number.requires_grad_(True)


def _of_last(gradient: Tensor) -> Tensor:
    """Leave out the gradient of all tasks but the last."""
    return torch.cat([torch.zeros_like(gradient[:-1]), gradient[-1:]])


def _sources(module: nn.Module) -> list[Sources]:
    return [part for part in module.modules() if isinstance(part, Sources)]
