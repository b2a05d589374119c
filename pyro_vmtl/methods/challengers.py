"""Challengers: methods that a stack tries on a fold or some before it fits them to all rows.

A method that takes longer than all others is worth it only where it predicts what they cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vmtl.data.folds import subsample_rows
from pyro_vmtl.data.limits import LimitError
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.inference.checks import NonFiniteLossError
from pyro_vmtl.inference.lbfgs import NotFactorizedError
from pyro_vmtl.methods.member import Member
from pyro_vmtl.methods.member_fits import MemberFits, predict_held_out
from pyro_vmtl.methods.out_of_fold import OutOfFold
from pyro_vmtl.methods.stacking_weights import stacking_weights

__all__ = ["Trials", "predicted_gain"]

LEAST_ROWS = 10
"""Held-out rows that a challenger is judged by, at least."""

LEAST_GAIN = 0.01
"""Nats of a row that are worth another fold, if they are within two standard errors."""

MOST_ROWS = 10_000
"""Rows that a trial is fitted to, though members have all."""

FAILURES = LimitError, NotFactorizedError, NonFiniteLossError
"""Errors for which a challenger is left out."""


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
        """Fit those challengers that improve what a stack predicts of the first folds.

        Return the stack with them, their fits, what all its members predict, and whether it was
        interrupted, which leaves out the challenger of that moment.
        """
        stack = self.stack
        members: dict[str, Member] = {}
        for name in self.stack.challengers:
            try:
                fits, found = self._try(name, held_out, report, checkpoints)
            except KeyboardInterrupt:
                return stack, members, held_out, True
            if found is not None:
                method = stack.challengers[name]
                stack = replace(stack, members={**stack.members, name: method})
                members, held_out = {**members, **fits}, held_out.join(found)
        return stack, members, held_out, False

    def _try(
        self,
        name: str,
        held_out: OutOfFold,
        report: Callable[[str], None],
        checkpoints: Path | None,
    ) -> tuple[dict[str, Member], OutOfFold | None]:
        """Fit a challenger; None if it does not improve predictions, or cannot be fitted."""
        stack, data, seed = self.stack, self.data, self.seed
        method = stack.challengers[name]
        alone = replace(stack, members={name: method}, challengers={})
        calibrated = stack.calibrated_members(data) + alone.calibrated_members(data)
        given = None if self.validation is None else [(data, self.validation)]
        parts: list[OutOfFold] = []
        for train, held in given or stack.folds(data, seed):
            if int(held.mask.sum()) < LEAST_ROWS:
                return {}, None
            report(f"{name}, tried on a fold")
            some = subsample_rows(train, MOST_ROWS, seed=seed)
            try:
                if not parts and not method.promises(some):
                    return {}, None
                trial = method.for_trial().fit(some, seed=seed)
            except FAILURES:  # nobody asked for it
                return {}, None
            _check_done(trial.result.stopped)
            parts.append(predict_held_out({name: trial.member}, train, held, seed))
            gain, error = predicted_gain(OutOfFold.concat(parts), held_out, calibrated, seed=seed)
            if gain > error:
                break
            if gain + 2 * error < LEAST_GAIN:
                return {}, None
        else:
            return {}, None
        every = MemberFits(alone.members, seed, report, checkpoints)
        try:
            (fits, *_), ends = every.fit({0: data})
            _check_done(*ends)
            if self.validation is not None:
                return fits, predict_held_out(fits, data, held, seed)
            settings = {"report": report, "checkpoints": checkpoints}
            found, interrupted = alone.out_of_fold(data, fits, seed=seed, **settings)
        except FAILURES:  # all rows may be too many
            return {}, None
        _check_done("interrupted" if interrupted else "steps")
        return fits, found


def _check_done(*ends: str) -> None:
    """Pass on the interrupt of a fit, which keeps what it had."""
    if "interrupted" in ends:
        raise KeyboardInterrupt


def predicted_gain(
    trial: OutOfFold, held_out: OutOfFold, calibrated: list[str], *, seed: int = 0
) -> tuple[float, float]:
    """Compute by how much a member, besides others, predicts rows better, and a standard error.

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

    Returns
    -------
    tuple of float
        Mean gain in nats a row, and its standard error; 0 where there are too few rows.
    """
    first = torch.arange(len(held_out.y), device=held_out.y.device) < len(trial.y)
    others = held_out.where(first)
    if int((trial.weight > 0).sum()) < LEAST_ROWS or not torch.equal(others.y, trial.y):
        return 0.0, 0.0
    both = others.join(trial)
    density = both.cross_fitted_density(calibrated, seed=seed)
    alone = density[:, : len(others.draws)]
    order = torch.randperm(len(density), generator=torch.Generator().manual_seed(seed + 1))
    half = (order % 2 == 0).to(density.device)
    gain = density.new_empty(len(density))
    for judged in (half, ~half):
        gain[judged] = _mix(density, both.weight, judged) - _mix(alone, both.weight, judged)
    weight = both.weight.to(gain) / both.weight.sum()
    mean = (weight * gain).sum()
    variance = (weight * (gain - mean) ** 2).sum() * (weight**2).sum()  # of a weighted mean
    return float(mean), float(variance.sqrt())


def _mix(density: Tensor, sample_weight: Tensor, judged: Tensor) -> Tensor:
    """Compute log densities of a mixture whose weights other rows have, (rows,)."""
    learned = ~judged
    task = torch.zeros(int(learned.sum()), dtype=torch.long, device=density.device)
    weights = stacking_weights(density[learned], task, 1, sample_weight=sample_weight[learned])
    return (density[judged] + weights.to(density).log()).logsumexp(1)
