r"""Kinds of outputs: the natural parameter of a distribution, and the mean that others are fed.

=========== ============================= ===================================== ===========
output      :math:`\eta`                  mean                                  slope
=========== ============================= ===================================== ===========
Categorical logits, C                     :math:`\mathrm{softmax}(\eta)`, C     at most 1/2
Bernoulli   logit, 1                      :math:`\mathrm{sigmoid}(\eta)`, 1     at most 1/4
Normal      mean, 1                       :math:`\eta`, 1                       1
=========== ============================= ===================================== ===========

The slope is the Lipschitz constant of the mean in the Euclidean norm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["Response", "response_of"]


@dataclass(frozen=True, eq=False)
class Response:
    r"""How outputs of one kind feed others; of values and parameters (\*batch, size)."""

    kind: type
    eta: Callable[[Any], Tensor]
    mean: Callable[[Tensor], Tensor]
    slope: float
    replace: Callable[[Any, Tensor], Any]
    """Make the distribution with another eta."""
    encode: Callable[[Tensor, int], Tensor]
    """Convert observed values to means: classes to indicators."""
    variance: Callable[[Tensor], Tensor]
    """Variance of a value, from its mean: the slope of the mean in eta; in units of the noise."""
    noise: Callable[[Any], Tensor] = lambda fn: torch.ones(())
    by_element: bool = True
    """Whether each number has a mean of its own, so that several outputs are computed at once."""


RESPONSES = (
    Response(
        torch.distributions.Categorical,
        lambda fn: fn.logits,
        lambda eta: eta.softmax(-1),
        0.5,
        lambda fn, eta: dist.Categorical(logits=eta),
        lambda value, size: torch.nn.functional.one_hot(value.long(), size),
        lambda mean: mean * (1 - mean),
        by_element=False,
    ),
    Response(
        torch.distributions.Bernoulli,
        lambda fn: fn.logits[..., None],
        torch.sigmoid,
        0.25,
        lambda fn, eta: dist.Bernoulli(logits=eta[..., 0]),
        lambda value, size: value[..., None],
        lambda mean: mean * (1 - mean),
    ),
    Response(
        torch.distributions.Normal,
        lambda fn: fn.loc[..., None],
        lambda eta: eta,
        1.0,
        lambda fn, eta: dist.Normal(eta[..., 0], fn.scale),
        lambda value, size: value[..., None],
        torch.ones_like,
        lambda fn: fn.scale.square(),
    ),
)


def response_of(fn: Any, site: str) -> Response:
    """Return how a site's distribution feeds others, or raise an error that names the site."""
    for response in RESPONSES:
        if isinstance(fn, response.kind):
            return response
    raise ValueError(
        f"Output {site!r} is {type(fn).__name__}, expected Categorical, Bernoulli or Normal, one "
        "number or class for each place of its plates (no `.to_event`)."
    )
