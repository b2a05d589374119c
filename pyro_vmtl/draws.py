"""Numbers of draws: an effect handler that crosses draws of several sites."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pyro_vmtl.handled import Handled, Program, SiteMessenger

__all__ = ["crossed_draws"]


def crossed_draws(guide: Program, num_draws: Mapping[str, int]) -> Handled:
    """Use every draw of one site with every draw of another.

    An ELBO with S vectorised particles draws all sites S times. With M draws of one site and L of
    another, as in Shen et al. (NeurIPS 2021, eq. 9), each is drawn that often only, and the
    S = M * L particles are their pairs.

    Parameters
    ----------
    guide
        Guide with these sites.
    num_draws
        For each site its number of draws. Their product is the number of particles of the ELBO,
        which must be vectorised.

    Returns
    -------
    Handled
        The guide with crossed draws. Run with one particle or none, it is as before.

    Raises
    ------
    ValueError
        If a number is below 1; when the guide runs, if the product is not the number of particles.
    """
    for site, num in num_draws.items():
        if num < 1:
            raise ValueError(f"num_draws[{site!r}] is {num}, expected at least 1.")
    return Handled(guide, lambda state: _CrossedDraws(num_draws), nn.Module())


class _CrossedDraws(SiteMessenger):
    def __init__(self, num_draws: Mapping[str, int]) -> None:
        super().__init__(num_draws)
        self.num_draws = num_draws

    def _pyro_post_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name not in self.num_draws:
            return
        frames = [f for f in msg["cond_indep_stack"] if f.name == "num_particles_vectorized"]
        if not frames:
            return
        sizes = list(self.num_draws.values())
        particles = frames[0].size
        if math.prod(sizes) != particles:
            raise ValueError(
                f"num_draws is {dict(self.num_draws)} with product {math.prod(sizes)}, but the "
                f"ELBO has {particles} particles. Give it num_particles={math.prod(sizes)}."
            )
        place = list(self.num_draws).index(name)
        stride = math.prod(sizes[place + 1 :])
        particle = torch.arange(particles, device=msg["value"].device)
        dim = msg["value"].ndim + frames[0].dim - len(msg["fn"].event_shape)
        msg["value"] = msg["value"].index_select(dim, particle // stride % sizes[place])
