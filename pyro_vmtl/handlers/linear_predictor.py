"""The linear predictor of a generalized linear model, as an operation that handlers know of.

Its coefficients may be combinations of those that all tasks have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.poutine.runtime import effectful
from torch import Tensor
from torch.nn import functional

__all__ = ["arguments", "combine", "linear_predictor", "predict_linearly"]


@effectful(type="linear_predictor")
def linear_predictor(
    x: Tensor, w: Tensor, event_dim: int = 1, *, more: Sequence[tuple[Tensor, Tensor]] = ()
) -> Tensor:
    r"""Multiply features by coefficients.

    The same as a matrix product, with one difference: where a handler knows that the coefficients
    have a normal posterior, it can use that of the predictor, which is normal, too. That saves a
    matrix product for each draw of the coefficients
    (:class:`~pyro_vmtl.inference.fixed_points.FixedPoints`).

    Parameters
    ----------
    x
        (\*L, N, F), features.
    w
        Value of a site, (\*L, 1, F), or (\*L, 1, C, F) for C predictors of a row.
    event_dim
        1 or 2, the number of its dimensions right of the plates.
    more
        Further features (T, N, M) and coefficients that all tasks have in common, to be added.

    Returns
    -------
    Tensor
        (\*L, N) or (\*L, N, C).

    Examples
    --------
    >>> linear_predictor(torch.eye(2), torch.tensor([[3.0, 4.0]]))
    tensor([3., 4.])
    """
    if x.shape[-1] != w.shape[-1]:
        raise ValueError(
            f"The rows have {x.shape[-1]} features and there are {w.shape[-1]} coefficients, "
            "expected as many."
        )
    each = w if event_dim == 1 else w.squeeze(-3)
    if x.ndim == 3 and each.ndim > 3:  # a product of batches would copy the features for each draw
        found = torch.einsum("tnf,...tcf->...tnc", x, each)
    else:
        found = x @ each.mT
    found = found.squeeze(-1) if event_dim == 1 else found
    for features, coefficients in more:
        found = found + predict_linearly(features, coefficients, event_dim)
    return found


def arguments(msg: Any) -> dict[str, Any]:
    """Return the arguments of a linear predictor, by name, from the message that handlers see."""
    return dict(zip(("x", "w", "event_dim"), msg["args"], strict=False)) | msg["kwargs"]


def predict_linearly(x: Tensor, w: Tensor, event_dim: int = 1) -> Tensor:
    r"""Multiply features (T, N, M) by coefficients in common, without a copy for each draw.

    The coefficients are (M,) or (C, M), with draws (\*S, 1, 1, M) or (\*S, 1, 1, C, M).
    """
    lead = w.shape[:-event_dim]
    product = functional.linear(x, w.reshape(-1, w.shape[-1]))  # (T, N, S C)
    if event_dim == 2:
        product = product.unflatten(-1, (-1, w.shape[-2]))
    of_draws = product.movedim(2, 0)
    if not lead:
        return of_draws.squeeze(0)
    return of_draws.reshape(*lead[:-2], *of_draws.shape[1:])


def combine(loadings: Tensor, factors: Tensor) -> Tensor:
    r"""Combine factors (\*S, Q P) by loadings (\*L, 1, Q), (\*L, 1, P)."""
    each = factors.unflatten(-1, (loadings.shape[-1], -1))
    return (loadings.to(each).unsqueeze(-2) @ each).squeeze(-2)
