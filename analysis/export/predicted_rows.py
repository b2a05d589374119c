r"""Predictions of rows, and their uncertainty in two parts: what more rows could remove or not.

With draws :math:`s` from the posterior that predict :math:`p_s(y)`, and their mean :math:`p(y)`
(Depeweg, Hernández-Lobato, Doshi-Velez and Udluft, ICML 2018):

.. math:: H[p] = \underbrace{\textstyle\frac1S\sum_s H[p_s]}_{\text{expected entropy}}
    + \underbrace{I[y; w]}_{\text{mutual information}}, \qquad
    \operatorname{Var}[y] = \underbrace{\textstyle\frac1S\sum_s \sigma_s^2}_{\text{aleatoric}}
    + \underbrace{\operatorname{Var}_s[m_s]}_{\text{epistemic}}

If draws agree, only the first part is left: the classes overlap, or the targets are noisy. If they
do not, the posterior is still uncertain. In a stack each draw has the weight of its member, so that
disagreement between members adds to the second part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import torch
import xarray as xr
from torch import Tensor
from torch.distributions import Categorical, Distribution

from pyro_vmtl.analysis.export.labels import Labels, Variable
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.predictive.families import family_of, predictive_mixture
from pyro_vmtl.predictive.quantiles import quantiles

__all__ = ["chunks", "predictions", "split_uncertainty", "summarize_draws"]

MOST_NUMBERS = 20_000_000
"""Numbers that draws of some rows may have at once."""

INTERVAL = 0.05, 0.95

Draws = Callable[[TaskData], Sequence[Distribution]]
"""Returns, for rows, what draws of each member predict, (S, T, N)."""


@torch.no_grad()
def predictions(
    draws: Draws, weights: Tensor, rows: TaskData, labels: Labels, *, num_draws: int, seed: int
) -> xr.Dataset:
    """Predict rows by ``num_draws`` draws of all members together, whose weights are (T, M)."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        summarize_draws(draws(some), weights, some.y, generator) for some in chunks(rows, num_draws)
    ]
    variables = {}
    for name in parts[0]:
        values = torch.cat([part[name] for part in parts], dim=1)
        dims = ("row", "class") if values.ndim > 2 else ("row",)
        variables[name] = Variable(dims, labels.of_rows(values[None])[0].cpu().numpy())
    group = labels.dataset(variables)
    labels.note_classes("y", group)
    return group


def chunks(rows: TaskData, num_draws: int) -> list[TaskData]:
    """Split rows so that the predictions of each chunk by all draws fit into memory."""
    step = max(1, MOST_NUMBERS // (num_draws * rows.num_tasks * max(rows.num_classes, 2)))
    starts = range(0, rows.num_rows, step)
    return [rows.map_rows(lambda v, a=a: v[:, a : a + step]) for a in starts]  # type: ignore[misc]


def summarize_draws(
    draws: Sequence[Distribution], weights: Tensor, y: Tensor | None, generator: torch.Generator
) -> dict[str, Tensor]:
    """Compute all variables of :func:`predictions` in the layout of the draws, (T, N)."""
    found = split_uncertainty(draws, weights, INTERVAL)
    if "quantile" in found:
        found["lower"], found["upper"] = found.pop("quantile").unbind(-1)
        if y is not None:
            mixture = predictive_mixture(draws, weights)
            found["pit"] = family_of(draws[0]).pit(mixture, y, generator)
    return found if y is None else {**found, "y": y}


@torch.no_grad()
def split_uncertainty(
    draws: Sequence[Distribution], weights: Tensor, probabilities: Sequence[float] = ()
) -> dict[str, Tensor]:
    """Split the uncertainty of what draws (S, T, N) of members with weights (T, M) predict, (T, N).

    Quantiles, (T, N, probabilities), are of likelihoods that have a distribution function.
    """
    predictive: Any = predictive_mixture(draws, weights)
    if isinstance(predictive, Categorical):
        entropy = torch.special.entr(predictive.probs).sum(-1)
        expected = torch.minimum(_average((d.entropy() for d in draws), weights), entropy)
        return {
            "proba": predictive.probs,
            "entropy": entropy,
            "expected_entropy": expected,  # larger by rounding only
            "mutual_information": entropy - expected,
        }
    mean = predictive.mean
    aleatoric = _average((d.variance for d in draws), weights)
    epistemic = _average(((d.mean - mean) ** 2 for d in draws), weights)
    found = {
        "mean": mean,
        "std": (aleatoric + epistemic).sqrt(),
        "epistemic_std": epistemic.sqrt(),
        "aleatoric_std": aleatoric.sqrt(),
    }
    if probabilities:
        with suppress(NotImplementedError):  # such as for StudentT, which has no cdf in torch
            levels = list(quantiles(predictive, probabilities))
            found["quantile"] = torch.stack(levels, dim=-1)
    return found


def _average(values: Iterable[Tensor], weights: Tensor) -> Tensor:
    """Average values (S, T, N) of each member over draws, and over members by their weights."""
    means = torch.stack([value.mean(0) for value in values])
    return torch.einsum("mtn,tm->tn", means, weights.to(means))
