r"""The dynamics of outputs that feed one another, and their fixed point.

=================== ====================================================== ====================
symbol              meaning                                                shape
=================== ====================================================== ====================
:math:`a`           what the model says of each output without the others  (\*batch, size)
:math:`\eta^{(k)}`  natural parameters after k iterations                  (\*batch, size)
:math:`p^{(k)}`     means, such as class probabilities                     (\*batch, size)
:math:`\pi`         constant reference, the means of the training rows     (size,)
:math:`A`           weights of the feedback, 0 from an output to itself    (P, P)
=================== ====================================================== ====================

.. math:: \eta_t^{(k+1)} = a_t + \sum_{s \neq t} A_{st}' (p_s^{(k)} - \pi_s), \qquad \eta^{(0)} = a

P is the number of all outputs' numbers. Outputs of the same batch shape are one :class:`Level`,
one tensor of numbers. A level that has words, say, within the rows of another tells it the mean
over the words, and each word is heard what the row says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vmtl.outputs.responses import Response

__all__ = [
    "Dynamics",
    "HiddenInput",
    "Level",
    "average_over",
    "fixed_point",
    "merged",
    "spectral_radius",
    "unrolled",
]

MOST_ITERATIONS = 1000

State = list[Tensor]
"""Natural parameters of each level."""


@dataclass(frozen=True, eq=False)
class HiddenInput:
    """A hidden layer that is fed: what it is without feedback, and what follows from it."""

    columns: slice
    layer: Callable[[Tensor], Tensor]
    hidden: Tensor
    weight: Tensor  # (P, H)


@dataclass(frozen=True, eq=False)
class Level:
    r"""Outputs of the same batch shape.

    ``responses`` are kinds and sizes of outputs, or of several in a row (:func:`merged`).
    ``columns`` are their places among all P numbers; ``known`` (\*batch, size) are means that are
    given, NaN where they are not; ``mask`` says which places count in averages over them.
    """

    columns: Tensor
    responses: tuple[tuple[Response, int], ...]
    static: Tensor
    reference: Tensor
    hidden: tuple[HiddenInput, ...] = ()
    known: Tensor | None = None
    mask: Tensor | None = None

    def means(self, eta: Tensor) -> Tensor:
        """Compute what the outputs say, with what is known in its place."""
        parts, at = [], 0
        for response, size in self.responses:
            parts.append(response.mean(eta[..., at : at + size]))
            at += size
        means = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return means if self.known is None else torch.where(self.known.isnan(), means, self.known)


def merged(responses: Iterable[tuple[Response, int]]) -> tuple[tuple[Response, int], ...]:
    """Join neighbours whose numbers have means of their own, to compute them at once."""
    found: list[tuple[Response, int]] = []
    for response, size in responses:
        if found and response.by_element and found[-1][0] is response:
            size += found.pop()[1]
        found.append((response, size))
    return tuple(found)


class Dynamics:
    """One step of the iteration; ``weight`` is (P, P), from rows to columns."""

    def __init__(self, levels: Sequence[Level], weight: Tensor) -> None:
        self.levels = levels
        self.weights = [
            [weight[source.columns][:, target.columns] for source in levels] for target in levels
        ]

    def __call__(self, state: State) -> State:
        """Return the natural parameters after one more iteration."""
        return self.step([v.means(eta) for v, eta in zip(self.levels, state, strict=True)])

    def step(self, means: State) -> State:
        """Return the natural parameters that follow from means."""
        found = []
        for target, weights in zip(self.levels, self.weights, strict=True):
            batch = target.static.shape[:-1]
            heard = [
                average_over(p - source.reference, batch, source.mask)
                for source, p in zip(self.levels, means, strict=True)
            ]
            eta = target.static
            for message, weight in zip(heard, weights, strict=True):
                eta = eta + message @ weight
            for into in target.hidden:
                shift = sum(
                    message @ into.weight[source.columns]
                    for source, message in zip(self.levels, heard, strict=True)
                )
                change = into.layer(into.hidden + shift) - into.layer(into.hidden)
                at = into.columns
                eta = torch.cat(
                    [eta[..., : at.start], eta[..., at] + change, eta[..., at.stop :]], -1
                )
            found.append(eta)
        return found


def average_over(values: Tensor, batch: torch.Size, mask: Tensor | None) -> Tensor:
    r"""Average values (\*own, size) over the dimensions that a batch shape does not have."""
    own = values.shape[:-1]
    padded = (1,) * (len(own) - len(batch)) + tuple(batch)
    dims = [d for d in range(-len(own), 0) if own[d] > 1 and padded[d] == 1]
    if dims:
        at = [d - 1 for d in dims]
        if mask is None:
            values = values.mean(at, keepdim=True)
        else:
            share = mask.expand(values.shape).to(values.dtype)
            values = (values * share).sum(at, keepdim=True)
            values = values / share.sum(at, keepdim=True).clamp(min=1)
    return (
        values.reshape(values.shape[len(own) - len(batch) :]) if len(own) > len(batch) else values
    )


def unrolled(step: Callable[[State], State], start: State, num_iterations: int) -> State:
    """Iterate, with gradients through all iterations."""
    for _ in range(num_iterations):
        start = step(start)
    return start


def fixed_point(step: Callable[[State], State], start: State) -> State:
    r"""Iterate until nothing changes, with the gradient of the fixed point itself.

    The backward pass solves :math:`u = v + (\partial F / \partial \eta)' u` by iteration, too, so
    that memory does not grow with the number of iterations.

    Raises
    ------
    RuntimeError
        If there is still change after 1,000 iterations.
    """
    shapes = [each.shape for each in start]

    def flat(state: State) -> Tensor:
        return torch.cat([each.flatten() for each in state])

    def function(eta: Tensor) -> Tensor:
        parts = eta.split([shape.numel() for shape in shapes])
        return flat(step([p.reshape(shape) for p, shape in zip(parts, shapes, strict=True)]))

    with torch.no_grad():
        found = _settle(function, flat(start))
    result = function(found)
    if result.requires_grad:
        at = found.requires_grad_()
        with torch.enable_grad():
            after = function(at)

        def solve(v: Tensor) -> Tensor:
            def pull(u: Tensor) -> Tensor:
                (back,) = torch.autograd.grad(after, at, u, retain_graph=True)
                return v + back

            return _settle(pull, v)

        result.register_hook(solve)
    parts = result.split([shape.numel() for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _settle(function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    tolerance = 4 * torch.finfo(value.dtype).eps
    for _ in range(MOST_ITERATIONS):
        new = function(value)
        if (new - value).abs().max() <= tolerance * new.abs().max().clamp(min=1):
            return new
        value = new
    raise RuntimeError(
        f"The outputs still change after {MOST_ITERATIONS} iterations. Use a number of iterations."
    )


def spectral_radius(matrix: Tensor) -> Tensor:
    """Return the largest absolute eigenvalue of a matrix (T, T), without gradient."""
    return torch.linalg.eigvals(matrix.detach().double()).abs().max().to(matrix.dtype)
