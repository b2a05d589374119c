r"""Predictive uncertainty in two parts: what more rows could remove, and what they could not.

With draws :math:`s` from the posterior that predict :math:`p_s(y)`, and their mean :math:`p(y)`:

.. math:: H[p] = \underbrace{\textstyle\frac1S\sum_s H[p_s]}_{\text{expected entropy}}
    + \underbrace{I[y; w]}_{\text{mutual information}}, \qquad
    \operatorname{Var}[y] = \underbrace{\textstyle\frac1S\sum_s \sigma_s^2}_{\text{aleatoric}}
    + \underbrace{\operatorname{Var}_s[m_s]}_{\text{epistemic}}

If draws agree, only the first part is left: the classes overlap, or the targets are noisy. If they
do not, the posterior is still uncertain. In a stack each draw has the weight of its member, so that
disagreement between members adds to the second part.

References
----------
Depeweg, Hernández-Lobato, Doshi-Velez, Udluft. "Decomposition of uncertainty in Bayesian deep
learning for efficient and risk-sensitive learning." ICML 2018.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.distributions import Categorical, Distribution

from pyro_vmtl.predictive.families import predictive_mixture
from pyro_vmtl.predictive.quantiles import quantiles

__all__ = ["PROBABILITIES", "predictive_split", "split_uncertainty"]

PROBABILITIES = (0.05, 0.25, 0.75, 0.95)
"""Levels of the quantiles: intervals of 50 and 90 %."""


def predictive_split(predict: Any, X: Any, tasks: Sequence[Hashable]) -> xr.Dataset:
    """Predict rows by an estimator, a pipeline or a function, and split the predictive uncertainty.

    ``predict`` is what :func:`decision_grid` takes. The variables are those of
    :func:`split_uncertainty`, along ``row``, in the unit of the targets.
    """
    while hasattr(predict, "steps"):  # pipelines, also nested ones
        X = predict[:-1].transform(X) if len(predict.steps) > 1 else X
        predict = predict[-1]
    if hasattr(predict, "map_predictions"):
        found = predict.map_predictions(
            lambda batch: split_uncertainty(batch.draws, batch.weights, PROBABILITIES),
            *(X, list(tasks)),
        )
        if "proba" in found:
            return _to_dataset(found, predict.classes_)
        for name in found:
            shift = predict.target_mean_ if name in ("mean", "quantile") else 0.0
            found[name] = found[name] * predict.target_scale_ + shift
        return _to_dataset(found)
    if hasattr(predict, "predict_proba"):
        proba = np.asarray(predict.predict_proba(X, tasks=tasks), dtype=float)
    else:
        proba = np.asarray(predict(np.asarray(X), list(tasks)), dtype=float)
    if proba.ndim not in (2, 3) or proba.shape[-2] != len(tasks):
        raise ValueError(
            f"predict returns an array of shape {proba.shape}, expected probabilities "
            f"({len(tasks)} rows, classes), or with draws first (draws, {len(tasks)} rows, "
            "classes)."
        )
    draws = Categorical(probs=torch.from_numpy(proba).reshape(-1, 1, *proba.shape[-2:]))
    parts = split_uncertainty([draws], torch.ones(1, 1))
    names = ("proba", "entropy") if proba.ndim == 2 else parts
    found = {name: parts[name][0].numpy() for name in names}
    return _to_dataset(found, getattr(predict, "classes_", range(proba.shape[-1])))


@torch.no_grad()
def split_uncertainty(
    draws: Sequence[Distribution], weights: Tensor, probabilities: Sequence[float] = ()
) -> dict[str, Tensor]:
    """Split the uncertainty of what draws (S, T, N) of members with weights (T, M) predict, (T, N).

    Quantiles (T, N, probabilities) are of likelihoods that have a distribution function.
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


def _to_dataset(found: dict[str, np.ndarray], classes: Any = ()) -> xr.Dataset:
    last = {"proba": ("class", classes), "quantile": ("probability", list(PROBABILITIES))}
    return xr.Dataset(
        {name: (("row", *last.get(name, ())[:1]), values) for name, values in found.items()},
        coords=dict(coord for name, coord in last.items() if name in found),
    )
