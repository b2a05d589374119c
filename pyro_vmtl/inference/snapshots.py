"""Snapshots of the source weights during a fit, a bounded number of them."""

from __future__ import annotations

from torch import Tensor, nn

from pyro_vmtl.inference.history import Records
from pyro_vmtl.sharing.messengers import Sharing

__all__ = ["Snapshots"]

MAX_SNAPSHOTS = 30
"""Maximum number of snapshots of a fit, without that of its end."""

MAX_NUMBERS = 250_000
"""Maximum size of all snapshots of a fit, 1 MB. From 354 tasks on there are none."""


class Snapshots:
    """Take snapshots of the source weights, at larger intervals the longer a fit is.

    Whenever there are too many snapshots every second one is dropped. Which ones are kept depends
    on the step alone, so that a fit that is resumed has the same ones.
    """

    def __init__(self, module: nn.Module, every: int) -> None:
        sharing = [part for part in module.modules() if isinstance(part, Sharing)]
        self.sources = {site: sources for part in sharing for site, sources in part.items()}
        self.every = every
        size = sum(s.num_tasks * (s.num_tasks + 1) for s in self.sources.values())
        fit_in = MAX_NUMBERS // size if size else 0
        self.most = min(MAX_SNAPSHOTS, fit_in - 1)  # one is left for the end

    def take(self, step: int, kept: Records) -> None:
        """Take a snapshot, (T, T + 1) for each site, if it is time; thin those taken so far."""
        if self.most < 1:
            return
        stride = self.every
        while step // stride >= self.most:
            stride *= 2
        if step % stride:
            return
        for early in [early for early in kept if early % stride]:
            del kept[early]
        kept[step] = self._now()

    def end(self, step: int, kept: Records) -> None:
        """Take a snapshot of the end of the fit."""
        if self.most >= 1:
            kept[step] = self._now()

    def _now(self) -> dict[str, Tensor]:
        return {f"relatedness.{site}": s.location.cpu() for site, s in self.sources.items()}
