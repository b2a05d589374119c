"""What fits predict of rows that they did not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_vmtl.calibration import Calibration
from pyro_vmtl.mixture import remade

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
    """

    draws: Mapping[str, Distribution]
    y: Tensor
    task: Tensor
    num_tasks: int

    @classmethod
    def joined(cls, parts: Sequence[HeldOut]) -> HeldOut | None:
        """Put the rows of all folds one after the other; None where there are none."""
        if not any(len(part.y) for part in parts):
            return None
        draws = {
            name: remade([part.draws[name] for part in parts], partial(torch.cat, dim=1))
            for name in parts[0].draws
        }
        y, task = (torch.cat([getattr(part, n) for part in parts]) for n in ("y", "task"))
        return cls(draws, y, task, parts[0].num_tasks)

    def calibrations(self) -> dict[str, Calibration]:
        """Learn what corrects each member's predictions."""
        return {name: Calibration.learn(draws, self.y) for name, draws in self.draws.items()}

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


def of_rows(draws: Distribution, mask: Tensor) -> Distribution:
    """Take draws (S, T, N) to the rows that there are, (S, rows)."""
    return remade([draws], lambda numbers: numbers[0][:, mask])
