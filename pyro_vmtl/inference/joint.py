"""Several fits at once, such as those of the folds of a cross-validation, in one program.

On small problems a step takes as long as its tensor operations are many, whatever their size. Fits
of programs with the same parameters, of the same shapes, do the same operations. So their
parameters and rows are stacked, and one vectorized step [1]_ computes the losses and gradients of
all of them. Each fit has an optimizer, a history and an end of its own.

Fits of the same seed draw the same numbers, whether one by one or together. So the results are the
same but for rounding, where the shape of what is drawn does not depend on the number of rows.

References
----------
.. [1] ``torch.vmap``, whose batched operations are recorded as those of a single step are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.utils._pytree import tree_map

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import isolated, validation
from pyro_vmtl.handlers.own_parameters import own_parameters
from pyro_vmtl.inference.course import Course, FitResult
from pyro_vmtl.inference.elbo import evaluate
from pyro_vmtl.inference.progress import Report, progress_bar
from pyro_vmtl.inference.recorder import Recorder, Replay
from pyro_vmtl.inference.step import Outcome, Step, batch_of, can_be_recorded, with_strides_of

__all__ = ["MOST_NUMBERS", "CannotJoinError", "JointStep", "fit_jointly"]

TOLERANCE = 1e-3
"""Difference from the gradient of a single fit that is rounding, relative to its largest number."""

MOST_NUMBERS = 1_000_000
"""Numbers of all fits up to which their operations take little longer than those of one."""

CANNOT_VECTORIZE = (RuntimeError, TypeError, ValueError, AttributeError, KeyError)
"""What programs raise that branch on values, say."""


class CannotJoinError(Exception):
    """These fits have to run one by one."""


def fit_jointly(
    problems: Sequence[tuple[nn.Module, nn.Module, TaskData]],
    *,
    seed: int = 0,
    checkpoints: Sequence[Path | None] | None = None,
    **settings: Any,
) -> list[FitResult]:
    """Fit pairs of programs by Adam, all at once, with the results of fits one by one.

    Parameters
    ----------
    problems
        Model, guide and rows of each fit, with the same settings and seed.
    seed, checkpoints, **settings
        As for :func:`~pyro_vmtl.fit`. Checkpoints are written at the end of each fit, and read if
        those of all fits are there: others start together, or rounding would differ.

    Raises
    ------
    CannotJoinError
        If the programs cannot be vectorized, or are too large to gain by it. Nothing is changed.
    """
    stacked = sum(
        tensor.numel()
        for model, guide, rows in problems
        for tensor in (rows.x, *model.parameters(), *guide.parameters())
    )
    if stacked > MOST_NUMBERS:
        raise CannotJoinError("The fits are too large to gain.")
    for model, guide, _ in problems:
        own_parameters(model, guide)
    files = [path for path in checkpoints or () if path is not None]
    if not all(path.is_file() for path in files):
        for path in files:
            path.unlink(missing_ok=True)
    # the fits go on side by side, and advance the bar of several fits as one
    with isolated(seed), progress_bar(1, visible=False) as report, ExitStack() as at_end:
        courses = []
        for place, (model, guide, rows) in enumerate(problems):
            torch.manual_seed(seed)
            checkpoint = None if checkpoints is None else checkpoints[place]
            given = {**settings, "seed": seed, "checkpoint": checkpoint}
            courses.append(Course(model, guide, (rows,), **given))
            at_end.callback(courses[-1].step_of.finish)
        running = [course for course in courses if not course.over]
        for course in running:
            if course.keeper is not None:  # all have the random state in common, at any step
                course.keeper.written = math.inf
        if not all(course.recordable for course in running):
            raise CannotJoinError("The programs do not declare a fixed graph.")
        if running:
            joint = JointStep([course.step_of for course in running])
            at_end.callback(joint.separate)
            _run(running, joint, report)
        return [course.result() for course in courses]


def _run(courses: Sequence[Course], joint: JointStep, report: Report) -> None:
    """Take all steps of fits that are not begun."""
    step: Callable[[], list[Outcome]] = joint.first
    going = [*courses]
    try:
        while going:
            *others, last = going
            for course in others:  # what one draws to start its weights, the others draw, too
                with torch.random.fork_rng(devices=joint.cuda):
                    course.prepare_step()
            last.prepare_step()
            for course, outcome in zip(courses, step(), strict=True):
                if not course.over:
                    course.take_step(*course.step_of.take(outcome), report)
            going = [course for course in going if not course.over]
            step = joint
    except KeyboardInterrupt:
        for course in courses:
            if not course.over:
                course.interrupt()


class JointStep:
    """Compute losses, terms and gradients of several fits at the values of their parameters.

    Until :meth:`separate` the parameters and buffers of the modules are parts of stacked ones.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        if not all(can_be_recorded(s.loss_of, s.batches) and s.is_one_part for s in steps):
            raise CannotJoinError("The programs do not declare a fixed graph of all tasks.")
        if any(step.batches is not None for step in steps):
            raise CannotJoinError("Steps take batches of rows.")
        self.steps = steps
        self.loss = _Loss(steps[0])
        self.rows = _stack([_tensors(_rows(step)) for step in steps], padded=True)
        named = [_named_tensors(step.loss_of) for step in steps]
        if len({(*each,) for each in named}) > 1:
            raise CannotJoinError("The programs have different parameters.")
        values = _stack([[*each.values()] for each in named])
        for place, stacked in enumerate(values):
            for each, value in zip(named, stacked.unbind(), strict=True):
                [*each.values()][place].data = value
        self.tensors = {f"module.{name}": v for name, v in zip(named[0], values, strict=True)}
        learned = (n for n, p in steps[0].loss_of.named_parameters() if p.requires_grad)
        self.learned = [f"module.{name}" for name in learned]
        self._recorded: dict[Hashable, Replay] = {}

    def __call__(self) -> list[Outcome]:
        """Replay a recorded step, and return the outcome of each fit."""
        for each in zip(*(step.sources.values() for step in self.steps), strict=True):
            use_float64 = any(sources.use_float64 for sources in each)
            for sources in each:
                sources.use_float64 = use_float64
        key = tuple(module.graph_key for module in self.steps[0].scheduled)
        if key not in self._recorded:
            recorder = Recorder()
            with torch.random.fork_rng(devices=self.cuda), validation(False), recorder:
                outcome = self._evaluate()
            self._recorded[key] = Replay(recorder.finish(outcome))
        with torch.no_grad():
            return self._of_fits(self._recorded[key]())

    def first(self) -> list[Outcome]:
        """Compute the first step of each fit by itself, with validation, and compare them.

        Raises
        ------
        CannotJoinError
            If the fits together give something else.
        """
        outcomes = []
        for step in self.steps:
            with torch.random.fork_rng(devices=self.cuda), validation(True):
                outcomes.append(step.evaluate())
        try:
            together = self()
        except CANNOT_VECTORIZE as error:
            raise CannotJoinError(str(error)) from error
        for one, other in zip(outcomes, together, strict=True):
            if not all(map(_is_close, (one[0], *one[2]), (other[0], *other[2]))):
                raise CannotJoinError("The loss or a gradient differs.")
        return outcomes

    @torch.no_grad()
    def separate(self) -> None:
        """Return to parameters and buffers of the modules' own."""
        for step in self.steps:
            for tensor in (*step.loss_of.parameters(), *step.loss_of.buffers()):
                tensor.data = tensor.data.clone()

    def _evaluate(self) -> Any:
        """Return losses, terms, gradients and rounding, each with the fits as first dimension."""
        with torch.enable_grad():
            leaves = {name: self.tensors[name].requires_grad_() for name in self.learned}
            # one module in two places, as source weights are, counts once
            loss_of = partial(functional_call, self.loss, tie_weights=False)
            vectorized = vmap(loss_of, randomness="same")
            loss, terms, rounding = vectorized({**self.tensors, **leaves}, (self.rows,))
            found = torch.autograd.grad(loss.sum(), [*leaves.values()], allow_unused=True)
        gradients = [with_strides_of(*each) for each in zip(found, leaves.values(), strict=True)]
        return loss.detach(), tree_map(Tensor.detach, terms), gradients, rounding

    def _of_fits(self, outcome: Any) -> list[Outcome]:
        """Split what a step returns by fit."""
        loss, terms, gradients, rounding = outcome
        num = range(len(self.steps))
        losses, terms = loss.unbind(), tree_map(Tensor.unbind, terms)
        gradients = [[None] * len(num) if g is None else g.unbind() for g in gradients]
        of_pools = iter(r.unbind() for r in rounding)
        errors = [next(of_pools) if known else [None] * len(num) for known in self.loss.compares]
        return [
            (
                losses[k],
                {kind: {site: v[k] for site, v in of.items()} for kind, of in terms.items()},
                [each[k] for each in gradients],
                [each[k] for each in errors],
            )
            for k in num
        ]

    @property
    def cuda(self) -> list[torch.device]:
        """The GPU of the fits, if they have one."""
        device = self.rows[0].device
        return [device] if device.type == "cuda" else []


