"""The history of a fit: the loss, and what it was made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vmtl.elbo import ELBOTerms

__all__ = ["History"]


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
    """

    loss: Tensor
    step: Tensor
    log_likelihood: dict[str, Tensor]
    kl: dict[str, Tensor]

    def __repr__(self) -> str:
        last = f", last loss {self.loss[-1]:.1f}" if len(self.loss) else ""
        return f"History({len(self.loss)} steps{last})"

    @classmethod
    def from_terms(cls, losses: list[float], terms: dict[int, ELBOTerms]) -> History:
        """Stack what was noted during a fit.

        Parameters
        ----------
        losses
            the loss at every step.
        terms
            for each noted step the terms of its loss.
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
        )
