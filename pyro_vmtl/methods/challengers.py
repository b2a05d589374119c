"""Challengers: methods that a stack tries on one fold before it fits them to all rows.

A method that takes longer than all others is worth it only where it predicts what they cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vmtl.data.limits import LimitError
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.methods.member import Member
from pyro_vmtl.methods.member_fits import MemberFits, predict_held_out
from pyro_vmtl.methods.out_of_fold import OutOfFold
from pyro_vmtl.methods.stacking_weights import stacking_weights

__all__ = ["Trials", "improves"]


@dataclass(frozen=True)
class Trials:
    """Trials of the challengers of a stack.

    Parameters
    ----------
    stack
        A :class:`~pyro_vmtl.Stack`.
    data, validation
        Training rows, and those that are held out in place of the folds, if any.
    seed
        Seed of the fits.
    """

    stack: Any
    data: TaskData
    validation: TaskData | None
    seed: int

    def run(
        self, held_out: OutOfFold, report: Callable[[str], None], checkpoints: Path | None
    ) -> tuple[Any, dict[str, Member], OutOfFold, bool]:
        """Fit those challengers that improve what a stack predicts of the first fold.

        Return the stack with them, their fits, what all its members predict, and whether it was
        interrupted, which leaves out the challenger of that moment.
        """
        stack, data, seed = self.stack, self.data, self.seed
        members: dict[str, Member] = {}
        for name, method in stack.challengers.items():
            train, held = data, self.validation
            if held is None:
                train, held = next(stack.folds(data, seed))
            report(f"{name}, tried on a fold")
            try:
                trial = method.fit(train, seed=seed)
            except LimitError:  # nobody asked for it
                continue
            larger = replace(stack, members={**stack.members, name: method})
            calibrated = larger.calibrated_members(data)
            fits = {name: trial.member}
            found = predict_held_out(fits, train, held, seed)
            if trial.result.stopped == "interrupted":
                return stack, members, held_out, True
            if not improves(found, held_out, calibrated, seed=seed):
                continue
            if self.validation is None:
                alone = replace(stack, members={name: method}, challengers={})
                every = MemberFits(alone.members, seed, report, checkpoints)
                (fits, *_), ends = every.fit({0: data})
                stopped = "interrupted" in ends
                if not stopped:
                    settings = {"report": report, "checkpoints": checkpoints}
                    found, stopped = alone.out_of_fold(data, fits, seed=seed, **settings)
                if stopped:
                    return stack, members, held_out, True
            stack, held_out = larger, held_out.join(found)
            members.update(fits)
        return stack, members, held_out, False


def improves(
    trial: OutOfFold, held_out: OutOfFold, calibrated: list[str], *, seed: int = 0
) -> bool:
    """Whether a member, besides others, predicts rows better by more than a standard error.

    Weights and calibrations are learned on one half of the rows, at random, and judged on the
    other, in turn.

    Parameters
    ----------
    trial
        What the member predicts of held-out rows, the first that the others predict.
    held_out
        What the others predict.
    calibrated
        Names of members that are calibrated.
    """
    first = torch.arange(len(held_out.y), device=held_out.y.device) < len(trial.y)
    others = held_out.where(first)
    if len(trial.y) < 10 or not torch.equal(others.y, trial.y):
        return False
    both = others.join(trial)
    density = both.cross_fitted_density(calibrated, seed=seed)
    alone = density[:, : len(others.draws)]
    order = torch.randperm(len(density), generator=torch.Generator().manual_seed(seed + 1))
    half = (order % 2 == 0).to(density.device)
    gain = density.new_empty(len(density))
    for judged in (half, ~half):
        learned = ~judged
        gain[judged] = _mix(density, learned, judged) - _mix(alone, learned, judged)
    return float(gain.mean()) > float(gain.std()) / math.sqrt(len(gain))


def _mix(density: Tensor, learned: Tensor, judged: Tensor) -> Tensor:
    """Compute log densities of a mixture whose weights other rows have, (rows,)."""
    task = torch.zeros(int(learned.sum()), dtype=torch.long, device=density.device)
    weights = stacking_weights(density[learned], task, 1).to(density)
    return (density[judged] + weights.log()).logsumexp(1)
