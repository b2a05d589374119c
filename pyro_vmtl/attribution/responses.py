"""How a fit responds to the weights of its rows: all at once, or without some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from pyro_vmtl.attribution.optimum import go_to_optimum, newton_step, polish, polish_anew
from pyro_vmtl.attribution.weighted_loss import MOST_DENSE, WeightedLoss
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.inference.progress import fits_bar
from pyro_vmtl.linear_response.curvature import Curvature
from pyro_vmtl.linear_response.hessian import SavedNumbers
from pyro_vmtl.methods.fitted import Fitted

__all__ = ["Responses"]

Quantity = Callable[[Fitted], Tensor]

AT_ONCE = 256
"""Quantities whose systems are solved together, as one helps the other."""

TOLERANCE = 1e-4
"""Relative residual of systems with a Hessian that is no matrix: the way to the optimum of such a
fit leaves more than that."""

DENSE_BESIDE_LARGE = 500
"""Numbers of a member up to which its Hessian is a matrix where that of another is none."""


class _Part(NamedTuple):
    """A member at its optimum."""

    loss: WeightedLoss
    curvature: Curvature
    distance: float
    optimum: list[nn.Parameter]
    held: Tensor


class Responses:
    """Members of a fit at their optimum, and how quantities of the fit respond there.

    ``fit`` has copies of the members, in double precision. ``distance`` is how far the optimum may
    still be.
    """

    def __init__(
        self,
        fitted: Fitted,
        data: TaskData,
        *,
        elbo: Trace_ELBO | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> None:
        if data.num_tasks != fitted.num_tasks:
            raise ValueError(
                f"data has {data.num_tasks} tasks, expected the {fitted.num_tasks} of the fit."
            )
        self.data = data
        self.progress = progress
        self._parts: list[_Part] = []
        members = fitted.members.items()
        losses = {name: WeightedLoss(of, data, elbo=elbo, seed=seed) for name, of in members}
        is_large = any(len(loss.numbers) > MOST_DENSE for loss in losses.values())
        with fits_bar(len(fitted.members), visible=progress) as report:
            for name, loss in losses.items():
                report(f"optimum of {name}")
                loss.most_dense = DENSE_BESIDE_LARGE if is_large else MOST_DENSE
                curvature, distance = polish(loss, loss.weight)
                held = loss.held.clone()
                self._parts.append(_Part(loss, curvature, distance, loss.parameters, held))
        self.fit = replace(fitted, members={name: loss.member for name, loss in losses.items()})
        self.distance = max(part.distance for part in self._parts)

    @property
    def weight(self) -> Tensor:
        """The weights of the rows, (T, N)."""
        return self._parts[0].loss.weight.detach()

    def first_order(self, *terms: Quantity) -> Tensor:
        r"""Compute the derivative of a quantity by each weight, times that, (\*shape, T, N).

        The quantity is the sum of ``terms``, of which one has a graph at a time.
        """
        moved = [torch.zeros(())] * len(self._parts)
        found = torch.zeros_like(self.weight)[None]
        for term in terms:
            with SavedNumbers() as saved:
                values = self._values(term, grad=True)
            flat, at_once, shape = values.flatten(), saved.at_once, values.shape
            eye = torch.eye(len(flat)).to(flat)
            for i, part in enumerate(self._parts):
                moved[i] = moved[i] + self._pull_back(part, flat, eye, at_once)
                found = found + _by_weight(flat, part.loss.weight, eye, at_once)
        for (loss, curvature, *_), every in zip(self._parts, moved, strict=True):
            for some, total in zip(every.split(AT_ONCE), found.split(AT_ONCE), strict=True):
                solved = curvature.solve(some, tolerance=TOLERANCE)
                if curvature.is_dense:  # without what was added for flat directions
                    solved += curvature.solve(some - curvature.times(solved))
                total -= _by_weight(curvature.graph, loss.weight, solved, curvature.at_once)
        return (self.weight * found).reshape(*shape, *self.weight.shape)

    def _pull_back(self, part: _Part, values: Tensor, eye: Tensor, at_once: int) -> Tensor:
        """Return the gradients of values (M,) by the numbers of a member, (M, n).

        Where there is one of each task, of its own numbers only, their sum has all of them.
        """
        loss, curvature, *_ = part
        if len(values) == len(loss.weight):
            task, unlike = loss.tasks(), torch.linspace(1, 2, len(values)).to(values)
            both = torch.stack([torch.ones_like(unlike), unlike])
            total, probe = curvature.pull_back(values, both, at_once=at_once)
            own = torch.where(task < 0, 0.0, unlike[task]) * total
            if torch.allclose(probe, own, rtol=1e-9, atol=1e-13 * float(total.abs().max())):
                return torch.where(task == torch.arange(len(values))[:, None], total, 0.0)
        return curvature.pull_back(values, eye, at_once=at_once)

    def without(self, quantity: Quantity, left_out: Tensor, *, refit: bool, leave: str) -> Tensor:
        r"""Compute the quantity less that without some rows, (L, \*shape).

        ``left_out`` is (L, T, N). By one step of Newton's method, or to the optimum: near by
        without a row, and without a task with sources chosen anew, as unused ones may be of use.
        """
        if not refit and not all(part.curvature.is_dense for part in self._parts):
            raise ValueError(
                f"method is 'newton', expected at most {MOST_DENSE:,} numbers that each member "
                "learns. Use 'first-order', or 'refit' with `only` some rows."
            )
        value, found = self._values(quantity), []
        with fits_bar(len(left_out), visible=self.progress) as report:
            for number, mask in enumerate(left_out):
                report(f"without {leave} {number + 1}")
                weight = self.weight.masked_fill(mask, 0.0)
                for loss, curvature, *_ in self._parts:
                    if refit and leave == "task":
                        polish_anew(loss, weight)
                    elif refit:
                        go_to_optimum(loss, weight, curvature)
                    else:
                        loss.numbers = loss.numbers + newton_step(loss, weight, curvature)
                found.append(value - self._values(quantity, weight=weight))
                for part in self._parts:
                    part.loss.install(part.optimum)
                    part.loss.free = part.curvature.free
                    part.loss.held = part.held.clone()
        return torch.stack(found)

    def steps(self) -> Tensor | None:
        """Compute how far the fit moves without each row, (T, N), where Hessians are matrices.

        1 is where a loss would rise by half a nat.
        """
        if not all(part.curvature.is_dense for part in self._parts):
            return None
        length = torch.zeros_like(self.weight)
        for loss, curvature, *_ in self._parts:
            square = torch.zeros_like(length)
            at_once = curvature.at_once
            for some in torch.eye(len(curvature.gradient)).to(square).split(at_once):
                units = curvature.from_units(some)
                square += (_by_weight(curvature.graph, loss.weight, units, at_once) ** 2).sum(0)
            length = torch.maximum(length, square.sqrt())
        return self.weight * length

    def _values(
        self, quantity: Quantity, *, weight: Tensor | None = None, grad: bool = False
    ) -> Tensor:
        """Compute the quantity at the current parameters, with a graph or without."""
        for loss, *_ in self._parts:
            loss.take_rows(loss.weight if weight is None else weight)
        with torch.set_grad_enabled(grad):
            values = quantity(self.fit)
        return values if grad else values.detach().clone()  # parameters will change in place


def _by_weight(values: Tensor, weight: Tensor, vectors: Tensor, at_once: int) -> Tensor:
    """Multiply vectors (K, M) by the Jacobian of values (M,) in the weights, (K, T, N)."""
    products = torch.zeros(len(vectors), *weight.shape).to(vectors)
    for some, product in zip(vectors.split(at_once), products.split(at_once), strict=True):
        if values.requires_grad:
            settings = {"allow_unused": True, "is_grads_batched": True}
            (found,) = torch.autograd.grad(values, weight, some, True, **settings)
            product += 0 if found is None else found
    return products
