r"""Second derivatives of a loss row by row, where rows enter by the moments of their predictors.

Let the loss be :math:`F(\eta) = G(\eta, h(\eta))` with the means and variances :math:`h` of linear
predictors under the posterior. Then

.. math:: \nabla^2 F = \nabla_\eta^2 G + G_h \cdot h'' + h'^\top \nabla_h^2 G\; h'

and :math:`\nabla_h^2 G` has no entries between rows: once they are known, a product with the
Hessian takes no pass through the likelihood at all of its points any more.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

__all__ = ["CutMoments", "RowMoments"]


class CutMoments(Messenger):
    """Cut the graph of a loss at the moments of predictors.

    ``values`` are those, the last dimension mean and variance, and ``leaves`` what goes on instead.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Tensor] = []
        self.leaves: list[Tensor] = []

    def _pyro_post_moments(self, msg: dict[str, object]) -> None:
        self.values.append(torch.stack(msg["value"], -1))  # type: ignore[arg-type]
        self.leaves.append(self.values[-1].detach().requires_grad_())
        msg["value"] = self.leaves[-1].unbind(-1)


class RowMoments:
    """Products with the part of a Hessian that is of the moments of predictors.

    Attributes
    ----------
    values
        The moments, with a graph.
    gradient
        That of the loss by them, with a graph.
    """

    def __init__(self, values: Tensor, gradient: Tensor, second: Tensor) -> None:
        self.values = values
        self.gradient = gradient
        self._second = second

    @classmethod
    def of(
        cls, loss: Tensor, parameters: Sequence[Tensor], cut: CutMoments, num_rows: int
    ) -> RowMoments | None:
        """Return them of a loss that was cut, if all that rows enter by is there.

        None if there are several predictors, or other numbers meet them in the likelihood, as a
        noise does, or the loss is not a sum over ``num_rows`` rows of them.
        """
        if len(cut.leaves) != 1 or cut.leaves[0].numel() % (2 * num_rows):
            return None
        (values,), (leaf,) = cut.values, cut.leaves
        found = torch.autograd.grad(loss, (leaf, *parameters), create_graph=True, allow_unused=True)
        gradient, *others = found
        if gradient is None or any(_depends(other, leaf) for other in others):
            return None
        size = leaf.numel() // num_rows
        units = torch.eye(size).to(leaf)[:, None].expand(-1, num_rows, -1)
        rows = [_product(gradient, leaf, unit.reshape(leaf.shape)) for unit in units]
        second = torch.stack([row.reshape(num_rows, size) for row in rows], 1)
        probe = torch.linspace(-1, 1, leaf.numel()).to(leaf).view_as(leaf)
        exact = _product(gradient, leaf, probe).reshape(num_rows, size)
        product = torch.einsum("rij,ri->rj", second, probe.reshape(num_rows, size))
        close = torch.allclose(product, exact, rtol=1e-8, atol=1e-8 * float(exact.abs().max()))
        return cls(values, gradient, second) if close else None

    def times(self, vectors: Tensor) -> Tensor:
        """Multiply vectors of moments, (K, M), by their second derivatives."""
        num_rows, size, _ = self._second.shape
        rows = vectors.unflatten(1, (num_rows, size)).movedim(1, 0)  # (R, K, J)
        return (rows @ self._second).movedim(0, 1).flatten(1)


def _depends(values: Tensor | None, on: Tensor) -> bool:
    if values is None or not values.requires_grad:
        return False
    return (
        torch.autograd.grad(values.sum(), on, retain_graph=True, allow_unused=True)[0] is not None
    )


def _product(gradient: Tensor, leaf: Tensor, vector: Tensor) -> Tensor:
    return torch.autograd.grad(gradient, leaf, vector, retain_graph=True)[0]
