"""Deterministic steps: L-BFGS on a loss that does not depend on draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

__all__ = ["lbfgs_steps"]

ITERATIONS = 10
"""Iterations between two looks at the loss."""

TOLERANCE = 0.01
"""Nats that these have to gain, or the loss has settled."""


def lbfgs_steps(parameters: Sequence[Tensor], compute: Callable[[], Tensor]) -> Iterator[float]:
    """Minimise a loss; yield it every ten iterations until it has settled.

    Parameters
    ----------
    parameters
        Changed in place.
    compute
        Returns the loss and sets the gradients of the parameters.
    """
    size = 1.0

    def closure() -> Tensor:
        loss = compute() / size
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad /= size
        return loss

    before = float(compute())
    # the first step has the length of the gradient
    size = max(1.0, sum(float(p.grad.abs().max()) for p in parameters if p.grad is not None))
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=ITERATIONS,
        history_size=20,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
    while True:
        optimizer.step(closure)
        loss = float(compute())
        yield loss
        if before - loss < TOLERANCE:
            return
        before = loss
