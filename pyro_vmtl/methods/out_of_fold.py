"""Out-of-fold predictions: what fits predict of rows that they have not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.predictive.calibration import Calibration
from pyro_vmtl.predictive.families import concat_draws, family_of

__all__ = ["OutOfFold"]


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Out-of-fold predictions of members, row by row.

    Attributes
    ----------
    draws
        For each member the likelihood under its draws, batch (S, rows).
    y
        (rows,), targets.
    task
        (rows,), index of each row's task.
    weight
        (rows,), weight of each row.
    """

    draws: Mapping[str, Distribution]
    y: Tensor
    task: Tensor
    weight: Tensor

    @classmethod
    def of_rows(
        cls, draws: Mapping[str, Distribution], rows: TaskData, known: Tensor | None = None
    ) -> OutOfFold:
        """Take predictions from the layout of tasks to single rows.

        Parameters
        ----------
        draws
            For each member the likelihood under its draws, batch (S, T, N).
        rows
            Rows with their targets, (T, N).
        known
            (T, N), which rows count; all by default.
        """
        assert rows.y is not None
        known = rows.mask if known is None else known
        weight = torch.ones_like(rows.x[..., 0]) if rows.weight is None else rows.weight
        single = {
            name: family_of(each).map(lambda values: values[0][:, known], each)
            for name, each in draws.items()
        }
        return cls(single, rows.y[known], known.nonzero()[:, 0], weight[known])

    @classmethod
    def concat(cls, parts: Sequence[OutOfFold]) -> OutOfFold | None:
        """Concatenate the rows of folds; None where there are none."""
        if not any(len(part.y) for part in parts):
            return None
        draws = {
            name: concat_draws([part.draws[name] for part in parts], dim=1)
            for name in parts[0].draws
        }
        y, task, weight = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("y", "task", "weight")
        )
        return cls(draws, y, task, weight)

    def calibrations(self) -> dict[str, Calibration]:
        """Learn the calibration of each member."""
        return {
            name: Calibration.learn(draws, self.y, weight=self.weight)
            for name, draws in self.draws.items()
        }

    def log_density(self, calibrations: Mapping[str, Calibration]) -> Tensor:
        """Compute log predictive densities up to a constant, (rows, M).

        Parameters
        ----------
        calibrations
            Corrections of members, by name.
        """
        calibrated = (
            calibrations[name](draws) if name in calibrations else draws
            for name, draws in self.draws.items()
        )
        return torch.stack([draws.log_prob(self.y).logsumexp(0) for draws in calibrated], dim=1)
