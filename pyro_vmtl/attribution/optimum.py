"""The optimum of a weighted loss: from where a fit ended, and without some rows."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from pyro_vmtl.attribution.weighted_loss import WeightedLoss
from pyro_vmtl.linear_response.curvature import Curvature

__all__ = ["go_to_optimum", "newton_step", "polish"]

NEAR = 1e-6
"""Standard deviations from the optimum that are near enough."""

SLOW = 1e-3
"""Distance below which a polish that has become slow ends."""

ROUNDS, EVALUATIONS, STEPS = 8, 300, 20
"""Most curvatures of a polish, evaluations with each of them, and steps of Newton's method."""


def polish(loss: WeightedLoss, *, most_dense: int | None = None) -> tuple[Curvature, float]:
    """Go to the optimum of a fit; return the curvature there, and how far away it may still be.

    The distance is in standard deviations, as that of :class:`~pyro_vmtl.LinearResponse`.
    """
    curvature = loss.curvature(loss.weight, most_dense=most_dense)
    distance = _distance(curvature, curvature.gradient)
    for _ in range(ROUNDS):
        if distance <= NEAR:
            break
        go_to_optimum(loss, loss.weight, curvature)
        curvature = loss.curvature(loss.weight, most_dense=most_dense)
        before, distance = distance, _distance(curvature, curvature.gradient)
        if 0.5 * before < distance < SLOW:  # along a number that has no optimum
            break
    return curvature, distance


def go_to_optimum(loss: WeightedLoss, weight: Tensor, curvature: Curvature) -> float:
    """Minimize the loss with these weights of rows, from the current parameters.

    L-BFGS in units in which the given curvature is 1, then steps of Newton's method with it: the
    digits of a loss end long before those of its gradient. Return the distance from the optimum.
    """
    origin = loss.numbers

    def evaluate(point: np.ndarray) -> tuple[float, np.ndarray]:
        moved = curvature.from_units(torch.from_numpy(point).to(origin)[None])[0]
        loss.numbers = origin + moved
        try:
            value, gradient = _evaluate(loss, weight)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # too long a step
            return np.inf, np.zeros_like(point)
        return value, curvature.gradient_in_units(gradient[None])[0].numpy()

    found = minimize(
        evaluate,
        np.zeros(len(origin)),
        jac=True,
        method="L-BFGS-B",
        options={"maxcor": 20, "maxiter": EVALUATIONS, "maxfun": EVALUATIONS, "ftol": 0.0}
        | {"gtol": NEAR / 10},
    )
    evaluate(found.x)
    gradient = _evaluate(loss, weight)[1]
    distance = _distance(curvature, gradient)
    for _ in range(STEPS):
        if distance <= NEAR / 1000:
            break
        before = loss.numbers
        loss.numbers = before - curvature.solve(gradient[None])[0]
        moved = _evaluate(loss, weight)[1]
        if not _distance(curvature, moved) < 0.9 * distance:
            loss.numbers = before
            break
        gradient, distance = moved, _distance(curvature, moved)
    return distance


def newton_step(loss: WeightedLoss, weight: Tensor, curvature: Curvature) -> Tensor:
    """Return one step of Newton's method towards the optimum with these weights, (n,).

    The system with the Hessian of the changed loss is solved by conjugate gradients, which the
    inverse of the given one preconditions: a row adds to few directions only.
    """
    hessian = loss.hessian(weight)
    residual = -hessian.gradient
    solution = torch.zeros_like(residual)
    step = better = curvature.solve(residual[None])[0]
    size = enough = residual @ better
    for _ in range(STEPS):
        product = hessian.times(step[None])[0]
        bend = step @ product
        if size <= 1e-20 * enough or bend <= 0:  # where it descends, what was found is left
            break
        solution = solution + size / bend * step
        residual = residual - size / bend * product
        better = curvature.solve(residual[None])[0]
        before, size = size, residual @ better
        step = better + size / before * step
    return solution


def _evaluate(loss: WeightedLoss, weight: Tensor) -> tuple[float, Tensor]:
    """Compute loss and gradient."""
    value = loss(weight)
    found = torch.autograd.grad(value, loss.parameters, allow_unused=True)
    parts = [
        torch.zeros_like(p) if g is None else g for g, p in zip(found, loss.parameters, strict=True)
    ]
    return value.item(), torch.cat([part.flatten() for part in parts])[loss.free]


def _distance(curvature: Curvature, gradient: Tensor) -> float:
    """Compute the length of a gradient in units in which the curvature is 1."""
    return float(curvature.gradient_in_units(gradient[None]).norm())
