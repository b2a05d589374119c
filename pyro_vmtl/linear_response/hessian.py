"""The Hessian of a loss, times vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

__all__ = ["AT_ONCE", "Hessian", "SavedNumbers"]

AT_ONCE = 64
"""Most vectors that go through a graph together."""

MOST_NUMBERS = 2**24
"""Numbers that a graph has saved, times vectors, up to which they go through it together: more take
memory, and leave the processor's cache."""


class SavedNumbers(saved_tensors_hooks):
    """Count what graphs save that are made within."""

    def __init__(self) -> None:
        self._count = 0
        super().__init__(self._pack, lambda saved: saved)

    def __enter__(self) -> SavedNumbers:  # type: ignore[override]
        super().__enter__()
        return self

    @property
    def at_once(self) -> int:
        """How many vectors may go through these graphs together."""
        return max(1, min(AT_ONCE, MOST_NUMBERS // max(self._count, 1)))

    def _pack(self, saved: Tensor) -> Tensor:
        self._count += saved.numel()
        return saved.detach()  # a graph that has its own results in it would never be freed


class Hessian:
    """The Hessian of a loss with respect to the n ``free`` numbers among its parameters.

    ``gradient`` is (n,), and ``graph`` the same with a graph, through which ``at_once`` vectors may
    go together.
    """

    def __init__(self, loss: Tensor, parameters: Sequence[Tensor], free: Tensor) -> None:
        self.parameters = tuple(parameters)
        self.free = free
        with SavedNumbers() as saved:
            found = torch.autograd.grad(loss, self.parameters, create_graph=True, allow_unused=True)
        self.at_once = saved.at_once
        self.graph = self._join(found, ())
        self.gradient = self.graph.detach()

    def pull_back(self, values: Tensor, vectors: Tensor, *, at_once: int = AT_ONCE) -> Tensor:
        """Multiply vectors (K, M) by the Jacobian of values (M,) that have a graph, (K, n)."""
        products = []
        for some in vectors.split(at_once):
            found = torch.autograd.grad(
                values, self.parameters, some, True, allow_unused=True, is_grads_batched=True
            )
            products.append(self._join(found, some.shape[:1]))
        return torch.cat(products)

    def times(self, vectors: Tensor) -> Tensor:
        """Multiply vectors (K, n) by the Hessian."""
        return self.pull_back(self.graph, vectors, at_once=self.at_once)

    def _join(self, found: Sequence[Tensor | None], batch: Sequence[int]) -> Tensor:
        """Join gradients, of a batch of vectors, to those of the free numbers."""
        parts = [
            p.new_zeros(*batch, p.numel()) if g is None else g.reshape(*batch, -1)
            for g, p in zip(found, self.parameters, strict=True)
        ]
        return torch.cat(parts, -1)[..., self.free]
