"""The inverse of the Hessian of a loss, times vectors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["Curvature"]

MOST_DENSE = 8_000
"""Numbers up to which the Hessian is a matrix, of half a GB then."""

AT_ONCE = 64
"""Vectors that go through the graph of the gradient together."""

LEAST_CURVATURE, FLAT = 1e-9, 1e-6  # added, for flat directions; held beside some that descend
PROBES, MOST_ITERATIONS, TOLERANCE = 32, 1_000, 1e-6  # of conjugate gradients


class Curvature:
    """The Hessian of a loss with respect to the n ``free`` numbers among its parameters.

    A small one is factorized. A large one is never made: conjugate gradients take some 50 products
    with vectors for a solution. Directions along which the loss descends have no optimum, and are
    held; ``descent`` is the largest such curvature, relative to those of the numbers themselves.
    ``residual`` is the largest relative one of all solutions.
    """

    def __init__(self, loss: Tensor, parameters: Sequence[Tensor], free: Sequence[Tensor]) -> None:
        self.parameters = tuple(parameters)
        self.free = torch.cat([mask.flatten() for mask in free])
        found = torch.autograd.grad(loss, self.parameters, create_graph=True, allow_unused=True)
        self._graph = self._join(found, ())
        self.gradient = self._graph.detach()
        self.descent = self.residual = 0.0
        self._unit, self._solve_in_units = self._factorize()

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
        return self.pull_back(self._graph, vectors)

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

    def _join(self, found: Sequence[Tensor | None], batch: Sequence[int]) -> Tensor:
        """Join gradients, of a batch of vectors, to those of the free numbers."""
        parts = [
            p.new_zeros(*batch, p.numel()) if g is None else g.reshape(*batch, -1)
            for g, p in zip(found, self.parameters, strict=True)
        ]
        return torch.cat(parts, -1)[..., self.free]

    def _factorize(self) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
        """Return units of the free numbers, and a function that solves systems in them."""
        size = len(self.gradient)
        if size > MOST_DENSE:
            signs = torch.randint(2, (PROBES, size)).to(self.gradient) * 2 - 1
            diagonal = signs * self.times(signs)
            error = diagonal.std(0) / math.sqrt(PROBES)  # of what is small, the estimate is noise
            return (diagonal.mean(0).abs() + error).clamp_min(1e-30).rsqrt(), None
        matrix = self.times(torch.eye(size).to(self.gradient))
        matrix = (matrix + matrix.T) / 2
        diagonal = matrix.diagonal()
        # numbers along which the loss descends are held, by a unit of 0
        unit = torch.where(diagonal > 1e-12 * diagonal.max(), diagonal.rsqrt(), 0.0)
        matrix.mul_(unit).mul_(unit[:, None])
        matrix.diagonal().add_(LEAST_CURVATURE)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not failed:
            return unit, lambda vectors: torch.cholesky_solve(vectors.T, factor).T
        values, directions = torch.linalg.eigh(matrix)
        self.descent = -float(values[0])
        inverse = torch.where(values > FLAT, 1 / values, 0.0)
        return unit, lambda vectors: (vectors @ directions * inverse) @ directions.T

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
