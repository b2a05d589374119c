"""Numbers of draws: a handler that draws some sites less often than others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger

__all__ = ["CrossedDraws"]


class CrossedDraws(Messenger):
    """Draw some sites less often than the others, and use every draw with every other.

    It works from outside of the traces of an ELBO with S vectorised particles. With M draws of one
    site and L of another, their M * L pairs are used by the particles in turn. Other sites are
    drawn for every particle.

    Parameters
    ----------
    num_draws
        For each site its number of draws. Their product divides S.
    """

    def __init__(self, num_draws: Mapping[str, int]) -> None:
        super().__init__()
        self.num_draws = dict(num_draws)
        self.fresh: set[str] = set()

    def _pyro_sample(self, msg: Any) -> None:
        # A model replays the draws of its guide, which are crossed already.
        if msg["name"] in self.num_draws and not msg["done"]:
            self.fresh.add(msg["name"])

    def _pyro_post_sample(self, msg: Any) -> None:
        name = msg["name"]
        frames = [f for f in msg["cond_indep_stack"] if f.name == "num_particles_vectorized"]
        if name not in self.fresh or not frames:
            return
        self.fresh.remove(name)
        sizes = list(self.num_draws.values())
        particles = frames[0].size
        if particles % math.prod(sizes):
            raise ValueError(
                f"num_draws is {self.num_draws} with product {math.prod(sizes)}, which does not "
                f"divide the {particles} particles of the ELBO."
            )
        place = list(self.num_draws).index(name)
        size, stride = sizes[place], math.prod(sizes[place + 1 :])
        # One draw stays one, so that what depends on it is computed once.
        particle = torch.arange(particles if size > 1 else 1, device=msg["value"].device)
        dim = msg["value"].ndim + frames[0].dim - len(msg["fn"].event_shape)
        msg["value"] = msg["value"].index_select(dim, particle // stride % size)
