"""The last layer of an output, as an operation that handlers know of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pyro.poutine.runtime import effectful
from torch import Tensor, nn

__all__ = ["output_layer"]


@effectful(type="output_layer")
def output_layer(
    site: str,
    hidden: Tensor,
    linear: nn.Linear,
    activation: Callable[[Tensor], Tensor] = torch.relu,
) -> Tensor:
    r"""Compute ``linear(activation(hidden))``, from which the parameter of an output is made.

    :func:`~pyro_vmtl.feedback` can then feed other outputs into the hidden layer of this one, and
    not only into its parameter.

    Parameters
    ----------
    site
        Name of the output.
    hidden
        (\*batch, H), the hidden layer before the activation.
    linear
        Layer to logits or means, (\*batch, size).
    activation
        Of slope at most 1, such as ``torch.relu`` or ``torch.tanh``.

    Returns
    -------
    Tensor
        (\*batch, size).

    Examples
    --------
    >>> output_layer("y", torch.tensor([[-1.0, 2.0]]), nn.Linear(2, 3)).shape
    torch.Size([1, 3])
    """
    return linear(activation(hidden))
