r"""The jackknife: how much an estimate depends on which rows there are.

Without each of :math:`K` groups of rows in turn, estimates are :math:`\theta_1, \dots, \theta_K`.
That of all rows has about the variance

.. math:: \frac{K - 1}{K} \sum_k (\theta_k - \bar\theta)^2

which is :math:`K - 1` times that of the estimates themselves, as any two have most of their rows in
common [1]_. It has :math:`K - 1` degrees of freedom.

References
----------
.. [1] P. S. Kott. The Delete-a-Group Jackknife. Journal of Official Statistics 17(4), 2001.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["jackknife_draws"]


def jackknife_draws(without: Tensor, *, num_draws: int, generator: torch.Generator) -> Tensor:
    r"""Draw proportions by the jackknife, from Student's t, and none below 0.

    Parameters
    ----------
    without
        (K, \*L, P), estimates without each group of rows, on the simplex.
    num_draws
        S, the number of draws.
    generator
        Random numbers of the draws, on the CPU.

    Returns
    -------
    Tensor
        (S, \*L, P), on the simplex; all are alike if there is one group only.

    Examples
    --------
    >>> without = torch.tensor([[0.2, 0.8], [0.25, 0.75], [0.3, 0.7]])
    >>> generator = torch.Generator().manual_seed(0)
    >>> drawn = jackknife_draws(without, num_draws=1000, generator=generator)
    >>> bool(drawn[:, 0].quantile(0.05) < 0.2), bool(drawn[:, 0].quantile(0.95) > 0.3)
    (True, True)
    """
    num_groups = len(without)
    if num_groups == 1:
        return without.expand(num_draws, *without.shape[1:])
    degrees = num_groups - 1.0
    chi2 = 2 * torch._standard_gamma(torch.full((num_draws, 1), degrees / 2), generator=generator)
    t = torch.randn(num_draws, num_groups, generator=generator) * (degrees / chi2).sqrt()
    mean = without.mean(0)
    apart = (degrees / num_groups) ** 0.5 * (without - mean)
    drawn = (mean + torch.einsum("sk,k...->s...", t.to(apart), apart)).clamp_min(0.0)
    return drawn / drawn.sum(-1, keepdim=True)
