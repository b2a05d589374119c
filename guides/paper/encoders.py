r"""Encoders: networks that compute a normal posterior for each input.

=================== ============================================ =============== ==============
symbol              meaning                                      code            shape
=================== ============================================ =============== ==============
:math:`M, m`        means of the last layer's weights and bias   ``loc``         (F, D), (D,)
:math:`S, s`        their standard deviations                    ``scale``       (F, D), (D,)
:math:`h`           input of the last layer                      ``x``           (..., F)
=================== ============================================ =============== ==============

The last layer is Bayesian. By local reparameterisation [1]_ its output is normal, and independent
over inputs:

.. math:: z | x \sim N\bigl(h^\top M + m,\; (h^2)^\top S^2 + s^2\bigr)

References
----------
.. [1] D. P. Kingma, T. Salimans, M. Welling. Variational Dropout and the Local Reparameterization
   Trick. NIPS 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

__all__ = ["ConcatenatedEncoders", "LinearEncoder", "MLPEncoder"]


class LinearEncoder(nn.Module):
    """One Bayesian linear layer.

    Parameters
    ----------
    num_features, latent_size
        F and D.
    num_tasks
        T, for a layer of its own in each task; None for one layer for all.
    dropout
        Probability of dropping a feature of an input in training.
    init_loc_scale
        Standard deviation of the random initial means; 1 / sqrt(F) by default.
    init_scale
        Initial standard deviations; a tenth of ``init_loc_scale`` by default.

    Examples
    --------
    >>> posterior = LinearEncoder(5, 2)(torch.zeros(3, 7, 5))
    >>> posterior.batch_shape, posterior.event_shape
    (torch.Size([3, 7]), torch.Size([2]))
    """

    fixed_graph = True

    def __init__(
        self,
        num_features: int,
        latent_size: int,
        *,
        num_tasks: int | None = None,
        dropout: float = 0.0,
        init_loc_scale: float | None = None,
        init_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        tasks = () if num_tasks is None else (num_tasks,)
        loc_scale = num_features**-0.5 if init_loc_scale is None else init_loc_scale
        scale = loc_scale / 10 if init_scale is None else init_scale
        self.dropout = nn.Dropout(dropout)
        self.loc = nn.Parameter(loc_scale * torch.randn(*tasks, num_features, latent_size))
        self.raw_scale = nn.Parameter(torch.full((*tasks, num_features, latent_size), scale).log())
        self.bias_loc = nn.Parameter(torch.zeros(*tasks, 1, latent_size))
        self.raw_bias_scale = nn.Parameter(torch.full((*tasks, 1, latent_size), scale).log())

    def forward(self, x: Tensor) -> dist.Independent:
        """Compute the posterior of inputs (..., F), or (T, N, F) with a layer per task."""
        x = self.dropout(x)
        numbers = (self.loc, self.bias_loc, self.raw_scale, self.raw_bias_scale)
        if self.num_tasks is not None:  # the plate over rows has a dimension
            numbers = tuple(pyro.subsample(v.unsqueeze(1), event_dim=2).squeeze(1) for v in numbers)
        loc, bias_loc, raw_scale, raw_bias_scale = numbers
        mean = (x @ loc).to(loc.dtype) + bias_loc  # under autocast only products have low precision
        var = (x**2 @ (2 * raw_scale).exp()).to(loc.dtype) + (2 * raw_bias_scale).exp()
        return dist.Normal(mean, var.sqrt()).to_event(1)


class MLPEncoder(nn.Module):
    """Fully connected layers with exponential linear units, then a Bayesian linear layer.

    Parameters
    ----------
    hidden
        Widths of the hidden layers.
    num_features, latent_size, dropout, init_loc_scale, init_scale
        See :class:`LinearEncoder`; the last two are of the last layer.

    Examples
    --------
    >>> MLPEncoder(5, 2, hidden=[8])(torch.zeros(3, 10, 5)).mean.shape
    torch.Size([3, 10, 2])
    """

    fixed_graph = True

    def __init__(
        self,
        num_features: int,
        latent_size: int,
        *,
        hidden: Sequence[int],
        dropout: float = 0.0,
        init_loc_scale: float | None = None,
        init_scale: float | None = None,
    ) -> None:
        super().__init__()
        widths = [num_features, *hidden]
        layers: list[nn.Module] = [nn.Dropout(dropout)]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ELU()]
        self.layers = nn.Sequential(*layers)
        self.last = LinearEncoder(
            widths[-1], latent_size, init_loc_scale=init_loc_scale, init_scale=init_scale
        )

    def forward(self, x: Tensor) -> dist.Independent:
        """Compute the posterior of inputs (..., F)."""
        posterior: dist.Independent = self.last(self.layers(x))
        return posterior


class ConcatenatedEncoders(nn.Module):
    """Concatenated outputs of several encoders, such as one for weights and one for the bias.

    Parameters
    ----------
    *encoders
        Encoders with D_1, D_2, ... outputs.

    Examples
    --------
    >>> from pyro_vmtl.guides import LinearEncoder
    >>> both = ConcatenatedEncoders(LinearEncoder(5, 2), LinearEncoder(5, 1))
    >>> both(torch.zeros(3, 10, 5)).mean.shape
    torch.Size([3, 10, 3])
    """

    fixed_graph = True

    def __init__(self, *encoders: nn.Module) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    def forward(self, x: Tensor) -> dist.Independent:
        """Compute the posterior of inputs (..., F), with D_1 + D_2 + ... outputs."""
        posteriors = [encoder(x) for encoder in self.encoders]
        mean = torch.cat([p.mean for p in posteriors], dim=-1)
        stddev = torch.cat([p.stddev for p in posteriors], dim=-1)
        return dist.Normal(mean, stddev).to_event(1)
