"""L-BFGS, for losses that do not depend on draws.

Evaluations of the loss are what costs, and are counted; with many numbers the optimizer's own
arithmetic is next. SciPy's L-BFGS-B, which is for bounded problems, takes a third as long as a loss
of 50,000 numbers; torch's optimizer evaluates losses twice, and imports torch's compiler. Here it
is a generator, which asks for the loss and its gradients where the parameters are: so several fits
can ask at once.

References
----------
.. [1] J. Nocedal and S. Wright. Numerical Optimization, 2006, algorithms 7.4 (two loops) and 3.5
   (Wolfe's conditions), equation 3.59 (cubic interpolation).
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Generator
from operator import attrgetter
from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.linalg import LinAlgError as NotFactorizedError  # type: ignore[attr-defined]

from pyro_vmtl.inference.checkpoint import Progress
from pyro_vmtl.inference.elbo import ELBOTerms
from pyro_vmtl.inference.step import Step

__all__ = ["Evaluations", "NotFactorizedError", "lbfgs"]

T = TypeVar("T")

Evaluations: TypeAlias = Generator[None, tuple[Tensor, ELBOTerms], T]
"""What yields where it needs the loss, and is sent loss and terms, with the gradients set."""

RECORD_AFTER = 2
"""Evaluations before the first is recorded: the programs take several times as long."""

ITERATIONS = 10
"""Iterations between two looks at the loss."""

TOLERANCE = 0.05
"""Nats that these have to gain, or the loss has settled."""

ROUGH = 5.0
"""Nats that a gradient promises, in its units, at an end that is none: others are below 0.3."""

HISTORY = 20
"""Steps from which the Hessian is known."""

LEAST_DESCENT, MOST_SLOPE = 1e-4, 0.9
"""Of the descent and the slope that a line promises, what is enough (Wolfe's conditions)."""

MOST_OF_LINE = 20
"""Evaluations along one line."""

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
) -> Evaluations[None]:
    """Minimize a loss, counting evaluations as steps.

    ``restart`` says whether source weights start anew on the way, see :data:`RESTARTS`.
    """
    terms = ELBOTerms()

    def evaluate() -> Evaluations[float]:
        nonlocal terms
        step_of.recording = recordable and done.step >= RECORD_AFTER
        loss, terms = yield
        done.losses.append(loss.item())
        done.step += 1
        return done.losses[-1]

    def record() -> None:
        done.terms[done.step - 1] = terms.by_name()
        report(done.step, done.end, terms)

    step_of.at_step(done.end)
    first = yield from evaluate()
    again = yield from evaluate()
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
        yield from scaled.choose_units()
        scaled.set((yield from _minimize(scaled, done, end, record)))
        record()
        if end < done.end:
            step_of.set_alone(False)
            step_of.start_weights()
    done.over = True


def _minimize(
    loss_of: _Scaled, done: Progress, end: int, record: Callable[[], None]
) -> Evaluations[Tensor]:
    """Return the point where the loss has settled, or the best before the end."""
    there = loss_of.start
    looks, iterations = [there.loss], 0
    memory, settled = _Memory(), False
    while not settled and done.step < end:
        direction = memory.newton_step(there.gradient)
        step = 1.0 if memory else min(1.0, 1 / float(direction.norm().clamp_min(1e-30)))
        found = yield from _search_line(loss_of, there, direction, step, end - done.step)
        if found is not there:
            memory.add(found.point - there.point, found.gradient - there.gradient)
            there = found
        elif memory:  # as in a narrow valley: start anew
            memory = _Memory()
        else:
            break
        iterations += 1
        if iterations % ITERATIONS == 0:
            record()
            looks.append(there.loss)
            settled = not looks[-2] - looks[-1] >= TOLERANCE
    promised = there.gradient.square().sum().item() / 2
    if not settled and done.step < end and promised >= ROUGH:
        warnings.warn(
            f"No lower loss was found along a gradient that promises some {promised:.2g} nats: the "
            "loss is too rough in single precision, or has no optimum, as where noise vanishes. "
            "Fit in double precision: call double() of model and guide (for autoguides "
            "torch.set_default_dtype before), and pass rows in float64.",
            stacklevel=4,
        )
    done.stopped = "steps" if done.step >= end else "settled"
    return there.point


