"""Snapshots of the source weights during a fit: few, however many steps and tasks there are."""

from __future__ import annotations

from torch import Tensor, nn

from pyro_vmtl.sharing.messengers import Sharing

__all__ = ["Snapshots"]

MOST = 30
"""Snapshots of a fit, the end aside."""

MOST_NUMBERS = 250_000
"""Numbers in all snapshots of a fit: 1 MB. From 354 tasks on there are none."""


class Snapshots:
    """Look at how much tasks borrow, at steps that lie further apart the longer a fit is.

    Whenever there are too many snapshots every second one is dropped. Which ones are kept depends
    on nothing but the step, so that a fit that was cut off goes on with the same ones.

    Parameters
    ----------
    module
        Model and guide.
    every
        Steps from one to the next while there are few.
    """

    def __init__(self, module: nn.Module, every: int) -> None:
        sharing = [part for part in module.modules() if isinstance(part, Sharing)]
        self.sources = {site: sources for part in sharing for site, sources in part.items()}
        self.every = every
        size = sum(s.num_tasks * (s.num_tasks + 1) for s in self.sources.values())
        fit_in = MOST_NUMBERS // size if size else 0
        self.most = min(MOST, fit_in - 1)  # one is left for the end

    def take(self, step: int, kept: dict[int, dict[str, Tensor]]) -> None:
        """Put a snapshot to those kept so far, if it is time for one, and thin these.

        Parameters
        ----------
        step
            Updates done so far.
        kept
            By step, for each site (T, T + 1), on the CPU.
        """
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

    def end(self, step: int, kept: dict[int, dict[str, Tensor]]) -> None:
        """Put where the fit ended to those kept."""
        if self.most >= 1:
            kept[step] = self._now()

    def _now(self) -> dict[str, Tensor]:
        return {site: sources.location.cpu() for site, sources in self.sources.items()}
