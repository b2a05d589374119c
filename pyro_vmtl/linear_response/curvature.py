"""The Hessian of a loss and its inverse, times vectors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_vmtl.linear_response.arrowhead import Arrowhead
from pyro_vmtl.linear_response.hessian import Hessian

__all__ = ["MOST_DENSE", "Curvature"]

MOST_DENSE = 8_000
"""Numbers up to which the Hessian is a matrix, of half a GB then."""

LEAST_CURVATURE, FLAT = 1e-9, 1e-6  # added, for flat directions; held beside some that descend
PROBES, MOST_ITERATIONS, TOLERANCE = 32, 1_000, 1e-6  # of conjugate gradients


class Curvature(Hessian):
    """The Hessian and its inverse.

    A small one is factorized. A large one, of more than ``most_dense`` numbers, is never made:
    conjugate gradients take some 50 products with vectors for a solution, and fewer in the units of
    a matrix that is ``near`` to it. Directions along which the loss descends have no optimum, and
    are held; ``descent`` is the largest such curvature, relative to those of the numbers
    themselves. ``residual`` is the largest relative one of all solutions.
    """

    def __init__(
        self,
        loss: Tensor,
        parameters: Sequence[Tensor],
        free: Tensor,
        *,
        most_dense: int = MOST_DENSE,
        near: Arrowhead | None = None,
    ) -> None:
        super().__init__(loss, parameters, free)
        self._near = near
        self.descent = self.residual = 0.0
        self.is_dense = len(self.gradient) <= most_dense
        self._unit, self._solve_in_units, self._root = self._factorize()

    def solve(self, vectors: Tensor, *, tolerance: float = TOLERANCE) -> Tensor:
        """Multiply vectors (K, n) by the inverse of the Hessian; a large one up to a tolerance."""
        if self._solve_in_units is None:
            solution, residual = self._conjugate_gradients(vectors, tolerance)
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
        if self._near is not None:
            return self._near.from_units(vectors)
        return self._unit * (vectors if self._root is None else vectors @ self._root.T)

    def gradient_in_units(self, vectors: Tensor) -> Tensor:
        """Move gradients (K, n) to these units: multiply by the transpose."""
        if self._near is not None:
            return self._near.gradient_in_units(vectors)
        return self._unit * vectors if self._root is None else (self._unit * vectors) @ self._root

    def _factorize(self) -> tuple[Tensor, Callable[[Tensor], Tensor] | None, Tensor | None]:
        """Return units of the free numbers, a function that solves systems in them, and a root.

        The root, times its transpose, is the inverse of the Hessian in these units, with curvatures
        that are negative taken as positive.
        """
        size = len(self.gradient)
        if self._near is not None:
            return torch.ones_like(self.gradient), None, None
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

    def _conjugate_gradients(self, vectors: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
        """Solve for all vectors (K, n) at once; return solutions and residuals.

        Block conjugate gradients in units, with orthonormal residuals [1]_: all solutions are
        sought among the directions of all, of which fewer are needed.

        References
        ----------
        .. [1] A. A. Dubrulle. Retooling the method of block conjugate gradients. Electronic
           Transactions on Numerical Analysis 12, 2001, algorithm BCGrQ.
        """
        right = self.gradient_in_units(vectors).T
        solution = torch.zeros_like(right)
        direction, size = torch.linalg.qr(right)
        residual, enough = direction, tolerance * right.norm(dim=0)
        for _ in range(MOST_ITERATIONS):
            if (size.norm(dim=0) <= enough).all():
                break
            product = self.gradient_in_units(self.times(self.from_units(direction.T))).T
            curvature = direction.T @ product
            values, along = torch.linalg.eigh((curvature + curvature.T) / 2)
            if values[-1] <= 0:
                break
            # where it descends, what was found before is left
            inverse = torch.where(values > FLAT * values[-1], 1 / values, 0.0)
            length = (along * inverse) @ along.T
            solution += direction @ (length @ size)
            residual, turned = torch.linalg.qr(residual - product @ length)
            direction = residual + direction @ turned.T
            size = turned @ size
        found = self.from_units(solution.T)
        return found, vectors[:1] - self.times(found[:1])
