r"""What a fit says of rows that it has not seen, and what of its uncertainty can be learned away.

A predictive distribution is a mixture over draws of the posterior. Its uncertainty has two parts:
that within each draw, which more rows would not change, and that between draws, which they would.
For classes that is in nats (Depeweg et al., ICML 2018),

.. math:: H\Big[\sum_s \omega_s p_s\Big] = \sum_s \omega_s H[p_s] + \mathrm{MI},

and for real targets, with means :math:`m_s` and variances :math:`v_s`, the law of total variance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution

from pyro_vmtl.analysis.export.labels import Labels, Variable
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.predictive.families import predictive_mixture
from pyro_vmtl.predictive.overdispersed_poisson import OverdispersedPoisson
from pyro_vmtl.predictive.poisson import count_cdf
from pyro_vmtl.predictive.quantiles import quantiles

__all__ = ["chunks", "predicted", "predictions"]

MOST_NUMBERS = 20_000_000
"""Numbers that draws of some rows may have at once."""

INTERVAL = 0.05, 0.95

Draws = Callable[[TaskData], Sequence[Distribution]]
"""Gives, for rows, what the draws of each member predict, (S, T, N)."""


@torch.no_grad()
def predictions(
    draws: Draws, weights: Tensor, rows: TaskData, labels: Labels, *, num_draws: int, seed: int
) -> dict[str, Variable]:
    """Predict rows.

    Parameters
    ----------
    draws
        Gives what draws of every member predict.
    weights
        (T, M), rows on the simplex: how much each member counts.
    rows
        Rows to predict.
    labels
        Theirs.
    num_draws
        Draws of all members together.
    seed
        Seed of what is random in the place of a count.

    Returns
    -------
    dict
        For each quantity its values, in the order of ``labels``. Classes have ``proba`` (row,
        class) and, in nats, ``entropy``, ``expected_entropy`` and ``mutual_information``; others
        ``mean``, ``std``, ``epistemic_std``, ``aleatoric_std``, and ``lower`` and ``upper`` of the
        central 90 %. Where targets are known there are these, ``y``, and ``pit``, the predictive
        probability below them.
    """
    generator = torch.Generator().manual_seed(seed)
    parts: list[dict[str, Tensor]] = []
    for some in chunks(rows, num_draws):
        parts.append(predicted(draws(some), weights, some.y, generator))
    found = {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}
    made = {}
    for name, values in found.items():
        dims = ("row", "class") if values.ndim > 2 else ("row",)
        made[name] = Variable(dims, labels.of_rows(values[None])[0].cpu().numpy())
    return made


def chunks(rows: TaskData, num_draws: int) -> list[TaskData]:
    """Cut rows, so that what draws predict of each part fits into memory."""
    step = max(1, MOST_NUMBERS // (num_draws * rows.num_tasks * max(rows.num_classes, 2)))
    starts = range(0, rows.num_rows, step)
    return [rows.map_rows(lambda v, a=a: v[:, a : a + step]) for a in starts]  # type: ignore[misc]


def predicted(
    parts: Sequence[Distribution], weights: Tensor, y: Tensor | None, generator: torch.Generator
) -> dict[str, Tensor]:
    """Give all quantities of :func:`predictions`, (T, N) each, from what draws predict.

    Examples
    --------
    >>> logits = torch.tensor([9.0, -9.0]).view(2, 1, 1, 1) * torch.tensor([1.0, -1.0])
    >>> draws, one = Categorical(logits=logits), torch.ones(1, 1)
    >>> found = predicted([draws], one, None, torch.Generator())
    >>> round(found["entropy"].item(), 3), round(found["expected_entropy"].item(), 3)
    (0.693, 0.0)
    """
    weights = weights.to(_numbers(parts[0]))
    known = {} if y is None else {"y": y}
    if isinstance(parts[0], Categorical):
        categorical: Any = parts
        proba = sum(w * part.probs.mean(0) for w, part in _weighed(weights[..., None], categorical))
        within = sum(w * part.entropy().mean(0) for w, part in _weighed(weights, categorical))
        entropy = torch.special.entr(proba).sum(-1)
        within = torch.minimum(within, entropy)  # but for rounding it is
        return {
            "proba": proba,
            "entropy": entropy,
            "expected_entropy": within,
            "mutual_information": entropy - within,
            **known,
        }
    predictive: Any = predictive_mixture(parts, weights)
    mean = predictive.mean
    each = list(_weighed(weights, parts))
    aleatoric = sum(w * part.variance.mean(0) for w, part in each)
    epistemic = sum(w * ((part.mean - mean) ** 2).mean(0) for w, part in each)
    lower, upper = quantiles(predictive, INTERVAL)
    found = {
        "mean": mean,
        "std": (aleatoric + epistemic).sqrt(),
        "epistemic_std": epistemic.sqrt(),
        "aleatoric_std": aleatoric.sqrt(),
        "lower": lower,
        "upper": upper,
    }
    if y is not None:
        found |= {"pit": _below(predictive, y, generator), **known}
    return found


def _numbers(part: Any) -> Tensor:
    numbers: Tensor = part.probs if isinstance(part, Categorical) else part.mean
    return numbers


def _weighed(weights: Tensor, parts: Sequence[Any]) -> Any:
    """Give each member with its weights, (T, 1) or (T, 1, 1)."""
    return [(weights[:, m, None], part) for m, part in enumerate(parts)]


def _below(predictive: Any, y: Tensor, generator: torch.Generator) -> Tensor:
    """Give the predictive probability below targets: for counts, of a place within that of each."""
    parts = predictive.component_distribution
    if not isinstance(parts, OverdispersedPoisson):
        below: Tensor = predictive.cdf(y)
        return below.clamp(0, 1)
    weight = predictive.mixture_distribution.probs.cpu().double().numpy()
    rate, excess = (v.cpu().double().numpy() for v in (parts.rate, parts.excess))
    count = y.cpu().double().numpy()[..., None]
    upto = (weight * count_cdf(count, rate, excess)).sum(-1)
    below_it = count_cdf((count - 1).clip(min=0), rate, excess) * (count > 0)
    under = (weight * below_it).sum(-1)
    place = torch.rand(y.shape, generator=generator, dtype=torch.float64).numpy()
    return torch.as_tensor(under + place * (upto - under)).clamp(0, 1).to(predictive.mean)
