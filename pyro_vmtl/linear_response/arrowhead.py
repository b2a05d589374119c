r"""The inverse of a Hessian in which tasks depend on each other by common numbers only.

With the numbers of each task together and the common ones last, that Hessian is an arrowhead,

.. math:: M = \begin{pmatrix} D_1 & & B_1 \\ & \ddots & \vdots \\ B_1^\top & \dots & C\end{pmatrix},

and its Cholesky factor has no entries elsewhere [1]_. P products with vectors that have number j of
every task in them find all blocks of P numbers, and as many as there are common numbers the rest. A
fit in which tasks share is near to it with the sources held: conjugate gradients, and L-BFGS in its
units, take a few steps in place of hundreds.

References
----------
.. [1] Golub, G. H. and Van Loan, C. F. Matrix Computations. 4th edition, 2013, section 4.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vmtl.linear_response.hessian import Hessian

__all__ = ["Arrowhead"]

LEAST = 1e-3
"""Least eigenvalue, relative to the curvatures of single numbers: others are taken as this."""


class Arrowhead:
    """A factorized positive definite matrix in units of which a Hessian is about the identity.

    Parameters
    ----------
    hessian
        The Hessian, without entries between numbers of different tasks.
    task
        The task of each of its numbers, (n,), and -1 for common ones.
    """

    def __init__(self, hessian: Hessian, task: Tensor) -> None:
        self._own, num_tasks = task >= 0, int(task.max()) + 1
        sizes = torch.bincount(task[self._own], minlength=num_tasks)
        order = task[self._own].argsort(stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        self._shape = num_tasks, int(sizes.max())
        self._place = task[self._own] * self._shape[1] + rank
        number = torch.full_like(task, -1).masked_scatter(self._own, rank)
        each = number == torch.arange(self._shape[1])[:, None]
        common = torch.eye(len(task), dtype=torch.bool)[~self._own]
        products = hessian.times(torch.cat([each, common]).to(hessian.gradient))
        of_tasks, of_common = products.split([len(each), len(common)])

        present = torch.arange(self._shape[1]) < sizes[:, None]
        blocks = self._by_task(of_tasks).movedim(0, 2)  # (T, P, P)
        blocks = blocks.where(present[:, None] & present[:, :, None], 0.0)
        blocks = blocks + torch.diag_embed((~present).to(blocks))
        self._factor = _positive_root(blocks, blocks)
        between = self._by_task(of_common).movedim(0, 2)  # (T, P, c)
        self._between = torch.linalg.solve_triangular(self._factor, between, upper=False)
        of_common = of_common[:, ~self._own]
        rest = of_common - (self._between.mT @ self._between).sum(0)
        self._common_factor = _positive_root(rest, of_common)

    def solve(self, vectors: Tensor) -> Tensor:
        """Multiply vectors (K, n) by the inverse of the matrix."""
        return self.from_units(self.gradient_in_units(vectors))

    def from_units(self, vectors: Tensor) -> Tensor:
        """Move vectors (K, n) from units in which the matrix is the identity."""
        factor, common_factor = self._factor.mT, self._common_factor.mT
        right = vectors[:, ~self._own].T
        common = torch.linalg.solve_triangular(common_factor, right, upper=True)
        right = self._by_task(vectors).movedim(0, 2) - self._between @ common
        own = torch.linalg.solve_triangular(factor, right, upper=True)
        return self._joined(own, common)

    def gradient_in_units(self, vectors: Tensor) -> Tensor:
        """Move gradients (K, n) to these units: multiply by the transpose."""
        right = self._by_task(vectors).movedim(0, 2)
        own = torch.linalg.solve_triangular(self._factor, right, upper=False)
        right = vectors[:, ~self._own].T - (self._between.mT @ own).sum(0)
        common = torch.linalg.solve_triangular(self._common_factor, right, upper=False)
        return self._joined(own, common)

    def _by_task(self, vectors: Tensor) -> Tensor:
        """Return the tasks' numbers of vectors (K, n), with zeros after them, (K, T, P)."""
        num_tasks, size = self._shape
        padded = vectors.new_zeros(len(vectors), num_tasks * size)
        padded[:, self._place] = vectors[:, self._own]
        return padded.unflatten(1, self._shape)

    def _joined(self, own: Tensor, common: Tensor) -> Tensor:
        """Join numbers of tasks, (T, P, K), and common ones, (c, K), to vectors (K, n)."""
        vectors = own.new_empty(own.shape[2], len(self._own))
        vectors[:, self._own] = own.movedim(2, 0).flatten(1)[:, self._place]
        vectors[:, ~self._own] = common.T
        return vectors


def _positive_root(matrix: Tensor, whole: Tensor) -> Tensor:
    r"""Return the Cholesky factors of matrices (\*B, P, P), made positive definite.

    What is small is so beside the diagonal of the ``whole`` from which the matrix is what is left.
    """
    matrix = (matrix + matrix.mT) / 2
    unit = whole.diagonal(dim1=-2, dim2=-1).abs().clamp_min(1e-30).sqrt()
    units = unit[..., None] * unit[..., None, :]
    factor, failed = torch.linalg.cholesky_ex(matrix / units)
    if not failed.any() and (factor.diagonal(dim1=-2, dim2=-1) ** 2 > LEAST).all():
        return unit[..., None] * factor
    values, directions = torch.linalg.eigh(matrix / units)
    positive = (directions * values.abs().clamp_min(LEAST)[..., None, :]) @ directions.mT
    return torch.linalg.cholesky(positive * units)
