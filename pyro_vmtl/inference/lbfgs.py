"""L-BFGS, for losses that do not depend on draws."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

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


def lbfgs(
    step_of: Step,
    done: Progress,
    report: Callable[[int, int, ELBOTerms], None],
    *,
    recordable: bool,
) -> None:
    """Minimize a loss, counting evaluations as steps."""
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

    def closure() -> float:
        try:
            loss = evaluate()
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # too long a step
            loss = math.inf
        if math.isfinite(loss):
            return loss
        for parameter in step_of.parameters:
            parameter.grad = None  # which counts as 0
        return best + MUCH_WORSE

    step_of.at_step(done.end)
    best, again = evaluate(), evaluate()
    record()
    if best != again:
        raise ValueError(
            f"optimizer is 'lbfgs', and two losses at the same parameters {best:.8g} and "
            f"{again:.8g}, expected equal ones: all terms must be closed, as those of "
            "ConjugateNormal are. Use optimizer='adam'."
        )
    optimizer = torch.optim.LBFGS(
        step_of.parameters,
        max_iter=ITERATIONS,
        history_size=20,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
    while done.step < done.end:
        optimizer.step(closure)
        before, best = best, evaluate()
        record()
        if not before - best >= TOLERANCE:
            done.stopped = "settled"
            break
    done.over = True