class _Memory:
    """The last steps and how gradients changed along them, from which L-BFGS knows the Hessian."""

    def __init__(self) -> None:
        self.pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=HISTORY)

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remember a step, if the loss is convex along it."""
        product = float(step @ change)
        if product > 0:
            self.pairs.append((step, change, 1 / product))

    def newton_step(self, gradient: Tensor) -> Tensor:
        """Multiply a gradient by minus the inverse Hessian, by two loops over the steps [1]_."""
        direction, parts = -gradient, []
        for step, change, inverse in reversed(self.pairs):
            parts.append(inverse * float(step @ direction))
            direction.add_(change, alpha=-parts[-1])  # in place: these passes are what costs
        if self.pairs:
            _, change, inverse = self.pairs[-1]
            direction /= inverse * float(change @ change)
        for (step, change, inverse), part in zip(self.pairs, reversed(parts), strict=True):
            direction.add_(step, alpha=part - inverse * float(change @ direction))
        return direction


def _search_line(
    loss_of: _Scaled, start: _Point, direction: Tensor, step: float, most: int
) -> Evaluations[_Point]:
    """Return a point along a line where loss and slope have fallen enough, else the lowest."""
    slope = float(start.gradient @ direction)
    rounding = torch.finfo(direction.dtype).eps * abs(start.loss)
    best, low, high = start, _OfLine(0.0, start.loss, slope), None
    for _ in range(min(most, MOST_OF_LINE)):
        there = yield from loss_of(start.point + step * direction)
        at = _OfLine(step, there.loss, float(there.gradient @ direction))
        best = min(best, there, key=attrgetter("loss"))
        if at.loss > start.loss + LEAST_DESCENT * step * slope + rounding:
            high = at
        elif at.slope < MOST_SLOPE * slope:
            low = at
        else:
            return there
        step = 4 * step if high is None else low.before(high)
    return best


class _OfLine(NamedTuple):
    """Loss and slope at a step along a line."""

    step: float
    loss: float
    slope: float

    def before(self, other: _OfLine) -> float:
        """Return where a cubic through this and a longer step is least, between them."""
        width = other.step - self.step
        if not math.isfinite(other.loss):
            return self.step + width / 10
        chord = self.slope + other.slope - 3 * (other.loss - self.loss) / width
        root = math.sqrt(max(chord**2 - self.slope * other.slope, 0.0))
        bottom = other.slope - self.slope + 2 * root
        part = 1 - (other.slope + root - chord) / bottom if bottom > 0 else 0.5
        return self.step + width * min(max(part, 0.1), 0.9)


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

    def __init__(
        self, parameters: list[Tensor], evaluate: Callable[[], Evaluations[float]]
    ) -> None:
        self.parameters = parameters
        self.evaluate = evaluate
        self.sizes = [parameter.numel() for parameter in parameters]
        self.origin = torch.cat([parameter.detach().flatten() for parameter in parameters])
        self.units = torch.ones_like(self.origin)

    def choose_units(self) -> Evaluations[None]:
        """Estimate the curvature of each tensor at the start, and choose its unit."""
        zero = torch.zeros_like(self.origin)
        start = yield from self(zero)
        generator, curvatures = torch.Generator().manual_seed(0), []
        for part in zero.split(self.sizes):  # which changes in place
            signs = 2 * torch.randint(2, part.shape, generator=generator) - 1
            part.copy_(PROBE * signs)
            changed = (yield from self(zero)).gradient - start.gradient
            curvatures.append((changed * zero).sum() / (PROBE**2 * len(part)))
            part.zero_()
        # steps of flat directions, as of weights that are even, are not to be long
        units = torch.stack(curvatures).abs().clamp_min(1.0).rsqrt()
        self.units = units.repeat_interleave(torch.tensor(self.sizes, device=units.device))
        self.start = start._replace(gradient=self.units * start.gradient)

    def __call__(self, point: Tensor) -> Evaluations[_Point]:
        """Evaluate the loss and its gradient."""
        self.set(point)
        try:
            loss = yield from self.evaluate()
        except NotFactorizedError:
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
