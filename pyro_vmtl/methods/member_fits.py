"""Fits of the members of a stack to all rows and to folds, and what these predict."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pyro_vmtl.data.limits import LimitError, LimitWarning, exceeds
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.tracing import reason
from pyro_vmtl.methods.member import Member
from pyro_vmtl.methods.method import ProgramMethod
from pyro_vmtl.methods.out_of_fold import OutOfFold
from pyro_vmtl.predictive.families import check_mixable

__all__ = ["MemberFits", "concat_folds", "predict_fold", "predict_held_out"]


@dataclass(frozen=True)
class MemberFits:
    """How the members of a stack are fitted."""

    members: Mapping[str, ProgramMethod]
    seed: int
    report: Callable[[str], None]
    checkpoints: Path | None

    def fit(
        self, parts: Mapping[int, TaskData], starts: Mapping[str, Member] | None = None
    ) -> tuple[list[dict[str, Member]], set[str]]:
        """Fit the members to rows without each fold, 0 for all rows; say why these fits ended."""
        fits: list[dict[str, Member]] = [{} for _ in parts]
        ends: set[str] = set()
        for name, method in self.members.items():
            folders = []
            for fold in parts:
                self.report(f"{name}, without fold {fold}" if fold else f"{name}, all rows")
                folder = f"{name}-without-fold-{fold}" if fold else name
                folders.append(None if self.checkpoints is None else self.checkpoints / folder)
            start = None if starts is None else starts[name]
            try:
                fitted = method.fit_each(
                    [*parts.values()], seed=self.seed, checkpoints=folders, start=start
                )
            except LimitError as error:
                if not fits[0] and name == [*self.members][-1]:
                    raise
                left_out = f"Member {name!r} is left out. {reason(error)}"
                warnings.warn(left_out, LimitWarning, stacklevel=2)
                continue
            for of_part, each in zip(fits, fitted, strict=False):
                of_part[name] = each.member
                ends.add(each.result.stopped)
            if "interrupted" in ends:
                break
        return fits, ends


def predict_fold(
    members: Mapping[str, Member], train: TaskData, held: TaskData, seed: int
) -> OutOfFold:
    """Predict the rows of a fold, and compute what tasks borrow in the fits without it."""
    found = predict_held_out(members, train, held, seed)
    if exceeds("TASK_PAIRS", train.num_tasks**2):
        return found
    shares = {name: m.borrowing.mean(m.guide, seed=seed)[None] for name, m in members.items()}
    return replace(found, shares=shares)


def concat_folds(parts: Sequence[OutOfFold]) -> OutOfFold | None:
    """Concatenate the folds, if there is a row in any."""
    return OutOfFold.concat(parts) if any(len(part.y) for part in parts) else None


def predict_held_out(
    members: Mapping[str, Member], train: TaskData, held: TaskData, seed: int
) -> OutOfFold:
    """Predict held-out rows."""
    # What is not learned of a task without rows, such as its noise, is no prediction.
    known = held.mask & train.mask.any(1, keepdim=True)
    draws = {name: member.draws(held, seed=seed) for name, member in members.items()}
    check_mixable(list(draws.values()))
    return OutOfFold.of_rows(draws, held, known)
