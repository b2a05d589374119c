"""Selection of training rows: leave out those that harm, if that helps rows not yet seen."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyro_vmtl.attribution.influence import influence, log_density
from pyro_vmtl.data.folds import folds, keep_rows
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.linear_response.response import as_double
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.method import Method

__all__ = ["Selection", "select_rows"]


@dataclass(frozen=True, eq=False)
class Selection:
    """Training rows that were selected.

    Attributes
    ----------
    kept
        (T, N), True for rows of the fit; as positions in the user's arrays, ``data.row[kept]``.
    fitted
        The fit to these rows.
    gains
        For each number of rows left out, by how many nats a validation row that had no part in the
        choice of rows is predicted better than by all rows, and the standard error of that.
    """

    kept: Tensor
    fitted: Fitted
    gains: dict[int, tuple[float, float]]


def select_rows(
    method: Method,
    data: TaskData,
    validation: TaskData,
    *,
    task: Hashable | None = None,
    fractions: Sequence[float] = (0.02, 0.05, 0.1, 0.2),
    seed: int = 0,
    num_samples: int = 200,
) -> Selection:
    """Fit without the rows that harm, chosen on validation rows.

    By their influence on one half of the validation rows, the most harmful rows are left out, and
    for ``task`` all rows of tasks that harm it on the whole. The other half decides how many: none,
    unless its gain is above its standard error.

    Parameters
    ----------
    method
        A method, such as a preset.
    data
        Training rows.
    validation
        Other rows of the same tasks, with targets.
    task
        The task that matters, by its label; all tasks by default.
    fractions
        Fractions of the training rows to leave out.
    seed
        Seed of the fits and of the halves.
    num_samples
        Draws of the log predictive density.

    Examples
    --------
    >>> from pyro_vmtl.methods.presets import presets
    >>> X = torch.linspace(-1, 1, 60)[:, None]
    >>> y = 2 * X[:, 0] + 0.1 * torch.sin(9 * X[:, 0])
    >>> wrong = y.clone()
    >>> wrong[7::20] = -4.0
    >>> data = TaskData.regression(X, wrong, ["a", "b"] * 30)
    >>> validation = data.new_rows(X + 0.01, ["a", "b"] * 30, y)
    >>> method = presets("regression")["mixed-model"].for_data(data)
    >>> selection = select_rows(method, data, validation, fractions=[0.05])
    >>> data.row[data.mask & ~selection.kept].tolist()
    [7, 27, 47]
    """
    fitted = method.fit(data, seed=seed)
    chooses, judges = next(iter(folds(validation, 2, seed=seed)))
    of = slice(None) if task is None else data.task_labels.index(task)
    own = torch.tensor([label == task for label in data.task_labels])
    if task is not None:
        judges = keep_rows(judges, judges.mask & own[:, None])

    def quantity(fit: Fitted) -> Tensor:
        return log_density(fit, as_double(chooses), num_samples=num_samples, seed=seed)[of].sum()

    found = influence(fitted, data, of=quantity, seed=seed)
    values = torch.zeros(data.mask.shape, dtype=torch.float64)
    place = data.mask.nonzero()[data.row[data.mask].argsort()]
    values[tuple(place.T)] = torch.as_tensor(found["influence"].values)
    candidates = [data.mask & ~_most_harmful(values, data.mask, part) for part in fractions]
    if task is not None:
        harms = (values.sum(1) < 0) & ~own
        candidates.append(data.mask & ~harms[:, None])
    before = _log_densities(fitted, judges, num_samples, seed)
    best, gains = (0.0, data.mask, fitted), {}
    for kept in candidates:
        left_out = int((data.mask & ~kept).sum())
        if not left_out or left_out in gains:
            continue
        again = method.fit(keep_rows(data, kept), seed=seed)
        gain = _log_densities(again, judges, num_samples, seed) - before
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        gains[left_out] = float(gain.mean()), float(error)
        if gain.mean() > max(error, best[0]):
            best = float(gain.mean()), kept, again
    return Selection(best[1], best[2], gains)


def _most_harmful(values: Tensor, mask: Tensor, fraction: float) -> Tensor:
    """Return a fraction of the rows: those of the lowest values, if below 0."""
    number = round(fraction * int(mask.sum()))
    lowest = values.masked_fill(~mask, torch.inf).flatten().argsort()[:number]
    chosen = torch.zeros(mask.numel(), dtype=torch.bool)
    chosen[lowest] = True
    return chosen.reshape(mask.shape) & (values < 0)


def _log_densities(fitted: Fitted, rows: TaskData, num_samples: int, seed: int) -> np.ndarray:
    """Compute the log predictive density of every row."""
    predictive = fitted.predictive(rows, num_samples=num_samples, seed=seed)
    assert rows.y is not None
    found: np.ndarray = predictive.log_prob(rows.y)[rows.mask].double().numpy()
    return found
