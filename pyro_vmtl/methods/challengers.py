"""Whether a method improves what a stack predicts: tried on one fold before it is fitted to all."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_vmtl.methods.out_of_fold import OutOfFold
from pyro_vmtl.methods.stacking_weights import stacking_weights

__all__ = ["improves"]


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
