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
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.handlers.own_parameters import own_parameters
from pyro_vmtl.inference.course import Course, FitResult, asks_again
from pyro_vmtl.inference.joint_step import CannotJoinError, JointStep, OutcomeOfFit
from pyro_vmtl.inference.lbfgs import Evaluations, NotFactorizedError
from pyro_vmtl.inference.progress import Report, progress_bar

__all__ = ["MOST_NUMBERS", "CannotJoinError", "fit_jointly"]

MOST_NUMBERS = 1_000_000
"""Numbers of all fits up to which their operations take little longer than those of one."""


def fit_jointly(
    problems: Sequence[tuple[nn.Module, nn.Module, TaskData]],
    *,
    seed: int = 0,
    checkpoints: Sequence[Path | None] | None = None,
    **settings: Any,
) -> list[FitResult]:
    """Fit pairs of programs, all at once, with the results of fits one by one.

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
    stacked = sum(rows.x.numel() for _, _, rows in problems)
    stacked += sum(
        tensor.numel()
        for model, guide, _ in problems
        for part in (model, guide)
        for tensor in (*part.parameters(), *part.buffers())
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
    steps = {place: course.steps(report) for place, course in enumerate(courses)}
    outcomes: Sequence[OutcomeOfFit | None] = [None] * len(courses)
    compute = joint.first
    try:
        while steps:
            last = max(steps)
            for place, each in [*steps.items()]:
                # what one draws to start its weights, the others draw, too
                fork = torch.random.fork_rng(devices=joint.cuda, enabled=place != last)
                with fork:
                    going = asks_again(partial(_go_on, courses[place], each, outcomes[place]))
                if not going:
                    del steps[place]
            if steps:
                outcomes = compute()
            compute = joint
    except KeyboardInterrupt:
        for place in steps:
            courses[place].interrupt()


def _go_on(course: Course, steps: Evaluations[None], outcome: OutcomeOfFit | None) -> None:
    """Send a fit the outcome of its step; at its end StopIteration is raised."""
    if isinstance(outcome, NotFactorizedError):
        steps.throw(outcome)
    elif outcome is None:
        next(steps)
    else:
        steps.send(course.step_of.take(outcome))
