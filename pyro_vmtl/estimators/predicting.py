"""Predictions batch by batch: what posterior draws of every member predict for some rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.distributions import Distribution

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.estimators.notices import DataNotice
from pyro_vmtl.estimators.reading import check_finite, join_some, read_features, read_tasks
from pyro_vmtl.estimators.rows import positions_in_tasks, to_task_data
from pyro_vmtl.estimators.scaling import Scaling
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.predictive.families import predictive_mixture

__all__ = ["PredictionBatch", "PredictionMixin", "prediction_batches"]

FEW_TASKS = 256
"""Up to so many tasks are predicted together, including those without rows in the batch."""

MAX_NUMBERS = 20_000_000
"""Numbers in the predictions of a batch, over all draws."""


@dataclass(frozen=True, eq=False)
class PredictionBatch:
    """Rows with their predictive distributions, for :meth:`VMTLClassifier.map_predictions`.

    Attributes
    ----------
    rows
        (n,), positions in the user's arrays.
    draws
        The likelihood of the targets under posterior draws of each of the M members, calibrated,
        batch (S, B, N) each. Targets of a regressor are standardized.
    weights
        (B, M), weights of the members in each task.
    mask
        (B, N), True for the n rows, in the order of ``rows``; others are padding.
    """

    rows: np.ndarray
    draws: Sequence[Distribution]
    weights: Tensor
    mask: Tensor

    def mixture(self) -> Distribution:
        """Return the posterior predictive distribution, batch (B, N)."""
        return predictive_mixture(self.draws, self.weights)

    def pad(self, values: Tensor) -> Tensor:
        """Lay out values of all of the user's rows as those of this batch, (B, N)."""
        padded = torch.zeros(self.mask.shape, dtype=values.dtype, device=self.mask.device)
        padded[self.mask] = values[torch.from_numpy(self.rows)].to(self.mask.device)
        return padded


class PredictionMixin:
    """Predictions of a fitted estimator."""

    num_samples: int
    random_state: int
    device: str
    fitted_: Fitted
    _sizes: dict[Hashable, int]
    _scaling: Scaling

    def _class_labels(self) -> tuple[Any, ...] | None:
        """Return the classes; None for numbers."""
        return None

    def map_predictions(
        self, function: Callable[[PredictionBatch], dict[str, Tensor]], X: Any, tasks: Any = None
    ) -> dict[str, np.ndarray]:
        r"""Apply a function to what posterior draws predict for rows, batch by batch.

        Use it for statistics that :meth:`predict` does not return.

        Parameters
        ----------
        function
            Takes a batch of rows, with attributes ``draws`` (for each member a distribution of
            batch shape (S, B, N)), ``weights`` (B, M) and a method ``mixture()``, and returns
            tensors (B, N, \*shape) by name.
        X, tasks
            As for :meth:`predict`.

        Returns
        -------
        dict
            Arrays (rows, \*shape) by name. A regressor standardizes its targets: multiply by
            ``target_scale_`` and add ``target_mean_`` to convert a location.

        Examples
        --------
        >>> from pyro_vmtl import VMTLRegressor
        >>> from pyro_vmtl.methods.preset import Preset
        >>> quick = Preset(fitting={"num_steps": 50})
        >>> X, y, tasks = [[0.0], [1.0], [2.0]], [0.0, 1.1, 1.9], ["Ada", "Ada", "Bo"]
        >>> reg = VMTLRegressor(quick).fit(X, y, tasks)
        >>> found = reg.map_predictions(lambda b: {"scale": b.draws[0].scale.amax(0)}, X, tasks)
        >>> found["scale"].shape
        (3,)
        """
        check_is_fitted(self)
        X = read_features(self, X, reset=False)
        labels = read_tasks(tasks, X.shape[0], known=list(self._sizes))
        check_finite(X, labels, getattr(self, "feature_names_in_", None))
        new = [repr(label) for label in dict.fromkeys(labels) if label not in self._sizes]
        if new:
            warnings.warn(
                f"{join_some(new)}: no such task in the fit, so rows are predicted as of a new "
                "task. `add_task` learns a task from its rows.",
                DataNotice,
                stacklevel=3,
            )
        classes = self._class_labels()
        cost = self.num_samples * max(len(classes or ()), 2)
        results: dict[str, np.ndarray] = {}
        for rows, chosen in prediction_batches(labels, tuple(self._sizes), X.shape[1], cost):
            x = self._scaling(X[rows])
            of_rows, known = [labels[row] for row in rows.tolist()], tuple(self._sizes)
            if chosen is None:
                of_rows, known = ["new"] * len(rows), ("new",)
            data = to_task_data(x, None, of_rows, known, classes).to(self.device)
            batch = self._predict_batch(rows, data, chosen)
            for name, values in function(batch).items():
                found = values[batch.mask].double().cpu().numpy()
                result = results.setdefault(name, np.empty((X.shape[0], *found.shape[1:])))
                result[batch.rows] = found
        return results

    def _predict_batch(
        self, rows: np.ndarray, data: TaskData, chosen: Tensor | None
    ) -> PredictionBatch:
        settings: dict[str, Any] = {"num_samples": self.num_samples, "seed": self.random_state}
        if chosen is None:
            draws = self.fitted_.new_task_draws(data, **settings)
            weights = self.fitted_.new_task_weights[None]
        else:
            weights, chosen = self.fitted_.weights[chosen], chosen.to(self.device)
            draws = self.fitted_.draws(data, tasks=chosen, **settings)
            data = data.map_rows(partial(torch.Tensor.index_select, dim=0, index=chosen))
        index = rows[data.row[data.mask].cpu().numpy()]
        return PredictionBatch(index, draws, weights, data.mask)


def prediction_batches(
    labels: Sequence[Hashable], task_labels: Sequence[Hashable], num_features: int, cost: int
) -> Iterator[tuple[np.ndarray, Tensor | None]]:
    """Split rows into batches that fit into memory: the first rows of every task, the next, ....

    Parameters
    ----------
    labels
        (rows,), task labels.
    task_labels
        The T tasks of the fit. Rows of other tasks are rows of a new one.
    num_features
        F.
    cost
        Numbers in the prediction of a row, over all draws.

    Yields
    ------
    tuple
        Indices of rows, and the indices (B,) of the tasks to predict; None for rows of new tasks.
    """
    index = {label: t for t, label in enumerate(task_labels)}
    task = np.array([index.get(label, -1) for label in labels])
    new = np.flatnonzero(task < 0)
    size = max(1, MAX_NUMBERS // (cost + num_features))
    for start in range(0, len(new), size):
        yield new[start : start + size], None
    order = np.argsort(task, kind="stable")[len(new) :]
    counts = np.bincount(task[order], minlength=len(task_labels))
    position = positions_in_tasks(task[order])
    start = 0
    while start < counts.max():
        present = np.flatnonzero(counts > start)
        if len(task_labels) <= FEW_TASKS:  # all, so that draws do not depend on the tasks asked for
            present = np.arange(len(task_labels))
        numbers = len(present) * cost + len(task_labels) * num_features
        size = max(1, MAX_NUMBERS // numbers)
        rows = np.sort(order[(position >= start) & (position < start + size)])
        yield rows, torch.from_numpy(present)
        start += size
