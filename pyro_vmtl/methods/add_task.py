"""Add a task to a fit: only its own parameters are learned.

The programs are made anew for one more task and take over what was learned. They are then fitted
to the rows of the new task alone, whose sources are all other tasks, with gradients for its own
parameters only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_vmtl.data.folds import folds
from pyro_vmtl.data.limits import exceeds
from pyro_vmtl.data.one_task import as_last_task
from pyro_vmtl.data.plates import TASK_PLATE
from pyro_vmtl.data.task_batches import Part, TaskBatches
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.handlers.program_handler import ProgramWithHandler, unwrap
from pyro_vmtl.inference.svi import fit
from pyro_vmtl.methods.borrowing import Borrowing
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.member import Member
from pyro_vmtl.methods.method import ProgramMethod
from pyro_vmtl.methods.new_task import check_predicts_new_tasks
from pyro_vmtl.methods.out_of_fold import OutOfFold
from pyro_vmtl.methods.source_draws import parts
from pyro_vmtl.methods.stacking_weights import PRIOR_ROWS
from pyro_vmtl.sharing.sources import Sources

__all__ = ["add_task"]

NUM_FOLDS = 3

ABSENT = -30.0
"""Logit of a source that was not there when a task was fitted: it has no weight."""


def add_task(fitted: Fitted, rows: TaskData, *, seed: int = 0) -> Fitted:
    """Add a task to a fit, without fitting the others again.

    Parameters
    ----------
    fitted
        A fit of linear presets, or of programs of your own. It stays as it is.
    rows
        Rows of the new task with their targets: one task, (1, N).
    seed
        Seed of the fit.

    Returns
    -------
    Fitted
        With T + 1 tasks, the new one last. What was learned of the others stays as it is, and the
        new task is no source of theirs; the least weight of their base becomes 1 / (T + 1).

    Raises
    ------
    ValueError
        If a member has representations or amortised coefficients, or a parameter of your own
        programs does not have the tasks along its first dimension.

    Notes
    -----
    Of the parameters, those with a row for each task get one for the new task, which starts as the
    programs make it and is then learned; all else stays. A guide can start it at the rows by a
    method ``start_last_task(start, rows)``, as :class:`~pyro_vmtl.guides.MeanFieldNormal` does.

    With fewer than 20 rows the noise of the new task is the mean of the others', and its members
    have the weights of new tasks; with more, both are learned from its own rows.

    Examples
    --------
    >>> from pyro_vmtl.methods.preset import Preset
    >>> X = torch.linspace(-1, 1, 24)[:, None]
    >>> data = TaskData.regression(X, X[:, 0], ["a", "b"] * 12).with_intercept()
    >>> new = TaskData.regression([[0.5], [1.0]], [0.5, 1.0], ["c", "c"]).with_intercept()
    >>> fitted = Preset(fitting={"num_steps": 20}).fit(data)  # few steps, to be quick here
    >>> add_task(fitted, new).num_tasks
    3
    """
    has_many = bool(rows.mask.sum() >= PRIOR_ROWS)
    members = {
        name: _extend(member, rows, seed, learns_noise=has_many)
        for name, member in fitted.members.items()
    }
    weights = fitted.new_task_weights
    if has_many and len(members) > 1:
        weights = _member_weights(fitted, rows, seed)
    weights = torch.cat([fitted.weights, weights[None]])
    result = fitted.result if len(members) > 1 else next(iter(members.values())).result
    extended = replace(fitted, members=members, weights=weights, result=result, share_draws=None)
    if fitted.share_draws is None or exceeds("TASK_PAIRS", len(weights) ** 2):
        return extended
    # No fit without a fold has the new task: there it borrows as in the one of all rows.
    old = fitted.share_draws
    new = extended.relatedness(num_samples=len(old), seed=seed)[:, -1:]
    wide = torch.cat([old[..., :-1], torch.zeros_like(old[..., :1]), old[..., -1:]], 2)
    shares = torch.cat([wide, new], 1)
    return replace(extended, share_draws=shares)


def _member_weights(fitted: Fitted, rows: TaskData, seed: int) -> Tensor:
    """Weigh the members for a new task by its own rows, (M,)."""
    held_out = []
    for train, held in folds(rows, NUM_FOLDS, seed=seed):
        wide = as_last_task(held, fitted.num_tasks)
        draws = {
            name: _extend(member, train, seed, learns_noise=True).draws(wide, seed=seed)
            for name, member in fitted.members.items()
        }
        held_out.append(OutOfFold.of_rows(draws, wide))
    found = OutOfFold.concat(held_out)
    density = found.log_density(fitted.calibrations)
    return found.weights(density, 1, prior_mean=fitted.new_task_weights)[0]


def _extend(member: Member, rows: TaskData, seed: int, *, learns_noise: bool) -> Member:
    """Fit one more task; its noise is that of the others unless it learns its own."""
    check_predicts_new_tasks(member.method)
    method, num_tasks = member.method, member.num_tasks
    assert isinstance(method, ProgramMethod)
    if method.pooled:
        return replace(member, borrowing=member.borrowing.with_new_task())
    wide = as_last_task(rows, num_tasks)
    with isolated(seed):
        model, guide = method.initial_programs(wide, seed, member)
        guide(wide)  # makes the lazy parameters
    new = nn.ModuleDict({"model": model, "guide": guide})
    old = nn.ModuleDict({"model": member.model, "guide": member.guide})
    _take_over(new, old)
    start = method.start(unwrap(model), rows)
    for part in guide.modules():
        start_last_task: Any = getattr(part, "start_last_task", None)
        if start_last_task is not None:
            start_last_task(start, wide)
    # a decay would be one of all tasks
    settings = method.fit_settings(rows) | {"tasks": None, "batches": None, "weight_decay": 0.0}
    programs = [model, guide]
    if method.subsamples_tasks:
        settings["tasks"] = _only(num_tasks)
    else:
        last = partial(_LastTask, wide)
        programs = [ProgramWithHandler(each, last, nn.Module()) for each in programs]
    with _only_last_learns(new, old, but=() if learns_noise else ("raw_noise_scale",)):
        result = fit(*programs, wide, seed=seed, **settings)
    _take_over_weights(new, old)
    # one row each will do: linear models do not look at rows before the likelihood
    borrowing = Borrowing.of_programs(model, guide, wide, torch.ones(num_tasks + 1))
    return Member(method, model, guide, result, borrowing)


def _only(task: int) -> TaskBatches:
    """Return batches of one task only."""
    return lambda data: repeat([Part(torch.tensor([task], device=data.x.device), data.num_rows)])


class _LastTask(Messenger):
    """Mask the log densities of all tasks but the last, in programs that run on all."""

    fixed_graph = True

    def __init__(self, like: TaskData, state: nn.Module) -> None:
        super().__init__()
        self.num_tasks, self.device = like.num_tasks, like.x.device

    def _pyro_sample(self, msg: Any) -> None:
        for frame in msg["cond_indep_stack"]:
            if frame.name == TASK_PLATE and frame.size != self.num_tasks:
                raise ValueError(
                    f"Plate {TASK_PLATE!r} has {frame.size} tasks with one more, expected the "
                    f"{self.num_tasks} of `data.num_tasks`. Make it of as many."
                )
            if frame.name == TASK_PLATE and msg["mask"] is not False:
                last = torch.arange(frame.size, device=self.device) == frame.size - 1
                last = last.reshape(-1, *[1] * (-frame.dim - 1))
                msg["mask"] = last if msg["mask"] is None else msg["mask"] & last


@torch.no_grad()
def _take_over(new: nn.Module, old: nn.Module) -> None:
    """Copy the parameters of T tasks, and common ones, into programs of T + 1 tasks."""
    numbers = dict(old.state_dict())
    modules = new.named_modules(remove_duplicate=False)
    logits = {f"{name}.logits" for name, part in modules if isinstance(part, Sources)}
    for name, value in new.state_dict().items():  # these are the numbers themselves, no copies
        learned = numbers[name]
        if value.shape == learned.shape:
            value.copy_(learned)
        elif value.shape[1:] == learned.shape[1:]:
            value[:-1] = learned
            if name.endswith("raw_transfer_scale"):
                value[-1] = learned.mean(0)  # there is no better guess
        elif name not in logits:
            raise ValueError(
                f"{name} has shape {tuple(learned.shape)}, and {tuple(value.shape)} for one task "
                "more, expected the tasks along the first dimension. Arrange it so, or fit again "
                "with the rows of the new task."
            )


@torch.no_grad()
def _take_over_weights(new: nn.Module, old: nn.Module) -> None:
    """Copy the source weights of T tasks, for which the new task is no source."""
    for grown, learned in zip(parts(new, Sources), parts(old, Sources), strict=True):
        size = learned.logits.shape[1] - learned.base
        more = grown.logits.shape[1] - learned.logits.shape[1]
        grown.logits[:-1, :size] = learned.logits[:, :size]
        grown.logits[:-1, size : size + more] = ABSENT
        grown.logits[:-1, size + more :] = learned.logits[:, size:]


@contextmanager
def _only_last_learns(
    new: nn.Module, old: nn.Module, *, but: tuple[str, ...] = ()
) -> Iterator[None]:
    """Freeze all parameters but those of the last task, except for some of these."""
    learned = dict(old.named_parameters())
    with ExitStack() as stack:
        for name, parameter in new.named_parameters():
            if not parameter.requires_grad:
                continue
            if parameter.shape != learned[name].shape and not name.endswith(but):
                stack.callback(parameter.register_hook(_of_last).remove)
            else:
                stack.callback(parameter.requires_grad_(False).requires_grad_)
        yield


def _of_last(gradient: Tensor) -> Tensor:
    """Zero the gradient of all tasks but the last."""
    return torch.cat([torch.zeros_like(gradient[:-1]), gradient[-1:]])
