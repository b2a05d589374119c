"""L-BFGS, for losses that do not depend on draws.

Evaluations of the loss are what costs, and are counted. SciPy's L-BFGS-B repeats none; torch's
optimizer evaluates the loss anew at the end of one call and at the start of the next.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import OptimizeResult, minimize
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

MUCH_WORSE = 1e6
"""Nats by which a point where the loss is not finite is worse than the last."""

ROUGH = 5.0
"""Nats that a gradient promises, in its units, at an end that is none: others are below 0.3."""

HISTORY = 20
"""Steps from which the Hessian is known."""

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
    """Return the point where the loss has settled, or the best before the end."""
    like, looks = loss_of.start.point, [loss_of.start.loss]
    iterations = count(1)
    settled = False
    best = loss_of.start

    def evaluate(values: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best
        there = loss_of(torch.from_numpy(values).to(like))
        if there.loss < best.loss:
            best = there
        loss = there.loss if math.isfinite(there.loss) else looks[-1] + MUCH_WORSE
        return loss, there.gradient.double().cpu().numpy()

    def look(intermediate_result: OptimizeResult) -> None:
        nonlocal settled
        if next(iterations) % ITERATIONS == 0:
            record()
            looks.append(intermediate_result.fun)
            settled = not looks[-2] - looks[-1] >= TOLERANCE
            if settled:
                raise StopIteration

    # A line search that fails, as in a narrow valley, ends SciPy's run: start anew from the best.
    gained = math.inf
    while not settled and done.step < end and gained >= TOLERANCE:
        before = best.loss
        minimize(
            evaluate,
            best.point.double().cpu().numpy(),
            jac=True,
            method="L-BFGS-B",
            callback=look,
            options={
                "maxcor": HISTORY,
                "maxfun": max(end - done.step, 1),
                "maxiter": end,
                "ftol": 0.0,
                "gtol": 0.0,
            },
        )
        gained = before - best.loss
        promised = best.gradient.square().sum().item() / 2
        settled = settled or promised < ROUGH
    if not settled and done.step < end:
        warnings.warn(
            f"No lower loss was found along a gradient that promises some {promised:.2g} nats: the "
            "loss is too rough in single precision, or has no optimum, as where noise vanishes. "
            "Fit in double precision: call double() of model and guide (for autoguides "
            "torch.set_default_dtype before), and pass rows in float64.",
            stacklevel=4,
        )
    done.stopped = "steps" if done.step >= end else "settled"
    return best.point


class _Point(NamedTuple):
    """Parameters in their units, less those at the start, as one vector; loss and gradient there.

    Where the loss is not finite it is infinite, and the gradient 0.
    """

    point: Tensor
    loss: float
    gradient: Tensor


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
