"""The optimum of a weighted loss: from where a fit ended, and without some rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from pyro_vmtl.attribution.weighted_loss import WeightedLoss
from pyro_vmtl.inference.lbfgs import NotFactorizedError
from pyro_vmtl.linear_response.curvature import Curvature

__all__ = ["go_to_optimum", "newton_step", "polish", "polish_anew"]

Compute: TypeAlias = Callable[[], tuple[Tensor, Tensor]]

FAR, NEAR, NEARER = 1.0, 1e-4, 1e-9
"""Distances from the optimum from which L-BFGS goes first, at which one inverse is enough for what
is left, and that are near enough."""

LONG, NO_GAIN = 0.25, 0.05
"""Step, of two in a row alike, by which the logarithm of a scale shows that it has no optimum, and
the distance from where on there is next to nothing to gain by it."""

SADDLE = 0.9
"""Part of the distance that is left after a step of Newton's method where the loss descends."""

ROUNDS, EVALUATIONS, STEPS = 16, 300, 20
"""Most Hessians of a polish, evaluations of L-BFGS, and steps of Newton's method."""

RECORDED_FROM = 10
"""Evaluation from which on a recording takes the place of the programs."""


def polish(loss: WeightedLoss, weight: Tensor) -> tuple[Curvature, float]:
    """Go to an optimum from afar; return the curvature there, and how far away it may still be.

    The distance is in standard deviations, as that of :class:`~pyro_vmtl.LinearResponse`. Scales
    that would be 0 at the optimum are held on their way there: everything that is tied to them
    would become ill-conditioned. A Hessian that is no matrix is for L-BFGS only, and for the solves
    of what follows.
    """
    last, before = None, torch.inf
    for _ in range(ROUNDS):
        curvature = loss.curvature(weight)
        distance = _distance(curvature, curvature.gradient)
        if distance <= NEARER:
            break
        if not curvature.is_dense:
            if distance <= FAR / 10:
                break
            _lbfgs(loss, weight, curvature, near=FAR / 50)
            continue
        if distance > FAR:
            _lbfgs(loss, weight, curvature, near=FAR / 20)
            last = None
            continue
        step = -curvature.solve(curvature.gradient[None])[0]
        if distance >= SADDLE * before:  # nothing is left but where it descends: there downhill
            step = -curvature.from_units(curvature.gradient_in_units(curvature.gradient[None]))[0]
        before = distance
        if last is not None and distance <= NO_GAIN and last.shape == step.shape:
            endless = (step.abs() >= LONG) & (step * last >= 0.5 * last**2)
            if endless.any():
                # one is enough of a prior's scale and the scales of posteriors that follow it
                loss.hold(torch.where(endless, curvature.own, 0.0).argmax())
                last = None
                continue
        if distance > NEAR:
            _step_down(loss, weight, step)
            last = step
        elif _newton_steps(loss, weight, curvature) > 0.9 * distance:
            break
    if curvature.parameters[0] is not loss.parameters[0]:
        curvature = loss.curvature(weight)
    return curvature, _distance(curvature, curvature.gradient)


def polish_anew(loss: WeightedLoss, weight: Tensor) -> None:
    """Go to the lower of two optima: from where the fit is, and from there with even sources."""
    polish(loss, weight)
    lower, near = _evaluate(loss, weight)[0], loss.parameters
    loss.choose_anew()
    polish(loss, weight)
    if not _evaluate(loss, weight)[0] <= lower:  # or it is no number
        loss.install(near)


def _step_down(loss: WeightedLoss, weight: Tensor, step: Tensor) -> None:
    """Go a step, or the part of it that lowers the loss."""
    before, start = _evaluate(loss, weight)[0], loss.numbers
    for halvings in range(10):
        loss.numbers = start + 0.5**halvings * step
        if _evaluate(loss, weight)[0] <= before + 1e-9:
            return
    loss.numbers = start


def go_to_optimum(loss: WeightedLoss, weight: Tensor, curvature: Curvature) -> float:
    """Minimize the loss with these weights of rows, from near its optimum; return the distance."""
    _lbfgs(loss, weight, curvature, near=10 * NEAR)
    if not curvature.is_dense:
        return _distance(curvature, _evaluate(loss, weight)[1])
    return _newton_steps(loss, weight, curvature)


def _lbfgs(loss: WeightedLoss, weight: Tensor, curvature: Curvature, *, near: float) -> None:
    """Minimize the loss by L-BFGS, in units in which the given curvature is 1."""
    origin, last, count, recorded = loss.numbers, loss.numbers, 0, None
    loss.renew()

    def evaluate(point: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal last, count, recorded
        loss.move_to(origin + curvature.from_units(torch.from_numpy(point)[None])[0])
        count += 1
        try:
            if count == RECORDED_FROM:
                recorded = loss.recorded(weight)
            value, gradient = _evaluate(loss, weight, recorded)
        except NotFactorizedError:  # a step too long: a shorter one is tried
            return math.inf, last.numpy()
        last = curvature.gradient_in_units(gradient[None])[0].nan_to_num(0, 0, 0)
        return value, last.numpy()

    def stop_if_near(_: np.ndarray) -> None:
        if last.norm() <= near:
            raise StopIteration

    most = EVALUATIONS if curvature.is_dense else EVALUATIONS // 2  # units cost more, or less
    options = {"maxcor": 20, "maxiter": most, "maxfun": most, "ftol": 0, "gtol": 0}
    start, settings = np.zeros(len(origin)), {"callback": stop_if_near, "options": options}
    found = minimize(evaluate, start, jac=True, method="L-BFGS-B", **settings)
    loss.move_to(origin + curvature.from_units(torch.from_numpy(found.x)[None])[0])


def _newton_steps(loss: WeightedLoss, weight: Tensor, curvature: Curvature) -> float:
    """Take steps of Newton's method as long as the gradient falls; return the distance."""
    distance = _distance(curvature, _evaluate(loss, weight)[1])
    for _ in range(STEPS):
        if distance <= NEARER:
            break
        before, last = loss.parameters, distance
        loss.numbers = loss.numbers + newton_step(loss, weight, curvature)
        distance = _distance(curvature, _evaluate(loss, weight)[1])
        if not distance < 0.5 * last:
            loss.install(before)
            return last
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


def _evaluate(
    loss: WeightedLoss, weight: Tensor, compute: Compute | None = None
) -> tuple[float, Tensor]:
    """Compute loss and gradient; both are infinite where a step was too long."""
    try:
        value, gradient = loss.with_gradient(weight) if compute is None else compute()
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return torch.inf, torch.full_like(loss.numbers, torch.inf)
    return value.item(), gradient


def _distance(curvature: Curvature, gradient: Tensor) -> float:
    """Compute the length of a gradient in units in which the curvature is 1."""
    return float(curvature.gradient_in_units(gradient[None]).norm())
