r"""Where to start a fit of a linear model: a regularised least-squares fit of every task alone.

For normal noise of standard deviation 1 and the prior :math:`N(0, 1)`, tempered by the KL weight
:math:`\beta`, the best mean-field posterior has a closed form. With :math:`X` the rows of a task,

.. math:: \mu = (X^\top X + \beta I)^{-1} X^\top y, \qquad
    \sigma_j^{-2} = 1 + \tfrac{1}{\beta} \sum_n x_{nj}^2

For C classes this is the first step of Newton's method from zero: :math:`y` is the indicator of a
class less :math:`\frac{1}{C}`, and the softmax has the curvature :math:`\frac{1}{C}` for means that
sum to 0 over classes, of which :math:`\frac{1}{C}(1 - \frac{1}{C})` is on the diagonal.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pyro_vmtl.data import TaskData

__all__ = ["least_squares_start"]


@torch.no_grad()
def least_squares_start(data: TaskData, *, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
    """Give means and standard deviations of the coefficients of every task.

    Parameters
    ----------
    data
        Training rows, padded with zeros.
    kl_weight
        Weight of the KL from the prior, above 0.

    Returns
    -------
    tuple
        Means and standard deviations, (T, C, F) for classes and (T, F) for real targets.

    Raises
    ------
    ValueError
        If the targets are not known.

    Examples
    --------
    >>> data = TaskData.regression([[1.0], [2.0]], [1.0, 2.0], ["a", "a"])
    >>> loc, scale = least_squares_start(data, kl_weight=1.0)
    >>> round(loc.item(), 3), round(scale.item() ** -2, 3)  # 5 / (5 + 1) and 1 + 5
    (0.833, 6.0)
    """
    if data.y is None:
        raise ValueError("The rows have no targets, expected training rows.")
    x, num_classes = data.x, data.num_classes
    if data.classes is None:
        target, curvature, diagonal = data.y[..., None].to(x), 1.0, 1.0
    else:
        curvature, diagonal = 1 / num_classes, (1 - 1 / num_classes) / num_classes
        target = (functional.one_hot(data.y, num_classes) - curvature) * data.mask[..., None]
        target = target.to(x)
    # The smaller of two systems: features by features, or rows by rows.
    if data.num_features <= data.num_rows:
        loc = _solve(x.mT @ x * curvature, x.mT @ target, kl_weight)
    else:
        loc = x.mT @ _solve(x @ x.mT * curvature, target, kl_weight)
    scale = (1 + diagonal / kl_weight * (x**2).sum(1)).rsqrt()  # (T, F)
    if data.classes is None:
        return loc.squeeze(-1), scale
    return loc.mT, scale.unsqueeze(1).expand(-1, num_classes, -1)


def _solve(matrix: Tensor, right: Tensor, ridge: float) -> Tensor:
    """Solve in float64, with a ridge that is felt also where features are large and collinear."""
    square = matrix.double()
    diagonal = square.diagonal(dim1=-2, dim2=-1)
    diagonal += ridge + 1e-12 * diagonal.amax(-1, keepdim=True)
    return torch.cholesky_solve(right.double(), torch.linalg.cholesky(square)).to(right.dtype)
