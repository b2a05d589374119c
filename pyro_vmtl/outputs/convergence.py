"""Losses that let the outputs settle: what remains to change from one iteration to the next."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

__all__ = ["CONTRACTION", "Convergence", "check_convergence", "convergence_loss"]

Convergence = Literal["plain", "hinge"]

CONTRACTION = 0.9
"""Factor by which a change may shrink from one iteration to the next without a loss."""


def check_convergence(convergence: Convergence | None, num_iterations: int | None) -> None:
    """Raise an error unless there are iterations for the loss to look at."""
    if convergence is None:
        return
    if convergence not in get_args(Convergence):
        raise ValueError(
            f"convergence is {convergence!r}, expected one of {[*get_args(Convergence)]} or None."
        )
    least = 1 if convergence == "plain" else 2
    if num_iterations is None or num_iterations < least:
        raise ValueError(
            f"convergence is {convergence!r} with num_iterations={num_iterations}, expected at "
            f"least {least}: it compares one iteration with the next. At the fixed point there "
            "is nothing left to compare; use convergence=None."
        )


def convergence_loss(convergence: Convergence, means: Sequence[Tensor]) -> Tensor:
    r"""Compute the loss of an output, (\*batch), from its means (\*batch, size) at each iteration.

    With :math:`r_k = |p^{(k)} - p^{(k-1)}|^2`, ``"plain"`` is :math:`\sum_k r_k`, which is least
    without feedback, and ``"hinge"`` :math:`\sum_k \max(0, r_{k+1} - \gamma^2 r_k)`, which is 0 for
    any feedback that contracts by :math:`\gamma = 0.9`.

    Examples
    --------
    >>> halving = [torch.tensor([value]) for value in (0.0, 1.0, 1.5)]
    >>> convergence_loss("plain", halving), convergence_loss("hinge", halving)
    (tensor(1.2500), tensor(0.))
    """
    changes = [(new - old).square().sum(-1) for old, new in pairwise(means)]
    if convergence == "plain":
        return torch.stack(changes).sum(0)
    growth = [(new - CONTRACTION**2 * old).relu() for old, new in pairwise(changes)]
    return torch.stack(growth).sum(0)
