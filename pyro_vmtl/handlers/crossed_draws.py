"""A handler that draws some sites less often than others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger

__all__ = ["CrossedDraws"]


class CrossedDraws(Messenger):
    """Draw some sites less often than others, and combine every draw with every other.

    The handler encloses an ELBO with S vectorized particles. With M draws of one site and L of
    another, where M * L divides S, the particles use the pairs in turn. Other sites are drawn for
    every particle.
    """

    def __init__(self, num_draws: Mapping[str, int]) -> None:
        super().__init__()
        self.num_draws = dict(num_draws)
        self.fresh: set[str] = set()
        self.missing = set(num_draws)

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        if self.missing and exception[0] is None:
            raise ValueError(
                f"num_draws has {sorted(self.missing)}, which the guide does not draw. Remove "
                "them, or correct their names."
            )

    def _pyro_sample(self, msg: Any) -> None:
        # A model replays the draws of its guide, which are combined already.
        if msg["name"] in self.num_draws and not msg["done"]:
            self.fresh.add(msg["name"])

    def _pyro_post_sample(self, msg: Any) -> None:
        name = msg["name"]
        frames = [f for f in msg["cond_indep_stack"] if f.name == "num_particles_vectorized"]
        if name not in self.fresh or not frames:
            return
        self.fresh.remove(name)
        self.missing.discard(name)
        sizes = list(self.num_draws.values())
        place = list(self.num_draws).index(name)
        size, stride = sizes[place], math.prod(sizes[place + 1 :])
        # A single draw is not repeated, so that what depends on it is computed once.
        particle = torch.arange(frames[0].size if size > 1 else 1, device=msg["value"].device)
        chosen = particle // stride % size
        dim = msg["value"].ndim + frames[0].dim - len(msg["fn"].event_shape)
        msg["value"] = msg["value"].index_select(dim, chosen)
