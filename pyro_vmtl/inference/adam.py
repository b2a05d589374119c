"""Adam, by torch's fused kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Adam"]


class _Moments(NamedTuple):
    """A parameter, the moments of its gradient, and the number of its steps."""

    parameter: Tensor
    mean: Tensor
    square: Tensor
    steps: Tensor


class Adam:
    """The same steps as those of ``torch.optim.Adam(fused=True)`` [1]_.

    That class imports torch's compiler when it is made, which takes longer than a small fit.

    Parameters
    ----------
    parameters
        What to learn; those without a gradient do not move.
    weight_decay
        Factor of the penalty on the squares of all parameters.

    References
    ----------
    .. [1] Kingma, D. P. and Ba, J. Adam: A Method for Stochastic Optimization. ICLR 2015.
    """

    def __init__(self, parameters: Iterable[Tensor], *, weight_decay: float = 0.0) -> None:
        self.weight_decay = weight_decay
        self._parameters = list(parameters)

    @cached_property
    def moments(self) -> list[_Moments]:
        """Moments of each parameter, made after the first loss, which takes most memory."""
        return [
            _Moments(p, torch.zeros_like(p), torch.zeros_like(p), torch.zeros((), device=p.device))
            for p in self._parameters
        ]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move the parameters by their gradients."""
        alike: dict[object, list[_Moments]] = {}  # the kernel takes one kind of tensors
        for each in self.moments:
            if each.parameter.grad is not None:
                alike.setdefault((each.parameter.device, each.parameter.dtype), []).append(each)
        for group in alike.values():
            parameters, means, squares, steps = (list(part) for part in zip(*group, strict=True))
            torch._foreach_add_(steps, 1)
            torch._fused_adam_(
                parameters,
                [parameter.grad for parameter in parameters],
                means,
                squares,
                [],
                steps,
                lr=learning_rate,
                beta1=0.9,
                beta2=0.999,
                weight_decay=self.weight_decay,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Return the moments and the numbers of steps."""
        names = ("mean", "square", "steps")
        return {name: [getattr(each, name) for each in self.moments] for name in names}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, list[Tensor]]) -> None:
        """Restore moments and numbers of steps."""
        for name, values in state.items():
            for each, value in zip(self.moments, values, strict=True):
                getattr(each, name).copy_(value)
