"""Stacking: several methods, weighted by what they predict of held-out rows.

No prior is right for all data: tasks can be strangers, relatives or copies of one another. A stack
fits all its members and mixes their predictions, with weights from rows that the fits did not see
(:mod:`pyro_vmtl.methods.stacking_weights`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from pyro_vmtl.data.folds import folds, needed_folds, subsample_rows
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.inference.joint import MOST_NUMBERS
from pyro_vmtl.inference.progress import fits_bar
from pyro_vmtl.inference.svi import FitResult
from pyro_vmtl.methods.challengers import Trials
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.member import Member
from pyro_vmtl.methods.member_fits import (
    MemberFits,
    concat_folds,
    predict_fold,
    predict_held_out,
)
from pyro_vmtl.methods.method import ProgramMethod
from pyro_vmtl.methods.new_task import new_task_member_weights
from pyro_vmtl.methods.out_of_fold import OutOfFold

__all__ = ["Stack"]

ENOUGH_HELD_OUT = 5_000
"""Held-out rows that are enough to calibrate and to weigh members: above 25,000, one fold."""

MAX_HELD_OUT = 20_000
"""Held-out rows of which no more are predicted."""


@dataclass(frozen=True)
class Stack:
    """Several methods, weighted by what they predict of held-out rows.

    Parameters
    ----------
    members
        Methods by name: presets, or :class:`~pyro_vmtl.Programs` of your own. The first one's
        history is that of the stack.
    num_folds
        Parts of the rows that are held out in turn.
    calibrated
        Whether to learn a :class:`~pyro_vmtl.Calibration` of each member that needs one.
    challengers
        Methods that take longer, by name. Where its ``promises`` says so, each is fitted without
        the first fold, and becomes a member if it improves what the members predict of that, at
        least ten rows, by more than a standard error; where that is near, also without others.

    Raises
    ------
    ValueError
        If there is no member, or fewer than two folds.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from pyro_vmtl.methods.preset import Preset
    >>> shared = Preset(fitting={"num_steps": 50})  # few steps, to be quick here
    >>> stack = Stack({"shared": shared, "alone": replace(shared, shared=())}, num_folds=2)
    >>> X, tasks = torch.linspace(-1, 1, 12)[:, None], ["a", "b"] * 6
    >>> data = TaskData.regression(X, 2 * X[:, 0] + 0.1 * torch.sin(9 * X[:, 0]), tasks)
    >>> fitted = stack.fit(data)
    >>> fitted.weights.shape, fitted.predictive(data).mean.shape
    (torch.Size([2, 2]), torch.Size([2, 6]))
    """

    members: Mapping[str, ProgramMethod]
    num_folds: int = 5
    calibrated: bool = True
    challengers: Mapping[str, ProgramMethod] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Copy the members, so that changing those of one stack leaves others alone."""
        if not self.members:
            raise ValueError("members is empty, expected at least one method.")
        for name, method in self.members.items():
            if not callable(getattr(method, "fit", None)):
                raise TypeError(
                    f"Member {name!r} is a {type(method).__name__}, expected a method, which makes "
                    "programs anew for each fold. Pass a function that returns model and guide for "
                    "rows: Programs(make)."
                )
        object.__setattr__(self, "challengers", dict(self.challengers))
        nested = [
            name
            for name, method in {**self.members, **self.challengers}.items()
            if isinstance(getattr(method, "few_features", method), Stack)
        ]
        if nested:
            raise ValueError(
                f"Member {nested[0]!r} is a Stack, expected a single method. Add its members."
            )
        if self.num_folds < 2:
            raise ValueError(f"num_folds is {self.num_folds}, expected at least 2.")
        object.__setattr__(self, "members", dict(self.members))

    def fit(
        self,
        data: TaskData,
        *,
        seed: int = 0,
        progress: bool = False,
        checkpoints: Path | None = None,
        validation: TaskData | None = None,
    ) -> Fitted:
        """Fit all members to all rows, and from there to all folds but one.

        A member that cannot be fitted within the limits, such as one that shares among too many
        tasks, is left out with a warning.

        Ctrl-C ends it, and keeps the members and folds that were done.

        Parameters
        ----------
        data, seed, progress, checkpoints
            As for :meth:`Method.fit`.
        validation
            Other rows of the same tasks, with their targets, held out in place of the folds: then
            each member is fitted once.
        """
        started = time.perf_counter()
        num_held_out = needed_folds(data, self.num_folds, enough=ENOUGH_HELD_OUT)
        each_of = 1 if validation is not None else num_held_out + 1
        num_fits = len(self.members) * each_of + len(self.challengers) * (1 + each_of)
        with fits_bar(num_fits, visible=progress) as report:
            fitting = MemberFits(self.members, seed, report, checkpoints)
            beside = (
                validation is None
                and self._are_small(data)
                and all(member.starts_anew(data) for member in self.members.values())
            )
            pairs = [*self.folds(data, seed)] if beside else []
            trains = {number: train for number, (train, _) in enumerate(pairs, 1)}
            (members, *without_folds), ends = fitting.fit({0: data, **trains})
            stopped, held_out = "interrupted" in ends, None
            kept = replace(self, members={name: self.members[name] for name in members})
            if not stopped and validation is not None:
                some = subsample_rows(validation, MAX_HELD_OUT, seed=seed)
                held_out = predict_held_out(members, data, some, seed)
            elif not stopped and pairs:
                each = zip(without_folds, pairs, strict=True)
                held_out = concat_folds([predict_fold(fits, *pair, seed) for fits, pair in each])
            elif not stopped and data.mask.sum() > 1:
                held_out, stopped = kept.out_of_fold(
                    data, members, seed=seed, report=report, checkpoints=checkpoints
                )
            if held_out is not None and not stopped:
                trials = Trials(kept, data, None if validation is None else some, seed)
                kept, more, held_out, stopped = trials.run(held_out, report, checkpoints)
                members = {**members, **more}
        result = FitResult(
            next(iter(members.values())).result.history,
            time.perf_counter() - started,
            "interrupted" if stopped else "steps" if "steps" in ends else "settled",
        )
        if held_out is None:
            even = torch.full((data.num_tasks, len(members)), 1 / len(members))
            return Fitted(members, even, result)
        names = kept.calibrated_members(data)
        calibrations = held_out.calibrations(names)
        density = held_out.cross_fitted_density(names, seed=seed)
        weights = held_out.weights(density, data.num_tasks)
        of_new_tasks = new_task_member_weights(members, data, seed=seed)
        drawn = None
        if held_out.shares:
            borrowed = {name: m.borrowing.total(m.guide, seed=seed) for name, m in members.items()}
            num_folds = min(self.num_folds, int(data.mask.sum()))
            drawn = held_out.draw_shares(borrowed, density, weights, num_folds=num_folds, seed=seed)
        return Fitted(members, weights, result, calibrations, of_new_tasks, drawn)

    def calibrated_members(self, data: TaskData) -> list[str]:
        """Return the names of the members that need a calibration."""
        members = self.members.items()
        return [name for name, m in members if self.calibrated and m.needs_calibration(data)]

    def _are_small(self, data: TaskData) -> bool:
        """Whether the folds are fitted at once."""
        return bool(self.num_folds * data.x.numel() <= MOST_NUMBERS and data.mask.sum() > 1)

    def folds(self, data: TaskData, seed: int) -> Iterator[tuple[TaskData, TaskData]]:
        """Split the rows into those to fit and those held out, in turn."""
        enough, most = ENOUGH_HELD_OUT, MAX_HELD_OUT
        return folds(data, self.num_folds, seed=seed, enough=enough, most=most)

    def out_of_fold(
        self,
        data: TaskData,
        members: Mapping[str, Member] | None = None,
        *,
        seed: int = 0,
        report: Callable[[str], None] = lambda name: None,
        checkpoints: Path | None = None,
    ) -> tuple[OutOfFold | None, bool]:
        """Predict rows by fits that did not see them: of all folds, or some with 5,000 rows.

        These fits start at the parameters of ``members``, fits to all rows, if there are any.
        Return predictions of the folds that were done, or None, and whether it was interrupted.
        """
        fitting = MemberFits(self.members, seed, report, checkpoints)
        parts: list[OutOfFold] = []
        stopped = False
        pairs = enumerate(self.folds(data, seed), 1)
        for group in [[*pairs]] if self._are_small(data) else ([pair] for pair in pairs):
            fits, ends = fitting.fit({number: train for number, (train, _) in group}, members)
            for found, (_, pair) in zip(fits, group, strict=True):
                over = all(member.result.stopped != "interrupted" for member in found.values())
                if over and found.keys() == self.members.keys():
                    parts.append(predict_fold(found, *pair, seed))
            stopped = "interrupted" in ends
            if stopped:
                break
            del group, pair  # before the rows of the next fold are copied
        return concat_folds(parts), stopped
