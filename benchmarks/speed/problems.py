"""Problems to time a step on: shapes, and random rows of those shapes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vmtl import TaskData

__all__ = ["Shapes", "random_rows"]


@dataclass(frozen=True)
class Shapes:
    """Sizes of a problem: T tasks of N rows each, F features, C classes, D latent numbers."""

    T: int = 4
    N: int = 40
    F: int = 64
    C: int = 10
    D: int | None = None

    def __str__(self) -> str:
        latent = f", latent {self.D}" if self.D else ""
        return f"T={self.T}, C={self.C}, F={self.F}{latent}, {self.N} rows per task"


def random_rows(shapes: Shapes) -> TaskData:
    """Draw rows: normal features, and classes by a linear rule that tasks have mostly in common."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    X = normal(shapes.T, shapes.N, shapes.F)
    y = X @ (normal(shapes.F, shapes.C) + 0.3 * normal(shapes.T, shapes.F, shapes.C))
    tasks = torch.arange(shapes.T).repeat_interleave(shapes.N).tolist()
    labels = y.argmax(-1).flatten()
    return TaskData.classification(X.flatten(0, 1), labels, tasks, classes=range(shapes.C))
