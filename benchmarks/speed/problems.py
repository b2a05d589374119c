"""Problems to time a step on: shapes, and random rows of those shapes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vmtl import TaskData

__all__ = ["Shapes", "random_rows"]


@dataclass(frozen=True)
class Shapes:
    """Sizes of a problem, by the letters of the docstrings: T tasks of N rows, F, C, D."""

    T: int
    N: int = 40
    F: int = 64
    C: int = 10
    D: int | None = None

    def __str__(self) -> str:
        latent = f", latent {self.D}" if self.D else ""
        return f"T={self.T}, C={self.C}, F={self.F}{latent}, {self.N} rows per task"


def random_rows(shapes: Shapes, *, seed: int = 0) -> TaskData:
    """Draw rows: normal features, and classes by a linear rule that tasks have mostly in common."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    rows = shapes.T * shapes.N
    X = normal(rows, shapes.F)
    task = torch.arange(shapes.T).repeat_interleave(shapes.N)
    w = normal(shapes.F, shapes.C) + 0.3 * normal(shapes.T, shapes.F, shapes.C)
    scores = (
        torch.einsum("nf,nfc->nc", X, w[task]) if rows * shapes.F * shapes.C < 1e8 else X @ w[0]
    )
    return TaskData.classification(
        X, (scores + normal(rows, shapes.C)).argmax(1), task.tolist(), classes=range(shapes.C)
    )
