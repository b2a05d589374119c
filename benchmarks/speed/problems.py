"""Problems to time a step on: shapes, and random rows of these shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyro_vmtl import TaskData

__all__ = ["Shapes", "random_rows", "unequal"]


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
    """Draw rows: normal features, and classes by a linear rule that tasks mostly share."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    X = normal(shapes.T, shapes.N, shapes.F)
    y = X @ (normal(shapes.F, shapes.C) + 0.3 * normal(shapes.T, shapes.F, shapes.C))
    tasks = torch.arange(shapes.T).repeat_interleave(shapes.N).tolist()
    labels = y.argmax(-1).flatten()
    return TaskData.classification(X.flatten(0, 1), labels, tasks, classes=range(shapes.C))


def unequal(data: TaskData, least: int) -> TaskData:
    """Drop rows, so that task sizes range from ``least`` to all rows by equal factors."""
    sizes = torch.logspace(math.log10(least), math.log10(data.num_rows), data.num_tasks).round()
    mask = torch.arange(data.num_rows) < sizes[:, None]
    row = (mask.flatten().cumsum(0) - 1).reshape(mask.shape).masked_fill(~mask, -1)
    y = data.y.masked_fill(~mask, 0)
    return replace(data, x=data.x * mask[..., None], y=y, mask=mask, row=row)
