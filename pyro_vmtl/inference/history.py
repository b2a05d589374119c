"""The history of a fit: the loss and its terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["History", "Records", "with_prefix"]

Records = dict[int, dict[str, Tensor]]
"""Tensors by name, recorded at some of the steps."""

BY_STEP = ("loss", "step", "snapshot_step")
BY_SITE = ("log_likelihood", "kl", "relatedness")


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
        Log-likelihood of each observed site: (K, T), or (K,) for sites outside the task plate and
        for fits on batches of tasks.
    kl
        KL divergence of each latent site, as weighted in the ELBO, of the same shapes.
    snapshot_step
        (K',), number of updates before each snapshot of the source weights, from 0 to the number
        of steps: at most 31, and none from 354 tasks on, where they would need too much memory.
    relatedness
        Source weights of each shared site, (K', T, T + 1), the base last. These are the softmax of
        the posterior's logits, the probability of each source to have the largest weight.
        The mean of draws from :func:`~pyro_vmtl.relatedness` is somewhat more even, increasingly
        so at higher temperatures.

    Examples
    --------
    >>> history = fitted.result.history
    >>> history.loss.shape, history.kl["w"].shape[1]
    (torch.Size([50]), 3)
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
    def from_records(cls, losses: list[float], terms: Records, snapshots: Records) -> History:
        """Stack what was recorded during a fit."""
        steps = {
            "loss": torch.tensor(losses),
            "step": torch.tensor(list(terms), dtype=torch.int64),
            "snapshot_step": torch.tensor(list(snapshots), dtype=torch.int64),
        }
        return cls.from_tensors(steps | _stack(terms) | _stack(snapshots))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> History:
        """Restore what :meth:`to_tensors` returned."""
        by_step: dict[str, Any] = {name: tensors[name] for name in BY_STEP}
        by_site: dict[str, Any] = {kind: with_prefix(tensors, f"{kind}.") for kind in BY_SITE}
        return cls(**by_step, **by_site)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name, such as ``kl.w``."""
        by_site = {f"{kind}.{s}": v for kind in BY_SITE for s, v in getattr(self, kind).items()}
        return {name: getattr(self, name) for name in BY_STEP} | by_site


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Select the tensors whose names have a prefix, which is removed."""
    return {name[len(prefix) :]: v for name, v in tensors.items() if name.startswith(prefix)}


def _stack(records: Records) -> dict[str, Tensor]:
    """Stack the records of each name along a new first dimension."""
    names = next(iter(records.values()), {})
    return {name: torch.stack([of[name].cpu() for of in records.values()]) for name in names}