class _Loss(nn.Module):
    """The loss of a step as a function of its rows."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step
        self.module = step.loss_of
        self.compares: list[bool] = []

    def forward(self, rows: Sequence[Tensor]) -> Any:
        """Return loss, terms, and the float32 errors where tasks are compared."""
        each = iter(rows)
        data = _rows(self.step).map_rows(lambda _: next(each))
        elbo, model, guide = self.module.elbo, self.module.model, self.module.guide
        with batch_of((data,), None) as args:
            loss, terms, traces = evaluate(elbo, model, guide, *args)
        errors = self.step.roundings(traces[-1])
        self.compares = [nats is not None for nats in errors]
        return loss, vars(terms), [nats for nats in errors if nats is not None]


def _rows(step: Step) -> TaskData:
    """Return the rows of a step, the only argument of its programs."""
    (rows,) = step.args
    if not isinstance(rows, TaskData) or rows.attended is not None:
        raise CannotJoinError("The programs take something else than rows.")
    return rows


def _tensors(rows: TaskData) -> list[Tensor]:
    """Return what there is of every row."""
    found: list[Tensor] = []
    rows.map_rows(lambda values: found.append(values) or values)  # type: ignore[func-returns-value]
    return found


def _named_tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@torch.no_grad()
def _stack(of_fits: Sequence[Sequence[Tensor]], *, padded: bool = False) -> list[Tensor]:
    """Stack the tensors of fits, each padded to as many rows as the longest has."""
    stacked = []
    try:
        for values in zip(*of_fits, strict=True):
            if padded:
                longest = max(value.shape[1] for value in values)
                values = tuple(
                    functional.pad(v, [0, 0] * (v.ndim - 2) + [0, longest - v.shape[1]])
                    for v in values
                )
            stacked.append(torch.stack(values))
    except (ValueError, RuntimeError) as error:
        raise CannotJoinError("The programs have tensors of different shapes.") from error
    return stacked


def _is_close(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    largest = one.abs().max() if one.numel() else 0.0
    return torch.allclose(one, other, rtol=0.0, atol=TOLERANCE * float(largest))
