"""The linear predictor of a generalized linear model, as an operation that handlers know of.

Its coefficients may be combinations of those that all tasks have in common.
"""

from __future__ import annotations

from pyro.poutine.runtime import effectful
from torch import Tensor

__all__ = ["combine", "linear_predictor"]


@effectful(type="linear_predictor")
def linear_predictor(x: Tensor, w: Tensor, event_dim: int = 1) -> Tensor:
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

    Returns
    -------
    Tensor
        (\*L, N) or (\*L, N, C).

    Examples
    --------
    >>> import torch
    >>> linear_predictor(torch.eye(2), torch.tensor([[3.0, 4.0]]))
    tensor([3., 4.])
    """
    return (x @ w.mT).squeeze(-1) if event_dim == 1 else x @ w.squeeze(-3).mT


def combine(loadings: Tensor, factors: Tensor) -> Tensor:
    r"""Combine factors (\*S, Q P) by loadings (\*L, 1, Q), (\*L, 1, P)."""
    each = factors.unflatten(-1, (loadings.shape[-1], -1))
    return (loadings.to(each).unsqueeze(-2) @ each).squeeze(-2)
