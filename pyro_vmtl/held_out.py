"""What fits predict of rows that they did not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Normal

__all__ = ["HeldOut", "of_rows"]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions of rows by fits that did not see them.

    Attributes
    ----------
    draws
        for each member what its draws predict, (S, rows).
    y
        (rows,), the targets.
    task
        (rows,), the task of each row, from 0 on.
    num_tasks
        T.
    """

    draws: Mapping[str, Distribution]
    y: Tensor
    task: Tensor
    num_tasks: int = 0

    @classmethod
    def joined(cls, parts: Sequence[HeldOut], num_tasks: int) -> HeldOut | None:
        """Put the rows of all folds one after the other; None where there are none."""
        if not any(len(part.y) for part in parts):
            return None
        draws = {name: _all_rows([part.draws[name] for part in parts]) for name in parts[0].draws}
        y, task = (torch.cat([getattr(part, n) for part in parts]) for n in ("y", "task"))
        return cls(draws, y, task, num_tasks)


def of_rows(draws: Distribution, mask: Tensor) -> Distribution:
    """Take draws (S, T, N) to the rows that there are, (S, rows)."""
    if isinstance(draws, Categorical):
        return Categorical(logits=draws.logits[:, mask], validate_args=False)
    assert isinstance(draws, Normal)
    return Normal(draws.loc[:, mask], draws.scale[:, mask], validate_args=False)


def _all_rows(parts: list[Distribution]) -> Distribution:
    """Put the rows of all folds one after the other."""
    first = parts[0]
    if isinstance(first, Categorical):
        logits = torch.cat([part.logits for part in parts], dim=1)  # type: ignore[attr-defined]
        return Categorical(logits=logits, validate_args=False)
    loc, scale = (torch.cat([getattr(p, name) for p in parts], dim=1) for name in ("loc", "scale"))
    return Normal(loc, scale, validate_args=False)
