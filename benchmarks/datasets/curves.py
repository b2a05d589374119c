r"""Targets that are not linear: Friedman's function, of other features in each group of tasks.

Classes and counts depend on it by a linear predictor, :math:`z = (f - 14) / 4.9`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from benchmarks.datasets.data_set import DataSet, split_rows
from pyro_vmtl.datasets import Split

__all__ = ["Curves"]


@dataclass(frozen=True)
class Curves(DataSet):
    r"""Tasks in groups, each group with a function of other features.

    Parameters
    ----------
    tasks
        T, the number of tasks.
    rows
        Training rows of each task.
    groups
        Number of groups, tasks in turn.
    width
        F, the number of features, of which five have an effect in a group.
    kind
        What the targets are: ``"regression"``; ``"classification"``, two classes, the second with
        log odds of 3 z; or ``"counts"``, Poisson with the rate exp(1 + 0.8 z).

    Notes
    -----
    The function is that of Friedman (1991), :math:`c_1 \sin(\pi x_1 x_2) + c_2 (x_3 - 0.5)^2 +
    c_3 x_4 + c_4 x_5` with c about (10, 20, 10, 5), each times :math:`\exp(0.2 z)` in a task, an
    intercept of standard deviation 2 and, of real targets, noise of 1. Every task has 40 test rows.
    """

    tasks: int = 30
    rows: int = 20
    groups: int = 3
    width: int = 8
    kind: Literal["regression", "classification", "counts"] = "regression"

    name: ClassVar[str] = "curves"
    provenance: ClassVar[str] = "drawn from Friedman's function, see Curves"
    licence: ClassVar[str] = "none needed"

    def __post_init__(self) -> None:
        """Check the kind."""
        if self.kind not in ("regression", "classification", "counts"):
            raise ValueError(
                f"kind is {self.kind!r}, expected 'regression', 'classification' or 'counts'."
            )

    def split(self, seed: int, *, validation: bool = False) -> Split:
        """Return the rows of one draw; with ``validation`` of another."""
        rng = np.random.RandomState([seed, validation, 7])
        num_rows = self.rows + 40
        x = rng.rand(self.tasks, num_rows, self.width)
        order = np.array([rng.permutation(self.width) for _ in range(self.groups)])
        own = np.take_along_axis(x, order[np.arange(self.tasks) % self.groups][:, None], axis=2)
        c = np.array([10, 20, 10, 5]) * np.exp(0.2 * rng.randn(self.tasks, 1, 4))
        y = c[..., 0] * np.sin(np.pi * own[..., 0] * own[..., 1])
        y = y + c[..., 1] * (own[..., 2] - 0.5) ** 2 + c[..., 2] * own[..., 3]
        y = y + c[..., 3] * own[..., 4] + 2 * rng.randn(self.tasks, 1)
        z = (y - 14) / 4.9
        if self.kind == "classification":
            y = np.where(rng.logistic(size=z.shape) < 3 * z, "high", "low")
        else:
            counts = self.kind == "counts"
            y = rng.poisson(np.exp(1 + 0.8 * z)) if counts else y + rng.randn(*z.shape)
        x = (x - 0.5) * np.sqrt(12)
        return split_rows(x, y, self.rows)
