r"""Predictive uncertainty in two parts: what more rows could remove, and what they could not.

With draws :math:`s` from the posterior that predict :math:`p_s(y)`, and their mean :math:`p(y)`:

.. math:: H[p] = \underbrace{\textstyle\frac1S\sum_s H[p_s]}_{\text{expected entropy}}
    + \underbrace{I[y; w]}_{\text{mutual information}}, \qquad
    \operatorname{Var}[y] = \underbrace{\textstyle\frac1S\sum_s \sigma_s^2}_{\text{aleatoric}}
    + \underbrace{\operatorname{Var}_s[m_s]}_{\text{epistemic}}

Draws that agree leave only the first part: the classes overlap, or the targets are noisy. Draws
that do not agree are what the posterior does not know yet (Depeweg et al., ICML 2018). In a stack a
draw counts by its member's weight, so that members that do not agree add to the second part.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.distributions import Categorical, Distribution

from pyro_vmtl.analysis.export.predicted_rows import predicted
from pyro_vmtl.predictive.families import predictive_mixture
from pyro_vmtl.predictive.quantiles import quantiles

__all__ = ["PROBABILITIES", "predictive_split"]

PROBABILITIES = (0.05, 0.25, 0.75, 0.95)
"""Of the quantiles: bands of 50 and 90 %."""


def predictive_split(predict: Any, X: Any, tasks: Sequence[Hashable]) -> xr.Dataset:
    """Predict rows, with the parts of the uncertainty.

    Parameters
    ----------
    predict
        A fitted estimator of this package, a pipeline that ends in one, whatever has
        ``predict_proba(X, tasks=...)``, or a function ``(X, tasks)`` that gives probabilities:
        (rows, C), or those of each draw from a posterior, (S, rows, C).
    X
        (rows, F), features.
    tasks
        (rows,), labels of tasks.

    Returns
    -------
    Dataset
        Along ``row``, for classes ``proba`` (row, class) and in nats ``entropy`` and, where there
        are draws, ``expected_entropy`` and ``mutual_information``; for real targets and counts, in
        their unit, ``mean``, ``std``, ``aleatoric_std``, ``epistemic_std``, and ``quantile`` (row,
        probability).

    Examples
    --------
    >>> draws = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])  # each is sure, of another class
    >>> found = predictive_split(lambda X, tasks: draws, [[0.0]], ["Ada"])
    >>> [round(float(found[n][0]), 3) for n in ("entropy", "expected_entropy")]
    [0.693, 0.0]
    """
    while hasattr(predict, "steps"):  # pipelines, also nested ones
        X = predict[:-1].transform(X) if len(predict.steps) > 1 else X
        predict = predict[-1]
    if hasattr(predict, "_predictive"):
        return _of_estimator(predict, X, tasks)
    if hasattr(predict, "predict_proba"):
        proba = np.asarray(predict.predict_proba(X, tasks=tasks), dtype=float)
    else:
        proba = np.asarray(predict(np.asarray(X), list(tasks)), dtype=float)
    if proba.ndim not in (2, 3) or proba.shape[-2] != len(tasks):
        raise ValueError(
            f"predict gives an array of shape {proba.shape}, expected probabilities ({len(tasks)} "
            f"rows, classes), or with draws first (draws, {len(tasks)} rows, classes)."
        )
    draws = Categorical(probs=torch.from_numpy(proba).reshape(-1, 1, *proba.shape[-2:]))
    found = {name: value[0].numpy() for name, value in _split([draws], None).items()}
    if proba.ndim == 2:
        found = {name: found[name] for name in ("proba", "entropy")}
    classes = getattr(predict, "classes_", range(proba.shape[-1]))
    return _labelled(found, classes)


class _Splitting:
    """Stands in for an estimator's fit, and gives the parts in place of the whole."""

    def __init__(self, fitted: Any) -> None:
        self.fitted = fitted

    def predictive(self, rows: Any, *, tasks: Tensor, **settings: Any) -> dict[str, Tensor]:
        parts = self.fitted.draws(rows, tasks=tasks, **settings)
        return _split(parts, self.fitted.weights[tasks.cpu()])

    def new_task_predictive(self, rows: Any, **settings: Any) -> dict[str, Tensor]:
        parts = self.fitted.new_task_draws(rows, **settings)
        return _split(parts, self.fitted.new_task_weights[None])


def _split(parts: Sequence[Distribution], weights: Tensor | None) -> dict[str, Tensor]:
    """Split what the draws of fits predict, (S, T, N) each, weighed by (T, number of fits)."""
    if weights is None:
        weights = torch.full((parts[0].batch_shape[1], len(parts)), 1 / len(parts))
    found = predicted(parts, weights, None, torch.Generator())
    if "proba" in found:
        return found
    inner = quantiles(predictive_mixture(parts, weights), PROBABILITIES[1:3])
    bands = [found.pop("lower"), *inner, found.pop("upper")]
    return {**found, "quantile": torch.stack(bands, dim=-1)}


def _of_estimator(estimator: Any, X: Any, tasks: Sequence[Hashable]) -> xr.Dataset:
    """Predict by windows of rows, as the estimator does."""
    splitting = copy.copy(estimator)
    splitting._fitted = _Splitting(estimator._fitted)
    found: dict[str, np.ndarray] = {}
    for rows, parts, mask in splitting._predictive(X, list(tasks)):
        for name, values in parts.items():
            of_rows = values[mask].double().cpu().numpy()
            whole = found.setdefault(name, np.empty((len(tasks), *of_rows.shape[1:])))
            whole[rows] = of_rows
    if "proba" in found:
        return _labelled(found, estimator.classes_)
    for name in found:
        found[name] *= estimator._unit
    for name in ("mean", "quantile"):
        found[name] += estimator._centre
    return _labelled(found)


def _labelled(found: dict[str, np.ndarray], classes: Any = ()) -> xr.Dataset:
    last = {"proba": ("class", classes), "quantile": ("probability", list(PROBABILITIES))}
    dims = {name: ("row", *last.get(name, ())[:1]) for name in found}
    return xr.Dataset(
        {name: (dims[name], values) for name, values in found.items()},
        coords=dict(coord for name, coord in last.items() if name in found),
    )
