"""The Hessian of a loss and its inverse, times vectors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["AT_ONCE", "Curvature", "Hessian"]

MOST_DENSE = 8_000
"""Numbers up to which the Hessian is a matrix, of half a GB then."""

AT_ONCE = 64
"""Vectors that go through the graph of the gradient together."""

LEAST_CURVATURE, FLAT = 1e-9, 1e-6  # added, for flat directions; held beside some that descend
PROBES, MOST_ITERATIONS, TOLERANCE = 32, 1_000, 1e-6  # of conjugate gradients


class Hessian:
    """The Hessian of a loss with respect to the n ``free`` numbers among its parameters.

    ``gradient`` is (n,), and ``graph`` the same with a graph.
    """

    def __init__(self, loss: Tensor, parameters: Sequence[Tensor], free: Tensor) -> None:
        self.parameters = tuple(parameters)
        self.free = free
        found = torch.autograd.grad(loss, self.parameters, create_graph=True, allow_unused=True)
        self.graph = self._join(found, ())
        self.gradient = self.graph.detach()

    def pull_back(self, values: Tensor, vectors: Tensor) -> Tensor:
        """Multiply vectors (K, M) by the Jacobian of values (M,) that have a graph, (K, n)."""
        products = []
        for some in vectors.split(AT_ONCE):
            found = torch.autograd.grad(
                values, self.parameters, some, True, allow_unused=True, is_grads_batched=True
            )
            products.append(self._join(found, some.shape[:1]))
        return torch.cat(products)

    def times(self, vectors: Tensor) -> Tensor:
        """Multiply vectors (K, n) by the Hessian."""
        return self.pull_back(self.graph, vectors)

    def _join(self, found: Sequence[Tensor | None], batch: Sequence[int]) -> Tensor:
        """Join gradients, of a batch of vectors, to those of the free numbers."""
        parts = [
            p.new_zeros(*batch, p.numel()) if g is None else g.reshape(*batch, -1)
            for g, p in zip(found, self.parameters, strict=True)
        ]
        return torch.cat(parts, -1)[..., self.free]


class Curvature(Hessian):
    """The Hessian and its inverse.

    A small one is factorized. A large one, of more than ``most_dense`` numbers, is never made:
    conjugate gradients take some 50 products with vectors for a solution. Directions along which
    the loss descends have no optimum, and are held; ``descent`` is the largest such curvature,
    relative to those of the numbers themselves. ``residual`` is the largest relative one of all
    solutions.
    """

    def __init__(
        self,
        loss: Tensor,
        parameters: Sequence[Tensor],
        free: Tensor,
        *,
        most_dense: int | None = None,
    ) -> None:
        super().__init__(loss, parameters, free)
        self.descent = self.residual = 0.0
        self.is_dense = len(self.gradient) <= (MOST_DENSE if most_dense is None else most_dense)
        self._unit, self._solve_in_units, self._root = self._factorize()

    def solve(self, vectors: Tensor) -> Tensor:
        """Multiply vectors (K, n) by the inverse of the Hessian."""
        if self._solve_in_units is None:
            solution, residual = self._conjugate_gradients(vectors)
        else:
            solution = self._unit * self._solve_in_units(self._unit * vectors)
            # of one, to check, but for what is held
            missed = self._unit * (vectors[:1] - self.times(solution[:1]))
            residual = self.times(self._unit * self._solve_in_units(missed)) * (self._unit > 0)
        size = vectors[: len(residual)].norm(dim=1).clamp_min(1e-300)
        self.residual = max(self.residual, float((residual.norm(dim=1) / size).max()))
        if self.residual > 1e-3:
            warnings.warn(
                f"A system with the Hessian has a relative residual of {self.residual:.2g}: the "
                "loss has a direction that descends, or is nearly flat.",
                stacklevel=3,
            )
        return solution

    @property
    def own(self) -> Tensor:
        """The curvature along each number, (n,), 0 where the loss descends."""
        return torch.where(self._unit > 0, self._unit**-2, 0.0)

    def from_units(self, vectors: Tensor) -> Tensor:
        """Move vectors (K, n) from units in which the Hessian is about the identity."""
        return self._unit * (vectors if self._root is None else vectors @ self._root.T)

    def gradient_in_units(self, vectors: Tensor) -> Tensor:
        """Move gradients (K, n) to these units: multiply by the transpose."""
        return self._unit * vectors if self._root is None else (self._unit * vectors) @ self._root

    def _factorize(self) -> tuple[Tensor, Callable[[Tensor], Tensor] | None, Tensor | None]:
        """Return units of the free numbers, a function that solves systems in them, and a root.

        The root, times its transpose, is the inverse of the Hessian in these units, with curvatures
        that are negative taken as positive.
        """
        size = len(self.gradient)
        if not self.is_dense:
            signs = torch.randint(2, (PROBES, size)).to(self.gradient) * 2 - 1
            diagonal = signs * self.times(signs)
            error = diagonal.std(0) / math.sqrt(PROBES)  # of what is small, the estimate is noise
            return (diagonal.mean(0).abs() + error).clamp_min(1e-30).rsqrt(), None, None
        matrix = self.times(torch.eye(size).to(self.gradient))
        matrix = (matrix + matrix.T) / 2
        diagonal = matrix.diagonal()
        # numbers along which the loss descends are held, by a unit of 0
        unit = torch.where(diagonal > 1e-12 * diagonal.max(), diagonal.rsqrt(), 0.0)
        matrix.mul_(unit).mul_(unit[:, None])
        matrix.diagonal().add_(LEAST_CURVATURE)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not failed:
            eye = torch.eye(size).to(factor)
            root = torch.linalg.solve_triangular(factor.T, eye, upper=True)
            return unit, lambda vectors: (vectors @ root) @ root.T, root
        values, directions = torch.linalg.eigh(matrix)
        self.descent = -float(values[0])
        inverse = torch.where(values > FLAT, 1 / values, 0.0)
        root = directions * values.abs().clamp_min(FLAT).rsqrt()
        return unit, lambda vectors: (vectors @ directions * inverse) @ directions.T, root

    def _conjugate_gradients(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Solve for all vectors (K, n) at once; return solutions and residuals."""
        precondition = self._unit**2
        solution, residual = torch.zeros_like(vectors), vectors.clone()
        step = precondition * residual
        size = (residual * step).sum(1)
        enough = TOLERANCE * vectors.norm(dim=1)
        for _ in range(MOST_ITERATIONS):
            product = self.times(step)
            curvature = (step * product).sum(1)
            # where it descends, what was found before is left
            going = (residual.norm(dim=1) > enough) & (curvature > 0)
            if not going.any():
                break
            length = torch.where(going, size / curvature, 0.0)[:, None]
            solution += length * step
            residual -= length * product
            before, size = size, (precondition * residual**2).sum(1)
            step = precondition * residual + torch.where(going, size / before, 0.0)[:, None] * step
        return solution, residual
