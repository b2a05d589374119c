"""The history of a fit: the loss and its terms."""

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
        (num_steps,), loss (negative ELBO) at every step.
    step
        (K,), steps at which the terms were recorded.
    log_likelihood
        log-likelihood of each observed site: (K, T), or (K,) for sites outside the task plate and
        for fits on batches of tasks.
    kl
        KL divergence of each latent site, as weighted in the ELBO, of the same shapes.
    snapshot_step
        (K',), number of updates before each snapshot of the source weights, from 0 to the number
        of steps: at most 31, and none from 354 tasks on, where they would need too much memory.
    relatedness
        source weights of each shared site, (K', T, T + 1), the base last. These are the softmax of
        the posterior's logits, the probability of each source to have the largest weight.
        The mean of draws from :func:`~pyro_vmtl.relatedness` is somewhat more even, increasingly
        so at higher temperatures.
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
        """Stack what was recorded during a fit.

        Parameters
        ----------
        losses
            Loss at every step.
        terms
            Terms of the loss, by step.
        snapshots
            Relatedness of each shared site, by number of updates done.
        """
        recorded = list(terms.values())

        def stack(kind: str) -> dict[str, Tensor]:
            sites = getattr(recorded[0], kind) if recorded else ()
            return {
                site: torch.stack([getattr(t, kind)[site].cpu() for t in recorded])
                for site in sites
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
