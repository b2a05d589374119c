r"""Plain priors of one task's coefficients.

============== ============================== ================== ==================
symbol         meaning                        code               shape
============== ============================== ================== ==================
:math:`m`      mean over tasks                ``loc``            the site's event
:math:`\tau`   spread of tasks about it       ``scale``          () or the event
============== ============================== ================== ==================

What they learn is learned by maximising the ELBO (empirical Bayes, type II maximum likelihood).
"""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn

__all__ = ["HierarchicalNormal", "StandardNormal", "ZeroMeanNormal"]


class StandardNormal(nn.Module):
    """Normal with mean 0 and standard deviation 1, nothing of it learned.

    Parameters
    ----------
    event_shape
        Shape of the site in one task.

    Examples
    --------
    >>> StandardNormal([3, 5])().event_shape
    torch.Size([3, 5])
    """

    scale: Tensor

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(*event_shape))

    def forward(self) -> dist.Independent:
        """Give the prior."""
        return dist.Normal(torch.zeros_like(self.scale), self.scale).to_event(self.scale.ndim)


class ZeroMeanNormal(nn.Module):
    """Normal with mean 0 and one learned standard deviation.

    Parameters
    ----------
    event_shape
        Shape of the site in one task.
    init_scale
        Standard deviation at the start.

    Examples
    --------
    >>> ZeroMeanNormal([3, 5])().event_shape
    torch.Size([3, 5])
    """

    def __init__(self, event_shape: Sequence[int], *, init_scale: float = 1.0) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.raw_scale = nn.Parameter(torch.tensor(init_scale).log())

    def forward(self) -> dist.Independent:
        """Give the prior."""
        scale = self.raw_scale.exp().expand(self.event_shape)
        return dist.Normal(torch.zeros_like(scale), scale).to_event(len(self.event_shape))


class HierarchicalNormal(nn.Module):
    """Normal with a learned mean and standard deviation in each dimension.

    Parameters
    ----------
    event_shape
        Shape of the site in one task.
    init_scale
        Standard deviations at the start.

    Examples
    --------
    >>> HierarchicalNormal([3, 5])().event_shape
    torch.Size([3, 5])
    """

    def __init__(self, event_shape: Sequence[int], *, init_scale: float = 1.0) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(*event_shape))
        self.raw_scale = nn.Parameter(torch.full(tuple(event_shape), init_scale).log())

    def forward(self) -> dist.Independent:
        """Give the prior."""
        return dist.Normal(self.loc, self.raw_scale.exp()).to_event(self.loc.ndim)
