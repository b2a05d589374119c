r"""Initial posteriors of linear models: regularised least squares in every task.

For normal noise of standard deviation 1 and the prior :math:`N(0, 1)`, tempered by the KL weight
:math:`\beta`, the best mean-field posterior has a closed form. With :math:`X` the rows of a task,

.. math:: \mu = (X^\top X + \beta I)^{-1} X^\top y, \qquad
    \sigma_j^{-2} = 1 + \tfrac{1}{\beta} \sum_n x_{nj}^2

For C classes this is the first step of Newton's method from zero: :math:`y` is the indicator of a
class less :math:`\frac{1}{C}`, and the softmax has the curvature :math:`\frac{1}{C}` for means that
sum to 0 over classes, with :math:`\frac{1}{C}(1 - \frac{1}{C})` on the diagonal.

For counts with the rate :math:`\lambda = \exp(b + w^\top x)` it is iteratively reweighted least
squares: rows have the weight :math:`\lambda_n` and the target
:math:`\log\lambda_n - b + y_n / \lambda_n - 1`. It starts half-way between the mean of a
task and its counts, where no target is extreme.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from pyro_vmtl.data.counts import check_counts
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.models.linear_counts import MAX_LOG_RATE

__all__ = ["counts_start", "least_squares_start", "usual_log_rate"]

NEWTON_STEPS = 8


@torch.no_grad()
def least_squares_start(data: TaskData, *, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
    """Compute initial means and standard deviations of the coefficients of every task.

    They are (T, C, F) for classes and (T, F) for real targets.
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
    if data.weight is not None:
        root = data.weight.sqrt()[..., None]
        x, target = root * x, root * target
    loc = _ridge(x, target, kl_weight, curvature=curvature)
    scale = (1 + diagonal / kl_weight * (x**2).sum(1)).rsqrt()  # (T, F)
    if data.classes is None:
        return loc.squeeze(-1), scale
    return loc.mT, scale.unsqueeze(1).expand(-1, num_classes, -1)


@torch.no_grad()
def counts_start(
    data: TaskData, *, kl_weight: float = 1.0, log_rate: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Compute initial means and standard deviations of coefficients for counts, (T, F).

    ``log_rate`` is the logarithm of the rate where all coefficients are 0.
    """
    y, x, mask = check_counts(data)[..., None].double(), data.x.double(), data.mask[..., None]
    weight = (data.mask if data.weight is None else data.weight * data.mask)[..., None].double()
    # Each task's mean, with the mean of all as one more row, so that none is 0.
    usual = math.exp(usual_log_rate(data))
    mean = ((weight * y).sum(1, keepdim=True) + usual) / (weight.sum(1, keepdim=True) + 1)
    rate = (y + mean) / 2 * mask
    loc, loss = x.new_zeros(len(x), x.shape[2], 1), torch.full_like(mean, torch.inf)
    for _ in range(NEWTON_STEPS):
        target = (rate.log() - log_rate + y / rate - 1).where(mask, 0.0)
        root = (weight * rate).sqrt()
        step = _ridge(root * x, root * target, kl_weight)
        log_rates = (log_rate + x @ step).clamp(max=MAX_LOG_RATE)
        new = (weight * (log_rates.exp() - y * log_rates)).sum(1, keepdim=True)
        new = new + 0.5 * kl_weight * (step**2).sum(1, keepdim=True)
        # A step can be too long where rates are small; the task then keeps its last one.
        better = new < loss
        loc, loss = step.where(better, loc), new.where(better, loss)
        rate = ((log_rate + x @ loc).clamp(-MAX_LOG_RATE, MAX_LOG_RATE).exp()) * mask
    scale = (1 + (weight * rate * x**2).sum(1) / kl_weight).rsqrt()
    return loc.squeeze(-1).to(data.x), scale.to(data.x)


def usual_log_rate(data: TaskData) -> float:
    """Compute the logarithm of the mean count, with half a count added."""
    assert data.y is not None
    weight = data.mask.double() if data.weight is None else data.weight * data.mask
    return math.log(((weight * data.y).sum().item() + 0.5) / weight.sum().item())


def _ridge(x: Tensor, target: Tensor, ridge: float, *, curvature: float = 1.0) -> Tensor:
    """Solve ridge regression by the smaller of the primal and the dual system."""
    if x.shape[2] <= x.shape[1]:
        return _solve(x.mT @ x * curvature, x.mT @ target, ridge)
    return x.mT @ _solve(x @ x.mT * curvature, target, ridge)


def _solve(matrix: Tensor, right: Tensor, ridge: float) -> Tensor:
    """Solve in float64, with a ridge that is effective for large collinear features, too."""
    square = matrix.double()
    diagonal = square.diagonal(dim1=-2, dim2=-1)
    diagonal += ridge + 1e-12 * diagonal.amax(-1, keepdim=True)
    return torch.cholesky_solve(right.double(), torch.linalg.cholesky(square)).to(right.dtype)
