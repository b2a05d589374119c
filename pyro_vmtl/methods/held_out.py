"""What fits predict of rows that they did not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.methods.stacking_weights import stacking_weights
from pyro_vmtl.predictive.calibration import Calibration
from pyro_vmtl.predictive.families import concat_draws

__all__ = ["HeldOut", "of_rows"]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions of rows by fits that did not see them.

    Attributes
    ----------
    draws
        for each member what its draws predict, (S, rows).
    y
        (rows,), the targets.
    task
        (rows,), the task of each row, from 0 on.
    num_tasks
        T.
    weight
        (rows,), how much each row counts; None where all count 1.
    """

    draws: Mapping[str, Distribution]
    y: Tensor
    task: Tensor
    num_tasks: int
    weight: Tensor | None = None

    @classmethod
    def of_tasks(cls, draws: Mapping[str, Distribution], rows: TaskData, known: Tensor) -> HeldOut:
        """Put targets, tasks and weights to predictions of rows.

        Parameters
        ----------
        draws
            For each member what its draws predict, (S, rows).
        rows
            Rows with their targets, (T, N).
        known
            (T, N), which of them were predicted.
        """
        assert rows.y is not None
        weight = None if rows.weight is None else rows.weight[known]
        return cls(draws, rows.y[known], known.nonzero()[:, 0], rows.num_tasks, weight)

    @classmethod
    def of_new_task(cls, draws: Mapping[str, Distribution], rows: TaskData) -> HeldOut:
        """Do the same for rows that count as those of one task, whichever that is."""
        found = cls.of_tasks(draws, rows, rows.mask)
        return replace(found, task=torch.zeros_like(found.task), num_tasks=1)

    @classmethod
    def joined(cls, parts: Sequence[HeldOut]) -> HeldOut | None:
        """Put the rows of all folds one after the other; None where there are none."""
        if not any(len(part.y) for part in parts):
            return None
        draws = {
            name: concat_draws([part.draws[name] for part in parts], partial(torch.cat, dim=1))
            for name in parts[0].draws
        }
        names = ["y", "task", *(["weight"] if parts[0].weight is not None else [])]
        rows = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return cls(draws, num_tasks=parts[0].num_tasks, **rows)

    def calibrations(self) -> dict[str, Calibration]:
        """Learn what corrects each member's predictions."""
        learn = partial(Calibration.learn, y=self.y, weight=self.weight)
        return {name: learn(draws) for name, draws in self.draws.items()}

    def log_density(self, calibrations: Mapping[str, Calibration]) -> Tensor:
        """Give the log predictive density of each row under each member, (rows, M).

        It is up to a constant, the logarithm of the number of draws.

        Parameters
        ----------
        calibrations
            For each member what corrects its predictions; nothing where there is none.
        """
        corrected = (calibrations.get(n, Calibration())(d) for n, d in self.draws.items())
        return torch.stack([draws.log_prob(self.y).logsumexp(0) for draws in corrected], dim=1)

    def member_weights(
        self, calibrations: Mapping[str, Calibration], *, prior_mean: Tensor | None = None
    ) -> Tensor:
        """Find how much each member counts in each task, (T, M).

        Parameters
        ----------
        calibrations
            For each member what corrects its predictions; nothing where there is none.
        prior_mean
            (M,), what the weights of tasks are drawn to; their mean by default.
        """
        return stacking_weights(
            self.log_density(calibrations),
            self.task,
            self.num_tasks,
            sample_weight=self.weight,
            prior_mean=prior_mean,
        ).cpu()


def of_rows(draws: Distribution, mask: Tensor) -> Distribution:
    """Take draws (S, T, N) to the rows that there are, (S, rows)."""
    return concat_draws([draws], lambda numbers: numbers[0][:, mask])
