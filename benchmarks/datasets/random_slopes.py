"""Random slopes, made up: many tasks, few rows, and coefficients that vary by different scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from benchmarks.datasets.data_set import DataSet, split_rows
from pyro_vmtl.datasets import Split

__all__ = ["RandomSlopes"]


@dataclass(frozen=True)
class RandomSlopes(DataSet):
    r"""Linear regressions whose coefficients vary about a common mean.

    Parameters
    ----------
    tasks
        T, the number of tasks.
    rows
        Training rows of each task.
    width
        F, the number of features.
    collinear
        Whether the features are combinations of a third as many, and a little noise.

    Notes
    -----
    With :math:`\log\tau_d \sim N(\log 0.4, 1)`, :math:`m_d \sim N(0, 0.7^2)` and
    :math:`w_{td} \sim N(m_d, \tau_d^2)`, the target is :math:`w_t^\top x + b_t` and noise with
    :math:`\log\sigma_t \sim N(\log 0.7, 0.3^2)`. The slopes of a third of the features do not vary,
    and half of those are 0. Every task has 20 test rows.
    """

    tasks: int = 200
    rows: int = 10
    width: int = 15
    collinear: bool = False

    name: ClassVar[str] = "random-slopes"
    kind: ClassVar[Literal["regression"]] = "regression"
    provenance: ClassVar[str] = "drawn from a normal hierarchy, see RandomSlopes"
    licence: ClassVar[str] = "none needed"

    def split(self, seed: int, *, validation: bool = False) -> Split:
        """Return the rows of one draw; with ``validation`` of another."""
        rng = np.random.RandomState([seed, validation])
        F, num_rows = self.width, self.rows + 20
        x = rng.randn(self.tasks, num_rows, F)
        if self.collinear:
            loadings = rng.randn(max(2, F // 3), F) / np.sqrt(max(2, F // 3))
            x = rng.randn(self.tasks, num_rows, len(loadings)) @ loadings + 0.3 * x
        scale, mean = 0.4 * np.exp(rng.randn(F)), 0.7 * rng.randn(F)
        constant = rng.permutation(F)[: F // 3]
        scale[constant], mean[constant[::2]] = 0.0, 0.0
        w = mean + scale * rng.randn(self.tasks, F)
        noise = 0.7 * np.exp(0.3 * rng.randn(self.tasks, 1)) * rng.randn(self.tasks, num_rows)
        y = np.einsum("tnf,tf->tn", x, w) + rng.randn(self.tasks, 1) + noise
        return split_rows(x, y, self.rows)
