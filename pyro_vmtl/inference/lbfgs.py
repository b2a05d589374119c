"""L-BFGS, for losses that do not depend on draws."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_vmtl.handlers.isolation import validation
from pyro_vmtl.inference.checkpoint import Progress
from pyro_vmtl.inference.elbo import ELBOTerms
from pyro_vmtl.inference.step import Step

__all__ = ["lbfgs"]

RECORD_AFTER = 5
"""Evaluations before the first is recorded: there are more of them than steps of most fits."""

ITERATIONS = 10
"""Iterations between two looks at the loss."""

TOLERANCE = 0.05
"""Nats that these have to gain, or the loss has settled."""

MUCH_WORSE = 1e6
"""Nats by which a point where the loss is not finite is worse than the last."""

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
        done.stopped = "steps"
        variables = _Variables(step_of.parameters, evaluate)
        optimizer = torch.optim.LBFGS(
            variables.moved,
            max_iter=ITERATIONS,
            history_size=20,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )
        while done.step < end:
            optimizer.step(variables.closure)
            before, after = variables.best, variables.closure()
            variables.best = after
            record()
            if not before - after >= TOLERANCE:
                done.stopped = "settled"
                break
        if end < done.end:
            step_of.set_alone(False)
            step_of.start_weights()
    done.over = True


class _Variables:
    """Parameters in units of their own, in which steps of L-BFGS are of like length.

    The curvatures of a mean that all rows inform and of a weight that hardly matters differ by
    many orders of magnitude. The unit of each tensor is one over the root of its mean curvature at
    the start, by a difference of gradients.
    """

    def __init__(self, parameters: list[Tensor], evaluate: Callable[[], float]) -> None:
        self.parameters = parameters
        self.evaluate = evaluate
        self.best = evaluate()
        gradients = [parameter.grad for parameter in parameters]
        self.units = [1.0] * len(parameters)
        self.starts = [parameter.detach().clone() for parameter in parameters]
        self.moved = [torch.zeros_like(start, requires_grad=True) for start in self.starts]
        for place, (start, gradient) in enumerate(zip(self.starts, gradients, strict=True)):
            signs = torch.where(torch.rand_like(start) < 0.5, -1.0, 1.0)
            self._set(place, start + PROBE * signs)
            evaluate()
            self._set(place, start)
            changed = parameters[place].grad
            if gradient is not None and changed is not None:
                curvature = float((signs * (changed - gradient)).mean()) / PROBE
                # steps of flat directions, as of weights that are even, are not to be long
                self.units[place] = 1 / math.sqrt(max(abs(curvature), 1.0))

    def closure(self) -> float:
        """Evaluate the loss where the optimizer is, and set its gradients."""
        for place, start in enumerate(self.starts):
            self._set(place, start + self.units[place] * self.moved[place].detach())
        try:
            loss = self.evaluate()
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # too long a step
            loss = math.inf
        finite = math.isfinite(loss)
        for unit, moved, parameter in zip(self.units, self.moved, self.parameters, strict=True):
            gradient = parameter.grad if finite else None  # which counts as 0
            moved.grad = None if gradient is None else unit * gradient
        return loss if finite else self.best + MUCH_WORSE

    @torch.no_grad()
    def _set(self, place: int, value: Tensor) -> None:
        self.parameters[place].copy_(value)
