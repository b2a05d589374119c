r"""Priors of one task's coefficients.

============== ============================== ============================ =================
symbol         meaning                        code                         shape
============== ============================== ============================ =================
:math:`m`      mean over tasks                site ``w_mean``              the site's event
:math:`\tau`   standard deviation about it    ``raw_scale``                ()
\              or one for each number         site ``w_scale``             the site's event
:math:`\tau_0` standard deviation of m        ``mean_prior.raw_scale``     ()
============== ============================== ============================ =================

Numbers that are no sites are learned by maximizing the ELBO (empirical Bayes, type II maximum
likelihood), the median of the log-normal prior of ``w_scale`` included.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

__all__ = ["HierarchicalNormal", "StandardNormal", "ZeroMeanNormal"]


class StandardNormal(nn.Module):
    """Normal with mean 0 and standard deviation 1, without parameters.

    Parameters
    ----------
    event_shape
        Shape of the site in one task.

    Examples
    --------
    >>> StandardNormal([2])().event_shape
    torch.Size([2])
    """

    fixed_graph = True
    scale: Tensor

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(*event_shape))

    def forward(self) -> dist.Independent:
        """Return the prior."""
        return dist.Normal(torch.zeros_like(self.scale), self.scale).to_event(self.scale.ndim)


class ZeroMeanNormal(nn.Module):
    """Normal with mean 0 and one learned standard deviation.

    Parameters
    ----------
    event_shape
        Shape of the site in one task.
    init_scale
        Initial standard deviation.

    Examples
    --------
    >>> ZeroMeanNormal([2], init_scale=0.5)().stddev.tolist()
    [0.5, 0.5]
    """

    fixed_graph = True

    def __init__(self, event_shape: Sequence[int], *, init_scale: float = 1.0) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.raw_scale = nn.Parameter(torch.tensor(init_scale).log())

    def forward(self) -> dist.Independent:
        """Return the prior."""
        scale = self.raw_scale.exp().expand(self.event_shape)
        return dist.Normal(torch.zeros_like(scale), scale).to_event(len(self.event_shape))


class HierarchicalNormal(nn.Module):
    r"""Normal about a latent mean that all tasks share: hierarchical Bayes.

    The mean is a site ``w_mean`` outside the task plate, with the prior :math:`N(0, \tau_0^2)`;
    both scales are learned. Its guide has that site, too:
    ``MeanFieldNormal({"w": shape}, T, common={"w_mean": shape})``.

    Parameters
    ----------
    event_shape
        Shape of the site in one task.
    init_scale
        Initial value of both standard deviations.
    latent_scales
        Whether each number has a standard deviation of its own, a site ``w_scale`` with a
        log-normal prior: coefficients of some features vary between tasks, others do not.

    Examples
    --------
    >>> import pyro
    >>> with pyro.plate("task", 3, dim=-2):
    ...     fn = HierarchicalNormal([2])()
    >>> fn.event_shape
    torch.Size([2])
    """

    fixed_graph = True

    def __init__(
        self, event_shape: Sequence[int], *, init_scale: float = 1.0, latent_scales: bool = False
    ) -> None:
        super().__init__()
        self.mean_prior = ZeroMeanNormal(event_shape, init_scale=init_scale)
        self.raw_scale = nn.Parameter(torch.tensor(init_scale).log())
        self.latent_scales = latent_scales

    def forward(self) -> dist.Independent:
        """Sample the mean, and return the prior."""
        mean = pyro.sample("w_mean", self.mean_prior())
        event_shape = self.mean_prior.event_shape
        scale = self.raw_scale.exp().expand(event_shape)
        if self.latent_scales:
            prior = dist.LogNormal(self.raw_scale.expand(event_shape), torch.ones_like(scale))
            scale = pyro.sample("w_scale", prior.to_event(len(event_shape)))
        return dist.Normal(mean, scale).to_event(len(event_shape))
