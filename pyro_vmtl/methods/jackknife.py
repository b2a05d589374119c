r"""The jackknife: how much an estimate depends on which rows there are.

Rows are split into :math:`K` groups, and :math:`\theta_1, \dots, \theta_m` are the estimates
without each of :math:`m` of them, all or some. The variance of the estimate of all rows is
estimated by

.. math:: \frac{(K - 1)^2}{K}\, \frac{1}{m - 1} \sum_k (\theta_k - \bar\theta)^2

with :math:`m - 1` degrees of freedom. The variance among the :math:`\theta_k` is smaller, as they
have most of their rows in common. With all groups this is the delete-a-group jackknife [1]_.

References
----------
.. [1] P. S. Kott. The Delete-a-Group Jackknife. Journal of Official Statistics 17(4), 2001.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["jackknife_draws", "rake"]

NUM_ROUNDS = 20
"""Rounds of raking, after which the means of test fits are within 0.005."""


def jackknife_draws(
    without: Tensor,
    estimate: Tensor,
    *,
    num_groups: int,
    num_draws: int,
    generator: torch.Generator,
) -> Tensor:
    r"""Draw proportions about their estimate by the jackknife, from Student's t, none below 0.

    Parameters
    ----------
    without
        (m, \*L, P), estimates without each of some groups of rows, on the simplex.
    estimate
        (\*L, P), that of all rows.
    num_groups
        K, in how many groups all rows are split.
    num_draws
        S, the number of draws.
    generator
        Random numbers of the draws, on the CPU.

    Returns
    -------
    Tensor
        (S, \*L, P), on the simplex. With one estimate without a group, which says nothing of the
        variance, all are that of all rows.

    Examples
    --------
    >>> without = torch.tensor([[0.2, 0.8], [0.25, 0.75], [0.3, 0.7]])
    >>> settings = {"num_groups": 3, "generator": torch.Generator().manual_seed(0)}
    >>> drawn = jackknife_draws(without, without.mean(0), num_draws=1000, **settings)
    >>> bool(drawn[:, 0].quantile(0.05) < 0.2), bool(drawn[:, 0].quantile(0.95) > 0.3)
    (True, True)
    """
    degrees = len(without) - 1.0
    if degrees == 0:
        return estimate.expand(num_draws, *estimate.shape)
    chi2 = 2 * torch._standard_gamma(torch.full((num_draws, 1), degrees / 2), generator=generator)
    t = torch.randn(num_draws, len(without), generator=generator) * (degrees / chi2).sqrt()
    factor = (num_groups - 1) / (num_groups * degrees) ** 0.5
    apart = factor * (without - without.mean(0))
    drawn = (estimate + torch.einsum("sk,k...->s...", t.to(apart), apart)).clamp_min(0.0)
    return drawn / drawn.sum(-1, keepdim=True)


def rake(drawn: Tensor, mean: Tensor) -> Tensor:
    r"""Scale draws of proportions, (S, \*L, P), so that their mean is ``mean``, (\*L, P).

    Where none may be below 0, draws about a small proportion are too large on average. Draws and
    means are scaled in turn [1]_.

    References
    ----------
    .. [1] W. E. Deming and F. F. Stephan. On a Least Squares Adjustment of a Sampled Frequency
       Table. Annals of Mathematical Statistics 11(4), 1940.

    Examples
    --------
    >>> drawn = torch.tensor([[0.0, 1.0], [0.4, 0.6]])
    >>> rake(drawn, torch.tensor([0.3, 0.7])).mean(0)
    tensor([0.3000, 0.7000])
    """
    for _ in range(NUM_ROUNDS):
        drawn = drawn * (mean / drawn.mean(0).clamp_min(1e-30))
        total = drawn.sum(-1, keepdim=True)
        drawn = torch.where(total > 0, drawn / total, mean)
    return drawn
