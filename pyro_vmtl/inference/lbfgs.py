"""L-BFGS, for losses that do not depend on draws.

Evaluations of the loss are what costs, and are counted. So the steps are written here: torch's
optimizer evaluates the loss anew at the end of one call and at the start of the next, and starts by
a step whose length depends on the number of parameters.

References
----------
.. [1] Nocedal, J. and Wright, S. (2006). Numerical Optimization, algorithms 7.4, 3.5 and 3.6.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vmtl.handlers.isolation import validation
from pyro_vmtl.inference.checkpoint import Progress
from pyro_vmtl.inference.elbo import ELBOTerms
from pyro_vmtl.inference.step import Step

__all__ = ["lbfgs"]

RECORD_AFTER = 2
"""Evaluations before the first is recorded: the programs take several times as long."""

ITERATIONS = 10
"""Iterations between two looks at the loss."""

TOLERANCE = 0.05
"""Nats that these have to gain, or the loss has settled."""

LEAST_GAIN = 1e-5
"""Twice the nats that a step has to promise, or the loss has settled: less is rounding."""

HISTORY = 20
"""Steps from which the Hessian is known."""

DECREASE, CURVATURE = 1e-4, 0.9
"""Constants of the strong Wolfe conditions, the usual ones for L-BFGS."""

ROUNDING = 1e-7
"""Relative error of a loss."""

MOST_TRIALS = 20
"""Evaluations in one direction."""

RESTARTS = (60, 120)
"""Evaluations after which the source weights start anew."""

PROBE = 1e-3
"""Difference of parameters from which their curvature is estimated."""


def lbfgs(
    step_of: Step,
    done: Progress,
    report: Callable[[int, int, ELBOTerms], None],
    *,
    recordable: bool,
    restart: bool = False,
) -> None:
    """Minimize a loss, counting evaluations as steps.

    ``restart`` says whether source weights start anew on the way, see :data:`RESTARTS`.
    """
    terms = ELBOTerms()

    def evaluate() -> float:
        nonlocal terms
        step_of.recording = recordable and done.step >= RECORD_AFTER
        with validation(done.step == 0):
            loss, terms = step_of()
        done.losses.append(loss.item())
        done.step += 1
        return done.losses[-1]

    def record() -> None:
        done.terms[done.step - 1] = terms.by_name()
        report(done.step, done.end, terms)

    step_of.at_step(done.end)
    first, again = evaluate(), evaluate()
    record()
    if first != again:
        raise ValueError(
            f"optimizer is 'lbfgs', and two losses at the same parameters {first:.8g} and "
            f"{again:.8g}, expected equal ones: no term may depend on draws. Use "
            "elbo=MeanFieldELBO(num_points=4), with weights='categorical' where tasks share, or "
            "optimizer='adam'."
        )
    restarts = [end for end in RESTARTS if restart and end < done.end]
    step_of.set_alone(bool(restarts))
    for end in (*restarts, done.end):
        scaled = _Scaled(step_of.parameters, evaluate)
        scaled.set(_minimize(scaled, done, end, record))
        record()
        if end < done.end:
            step_of.set_alone(False)
            step_of.start_weights()
    done.over = True


def _minimize(loss_of: _Scaled, done: Progress, end: int, record: Callable[[], None]) -> Tensor:
    """Return the point where the loss has settled, or the last before the end."""
    here, pairs = loss_of.start, _Pairs(maxlen=HISTORY)
    before, iteration = here.loss, 0
    done.stopped = "steps"
    while done.step < end:
        direction = _direction(pairs, here.gradient)
        if here.gradient @ direction > -LEAST_GAIN:
            done.stopped = "settled"
            break
        there = _search(loss_of, here, direction, first=not pairs)
        if there is None and not pairs:
            done.stopped = "settled"
            break
        if there is None:  # perhaps along the gradient
            pairs.clear()
            continue
        step, change = there.point - here.point, there.gradient - here.gradient
        if step @ change > 0:
            pairs.append((step, change))
        here, iteration = there, iteration + 1
        if iteration % ITERATIONS == 0:
            record()
            if not before - here.loss >= TOLERANCE:
                done.stopped = "settled"
                break
            before = here.loss
    return here.point


class _Point(NamedTuple):
    """Parameters in their units, less those at the start, as one vector; loss and gradient there.

    Where the loss is not finite it is infinite, and the gradient 0.
    """

    point: Tensor
    loss: float
    gradient: Tensor


_Pairs = deque[tuple[Tensor, Tensor]]
"""The last steps, and the changes of the gradient in them."""


class _Scaled:
    """The loss of parameters in units of their own, in which steps are of like length.

    The curvatures of a mean that all rows inform and of a weight that hardly matters differ by
    many orders of magnitude. The unit of each tensor is one over the root of its mean curvature at
    the start, by a difference of gradients.
    """

    def __init__(self, parameters: list[Tensor], evaluate: Callable[[], float]) -> None:
        self.parameters = parameters
        self.evaluate = evaluate
        self.sizes = [parameter.numel() for parameter in parameters]
        self.origin = torch.cat([parameter.detach().flatten() for parameter in parameters])
        self.units = torch.ones_like(self.origin)
        zero = torch.zeros_like(self.origin)
        start = self(zero)
        curvatures = []
        for part in zero.split(self.sizes):  # which changes in place
            signs = torch.where(torch.rand_like(part) < 0.5, -1.0, 1.0)
            part.copy_(PROBE * signs)
            changed = self(zero).gradient - start.gradient
            curvatures.append((changed * zero).sum() / (PROBE**2 * len(part)))
            part.zero_()
        # steps of flat directions, as of weights that are even, are not to be long
        units = torch.stack(curvatures).abs().clamp_min(1.0).rsqrt()
        self.units = units.repeat_interleave(torch.tensor(self.sizes, device=units.device))
        self.start = start._replace(gradient=self.units * start.gradient)

    def __call__(self, point: Tensor) -> _Point:
        """Evaluate the loss and its gradient."""
        self.set(point)
        try:
            loss = self.evaluate()
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # too long a step
            loss = math.inf
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        gradient = self.units * torch.cat([gradient.flatten() for gradient in gradients])
        if not math.isfinite(loss) or not gradient.isfinite().all():
            return _Point(point, math.inf, torch.zeros_like(point))
        return _Point(point, loss, gradient)

    @torch.no_grad()
    def set(self, point: Tensor) -> None:
        """Set the parameters."""
        values = (self.origin + self.units * point).split(self.sizes)
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value.view_as(parameter))


def _direction(pairs: _Pairs, gradient: Tensor) -> Tensor:
    """Multiply the gradient by minus the inverse Hessian that the pairs tell of."""
    direction, products = -gradient, []
    for step, change in reversed(pairs):
        products.append(step @ direction / (step @ change))
        direction = direction - products[-1] * change
    if pairs:
        step, change = pairs[-1]
        direction = direction * (step @ change / (change @ change))
    for (step, change), product in zip(pairs, reversed(products), strict=True):
        direction = direction + (product - change @ direction / (step @ change)) * step
    return direction


def _search(loss_of: _Scaled, here: _Point, direction: Tensor, *, first: bool) -> _Point | None:
    """Find a point in a direction with strong Wolfe conditions; None if the loss only increases.

    At ``first``, no parameter moves by more than 1.
    """
    slope = float(here.gradient @ direction)
    length = 1 / max(1.0, float((loss_of.units * direction).abs().max())) if first else 1.0
    low, high, best, slope_low = 0.0, math.inf, here, slope
    rounding = ROUNDING * abs(here.loss)
    for _ in range(MOST_TRIALS):
        there = loss_of(here.point + length * direction)
        slope_there = float(there.gradient @ direction)
        bound = min(here.loss + DECREASE * length * slope, best.loss)
        too_high = there.loss > bound + rounding
        if not too_high and abs(slope_there) <= -CURVATURE * slope:
            return there
        if not too_high and slope_there <= 0:
            low, best, slope_low = length, there, slope_there
            length = 3 * low if math.isinf(high) else (low + high) / 2
        else:
            # to the minimum of the parabola through loss and slope at the low end, and this loss
            width, high = length - low, length
            bend = 2 * (there.loss - best.loss - slope_low * width)
            place = -slope_low * width / bend if bend > 0 else 0.5
            length = low + min(max(place, 0.1), 0.9) * width
    return best if best is not here else None
