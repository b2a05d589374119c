"""Point estimates: an effect handler that removes the uncertainty of a guide."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import nn

from pyro_vmtl.handlers.program_handler import Program, ProgramWithHandler, SiteMessenger

__all__ = ["point_estimates"]


def point_estimates(guide: Program) -> ProgramWithHandler:
    """Replace every normal posterior of a guide by a point mass at its mean.

    With the plain prior this is maximum a posteriori estimation, and without its KL (``temper``
    with weight 0) maximum likelihood: the deterministic counterpart of the same model.

    Parameters
    ----------
    guide
        Guide whose latent sites are normal.

    Returns
    -------
    ProgramWithHandler
        The guide of point masses, which cannot be shared, as they have no scale.

    See Also
    --------
    pyro_vmtl.temper : Scale the KL of latent sites.

    Examples
    --------
    >>> import pyro
    >>> guide = point_estimates(lambda: pyro.sample("w", dist.Normal(torch.tensor(2.0), 1.0)))
    >>> guide()
    tensor(2.)
    """
    return ProgramWithHandler(guide, _Points, nn.Module())


class _Points(SiteMessenger):
    fixed_graph = True

    def __init__(self, state: nn.Module) -> None:
        super().__init__(())

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        inner = fn
        while isinstance(inner, torch.distributions.Independent):
            inner = inner.base_dist
        if isinstance(inner, dist.Normal | dist.MultivariateNormal):
            msg["fn"] = dist.Delta(fn.mean, event_dim=len(fn.event_shape))
