"""The history of a fit: the loss, and what it was made of."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pyro_vmtl.inference.elbo import ELBOTerms

__all__ = ["History", "stacked"]


@dataclass(frozen=True, eq=False, repr=False)
class History:
    """The loss of a fit, in nats, split by site and task.

    Attributes
    ----------
    loss
        (num_steps,), the loss (negative ELBO) at every step.
    step
        (K,), the steps at which the terms were noted.
    log_likelihood
        for each observed site its log-likelihood: (K, T), or (K,) outside the task plate and in
        fits on some tasks at a time.
    kl
        the same for the KL of each latent site, as weighted in the ELBO.
    snapshot_step
        (K',), how many updates had been done when relatedness was looked at: 0 first, all last.
        There are at most 31, and none where two would hold over 4 million numbers.
    relatedness
        for each shared site (K', T, T + 1), how much each task borrows from each source, the base
        last: where the posterior of the weights lies (the softmax of its logits, which is the
        chance of a source to have the largest weight). The mean of the draws that
        :func:`~pyro_vmtl.relatedness` gives is somewhat more even, at higher temperatures more.
    """

    loss: Tensor
    step: Tensor
    log_likelihood: dict[str, Tensor]
    kl: dict[str, Tensor]
    snapshot_step: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    relatedness: dict[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        last = f", last loss {self.loss[-1]:.1f}" if len(self.loss) else ""
        return f"History({len(self.loss)} steps{last})"

    @classmethod
    def from_terms(
        cls,
        losses: list[float],
        terms: dict[int, ELBOTerms],
        snapshots: dict[int, dict[str, Tensor]],
    ) -> History:
        """Stack what was noted during a fit.

        Parameters
        ----------
        losses
            the loss at every step.
        terms
            for each noted step the terms of its loss.
        snapshots
            by the updates done, the relatedness of each shared site.
        """
        noted = list(terms.values())

        def stack(kind: str) -> dict[str, Tensor]:
            sites = getattr(noted[0], kind) if noted else ()
            return {
                site: torch.stack([getattr(t, kind)[site].cpu() for t in noted]) for site in sites
            }

        return cls(
            loss=torch.tensor(losses),
            step=torch.tensor(list(terms), dtype=torch.int64),
            log_likelihood=stack("log_likelihood"),
            kl=stack("kl"),
            snapshot_step=torch.tensor(list(snapshots), dtype=torch.int64),
            relatedness=stacked(snapshots),
        )


def stacked(snapshots: dict[int, dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack snapshots of sites along a new first dimension."""
    sites = next(iter(snapshots.values()), {})
    return {site: torch.stack([of[site] for of in snapshots.values()]) for site in sites}
