"""Out-of-fold predictions: what fits predict of rows that they have not seen."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.methods.jackknife import jackknife_draws, rake
from pyro_vmtl.methods.stacking_weights import draw_stacking_weights, stacking_weights
from pyro_vmtl.predictive.calibration import Calibration, calibrate
from pyro_vmtl.predictive.families import concat_draws, family_of

__all__ = ["OutOfFold"]

MOST_WEIGHTS, DRAWS_OF_WEIGHTS = 40, 5
"""Draws of the weights of members, and of shares for each of them."""

MOST_NUMBERS = 10_000_000
"""Numbers in all draws of shares: 40 MB, from 220 tasks on."""


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Out-of-fold predictions, row by row: of each member the draws, batch (S, rows).

    ``shares`` has what tasks borrow in the fit without each of K folds, (K, T, T + 1), by member.
    """

    draws: Mapping[str, Distribution]
    y: Tensor
    task: Tensor
    weight: Tensor
    shares: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of_rows(
        cls, draws: Mapping[str, Distribution], rows: TaskData, known: Tensor | None = None
    ) -> OutOfFold:
        """Take predictions, batch (S, T, N), to single rows: those ``known``, all by default."""
        assert rows.y is not None
        known = rows.mask if known is None else known
        weight = torch.ones_like(rows.x[..., 0]) if rows.weight is None else rows.weight
        return cls(_select(draws, known), rows.y[known], known.nonzero()[:, 0], weight[known])

    @classmethod
    def concat(cls, parts: Sequence[OutOfFold]) -> OutOfFold:
        """Concatenate the rows of folds."""
        y, task, weight = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("y", "task", "weight")
        )
        members = parts[0].draws
        draws = {
            name: concat_draws([part.draws[name] for part in parts], dim=1) for name in members
        }
        shares = {
            name: torch.cat([part.shares[name] for part in parts]) for name in parts[0].shares
        }
        return cls(draws, y, task, weight, shares)

    def join(self, other: OutOfFold) -> OutOfFold:
        """Add what other members predict of the same rows."""
        draws, shares = {**self.draws, **other.draws}, {**self.shares, **other.shares}
        return replace(self, draws=draws, shares=shares)

    def where(self, chosen: Tensor) -> OutOfFold:
        """Select rows, by a mask (rows,)."""
        draws = _select(self.draws, chosen)
        some = {name: getattr(self, name)[chosen] for name in ("y", "task", "weight")}
        return replace(self, draws=draws, **some)

    def calibrations(self, names: Iterable[str]) -> dict[str, Calibration]:
        """Learn the calibrations of members."""
        learn = partial(Calibration.learn, y=self.y, weight=self.weight)
        return {name: learn(self.draws[name]) for name in names}

    def cross_fitted_density(self, names: Collection[str], *, seed: int = 0) -> Tensor:
        """Compute log densities, (rows, M), with calibrations of members learned on other rows.

        On the same rows, calibrated members would seem better than others. A random half of the
        rows is calibrated by the other.
        """
        density = self.log_density({})
        order = torch.randperm(len(self.y), generator=torch.Generator().manual_seed(seed))
        first = (order % 2 == 0).to(self.y.device)
        for half in (first, ~first):
            if half.any():
                density[half] = self.where(half).log_density(self.where(~half).calibrations(names))
        return density

    def weights(
        self, density: Tensor, num_tasks: int, *, prior_mean: Tensor | None = None
    ) -> Tensor:
        """Compute the stacking weights of every task, or of all rows as one task, (T, M).

        ``density`` are log densities (rows, M), up to a constant for each row.
        """
        task = self.task if num_tasks > 1 else torch.zeros_like(self.task)
        return stacking_weights(
            density, task, num_tasks, sample_weight=self.weight, prior_mean=prior_mean
        )

    def draw_shares(
        self,
        borrowed: Mapping[str, Tensor],
        density: Tensor,
        weights: Tensor,
        *,
        num_folds: int,
        seed: int = 0,
    ) -> Tensor:
        """Draw what tasks borrow, (S, T, T + 1), by the jackknife over folds.

        Members are averaged by drawn weights. How much a task borrows is on average what it borrows
        in the fits to all rows, (T,) by member, which are more than those without a fold; from
        whom, the mean over these, as where single fits end differs most in that.
        """
        each = torch.stack([self.shares[name] for name in self.draws], dim=-1)  # (K, T, T + 1, M)
        total = torch.stack([borrowed[name] for name in self.draws], dim=-1)  # (T, M)
        size = MOST_NUMBERS // each[0, ..., 0].numel()
        num_weights = max(1, min(MOST_WEIGHTS, size))
        drawn = draw_stacking_weights(
            density,
            self.task,
            weights,
            num_draws=num_weights,
            sample_weight=self.weight,
            seed=seed,
        )
        draw = partial(
            jackknife_draws,
            num_groups=num_folds,
            num_draws=max(1, min(DRAWS_OF_WEIGHTS, size // num_weights)),
            generator=torch.Generator().manual_seed(seed),
        )

        def average(w: Tensor) -> tuple[Tensor, Tensor]:
            without = torch.einsum("kuvm,um->kuv", each, w)
            return without, _with_total(without.mean(0), (total * w).sum(-1, keepdim=True))

        draws = torch.cat([draw(*average(w)) for w in drawn])
        return rake(draws, average(weights.to(each))[1])

    def log_density(self, calibrations: Mapping[str, Calibration]) -> Tensor:
        """Compute log predictive densities up to a constant, (rows, M)."""
        calibrated = calibrate(self.draws, calibrations)
        return torch.stack([draws.log_prob(self.y).logsumexp(0) for draws in calibrated], dim=1)


def _with_total(shares: Tensor, total: Tensor) -> Tensor:
    """Scale the shares of other tasks, (T, T + 1) with the base last, to their total, (T, 1)."""
    others = shares[:, :-1]
    others = others * total / others.sum(-1, keepdim=True).clamp_min(1e-30)
    return torch.cat([others, 1 - others.sum(-1, keepdim=True)], -1).clamp_min(0.0)


def _select(draws: Mapping[str, Distribution], chosen: Tensor) -> dict[str, Distribution]:
    """Select rows of predictions, batch (S, *chosen), by a mask."""
    return {
        name: family_of(each).map(lambda values: values[0][:, chosen], each)
        for name, each in draws.items()
    }
