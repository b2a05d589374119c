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

The share of the second part is that of the posterior. A calibration changes the total, but would
make the draws agree where that predicts better, whatever the posterior is uncertain of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import xarray as xr
from torch import Tensor
from torch.distributions import Categorical, Distribution

from pyro_vmtl.analysis.export.labels import Labels, Variable
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.predictive.families import family_of, predictive_mixture
from pyro_vmtl.predictive.mixtures import pit
from pyro_vmtl.predictive.quantiles import quantiles

__all__ = ["chunks", "predictions", "split_uncertainty", "summarize_draws"]

MOST_NUMBERS = 20_000_000
"""Numbers that draws of some rows may have at once."""

INTERVAL = 0.05, 0.95

Draws = Callable[[TaskData], Sequence[Distribution]]
"""Returns, for rows, what draws of each member predict before calibration, (S, T, N)."""

Calibrate = Callable[[Sequence[Distribution]], Sequence[Distribution]]
"""Corrects these predictions."""


@torch.no_grad()
def predictions(
    draws: Draws,
    weights: Tensor,
    rows: TaskData,
    labels: Labels,
    *,
    num_draws: int,
    seed: int,
    calibrate: Calibrate = list,
) -> xr.Dataset:
    """Predict rows by ``num_draws`` draws of all members together, whose weights are (T, M)."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        summarize_draws(draws(some), weights, some.y, generator, calibrate)
        for some in chunks(rows, num_draws)
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
    draws: Sequence[Distribution],
    weights: Tensor,
    y: Tensor | None,
    generator: torch.Generator,
    calibrate: Calibrate = list,
) -> dict[str, Tensor]:
    """Compute all variables of :func:`predictions` in the layout of the draws, (T, N)."""
    posterior, draws = draws, calibrate(draws)
    found = split_uncertainty(draws, weights, INTERVAL, posterior=posterior)
    if "quantile" in found:
        found["lower"], found["upper"] = found.pop("quantile").unbind(-1)
    if y is not None and family_of(draws[0]).ordered:
        found["pit"] = pit(predictive_mixture(draws, weights), y, generator)
    return found if y is None else {**found, "y": y}


@torch.no_grad()
def split_uncertainty(
    draws: Sequence[Distribution],
    weights: Tensor,
    probabilities: Sequence[float] = (),
    *,
    posterior: Sequence[Distribution] | None = None,
) -> dict[str, Tensor]:
    """Split the uncertainty of what draws (S, T, N) of members with weights (T, M) predict, (T, N).

    The shares are those of ``posterior``, the same draws before calibration. Quantiles, (T, N,
    probabilities), are of numbers.
    """
    predictive: Any = predictive_mixture(draws, weights)
    of_posterior: Any = predictive if posterior is None else predictive_mixture(posterior, weights)
    posterior = draws if posterior is None else posterior
    if isinstance(predictive, Categorical):
        entropy, total = (torch.special.entr(p.probs).sum(-1) for p in (predictive, of_posterior))
        noise = _average((d.entropy() for d in posterior), weights)
        share = _share(noise, total)
        return {
            "proba": predictive.probs,
            "entropy": entropy,
            "expected_entropy": share * entropy,
            "mutual_information": (1 - share) * entropy,
        }
    noise = _average((d.variance for d in posterior), weights)
    unknown = _average(((d.mean - of_posterior.mean) ** 2 for d in posterior), weights)
    share = _share(noise, noise + unknown)
    var = _average((d.variance + (d.mean - predictive.mean) ** 2 for d in draws), weights)
    found = {
        "mean": predictive.mean,
        "std": var.sqrt(),
        "epistemic_std": torch.where(share < 1, (1 - share) * var, 0.0).sqrt(),
        "aleatoric_std": (share * var).sqrt(),
    }
    if probabilities:
        found["quantile"] = torch.stack(list(quantiles(predictive, probabilities)), dim=-1)
    return found


def _share(noise: Tensor, total: Tensor) -> Tensor:
    """Compute the share of noise, 1 where nothing is uncertain, or all infinitely."""
    share = (noise / total).clamp_max(1.0)  # larger by rounding only
    return share.where((total > 0) & total.isfinite(), 1.0)


def _average(values: Iterable[Tensor], weights: Tensor) -> Tensor:
    """Average values (S, T, N) of each member over draws, and over members by their weights."""
    means = torch.stack([value.mean(0) for value in values])
    return torch.einsum("mtn,tm->tn", means, weights.to(means))
