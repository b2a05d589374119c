"""Tasks in groups, made up: the truth about who is related is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from benchmarks.datasets.data_set import DataSet
from pyro_vmtl.datasets import Split

__all__ = ["GroupedTasks"]


@dataclass(frozen=True)
class GroupedTasks(DataSet):
    r"""Linear regressions whose coefficients lie about the centre of their group.

    Parameters
    ----------
    tasks
        T, the number of tasks.
    groups
        Number of groups. Task t is in group t modulo this.
    rows
        Training rows of each task.
    features
        F. The features are standard normal.
    within
        Standard deviation of the coefficients in a group, relative to that between groups.
    noise
        Standard deviation of the noise, relative to that of the mean of the targets.

    Notes
    -----
    With :math:`c_g \sim N(0, I / F)` and :math:`w_t \sim N(c_{g(t)}, \text{within}^2 I / F)`, the
    target is :math:`w_t^\top x` and noise. Every task has 200 test rows. A seed makes the
    coefficients and the rows; seeds for validation make others.
    """

    tasks: int = 32
    groups: int = 4
    rows: int = 40
    features: int = 16
    within: float = 0.2
    noise: float = 0.5

    name: ClassVar[str] = "synthetic"
    kind: ClassVar[Literal["regression"]] = "regression"
    provenance: ClassVar[str] = "drawn from a normal hierarchy, see GroupedTasks"
    licence: ClassVar[str] = "none needed"

    def __post_init__(self) -> None:
        """Check the settings."""
        for name, value in (("rows", self.rows), ("features", self.features)):
            if value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1.")
        if not 1 <= self.groups <= self.tasks:
            raise ValueError(f"groups is {self.groups}, expected 1 to {self.tasks}, the tasks.")

    @property
    def group(self) -> list[int]:
        """The group of each task, (T,)."""
        return [task % self.groups for task in range(self.tasks)]

    def split(self, seed: int, *, validation: bool = False) -> Split:
        """Return the rows of one draw; with ``validation`` of another."""
        rng = np.random.RandomState([seed, validation])
        centre = rng.randn(self.groups, self.features)
        w = centre[self.group] + self.within * rng.randn(self.tasks, self.features)
        parts = []
        for rows in (self.rows, 200):
            x = rng.randn(self.tasks, rows, self.features)
            mean = np.einsum("tnf,tf->tn", x, w) / np.sqrt(self.features)
            y = mean + self.noise * rng.randn(self.tasks, rows)
            task = np.repeat(np.arange(self.tasks), rows)
            parts.append((x.reshape(-1, self.features), y.ravel(), task))
        (X_train, y_train, train), (X_test, y_test, test) = parts
        return Split(
            X_train=X_train,
            y_train=y_train,
            tasks_train=[*train.tolist()],
            origin_train=np.arange(len(train)),
            X_test=X_test,
            y_test=y_test,
            tasks_test=[*test.tolist()],
            origin_test=len(train) + np.arange(len(test)),
        )
