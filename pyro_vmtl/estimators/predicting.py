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

from pyro_vmtl.data.columns import check_columns, read_columns
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.estimators.exceptions import DataWarning
from pyro_vmtl.estimators.rows import (
    check_finite,
    join_some,
    positions_in_tasks,
    read_features,
    read_tasks,
    to_task_data,
)
from pyro_vmtl.estimators.scaling import Scaling
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.predictive.families import predictive_mixture

__all__ = ["PredictionBatch", "PredictionMixin", "prediction_batches"]

FEW_TASKS = 256
"""Up to so many tasks are predicted together, including those without rows in the batch."""

MOST_PADDING = 4
"""Times the rows, above which tasks without rows in a batch are left out of it."""

MAX_NUMBERS = 10_000_000
"""Numbers in the predictions of a batch, over all draws."""


@dataclass(frozen=True, eq=False)
class PredictionBatch:
    """Rows of B tasks with their predictive distributions, as ``map_predictions`` passes them on.

    Targets of a regressor are standardized.
    """

    rows: np.ndarray  # (n,), positions in the user's arrays
    draws: Sequence[Distribution]  # of each member, calibrated, batch (S, B, N)
    posterior: Sequence[Distribution]  # the same before calibration
    weights: Tensor  # (B, M), of the members in each task
    mask: Tensor  # (B, N), True for the n rows, in the order of `rows`

    def mixture(self) -> Any:
        """Return the posterior predictive distribution, batch (B, N)."""
        return predictive_mixture(self.draws, self.weights)

    def pad(self, values: Tensor) -> Tensor:
        """Arrange values of all of the user's rows as those of this batch, (B, N)."""
        padded = torch.zeros(self.mask.shape, dtype=values.dtype, device=self.mask.device)
        padded[self.mask] = values[torch.from_numpy(self.rows)].to(self.mask.device)
        return padded


class PredictionMixin:
    """Predictions of a fitted estimator."""

    num_samples: int
    random_state: int
    device: str
    fitted_: Fitted
    _sizes: dict[Hashable, int]  # training rows of each task, in the order of the fit
    _scaling: Scaling
    _columns: dict[str, Tensor]  # of one row

    def _class_labels(self) -> tuple[Any, ...] | None:
        """Return the classes; None for numbers."""
        return None

    def map_predictions(
        self,
        function: Callable[[PredictionBatch], dict[str, Tensor]],
        X: Any,
        tasks: Any = None,
        columns: Any = None,
    ) -> dict[str, np.ndarray]:
        r"""Compute statistics that :meth:`predict` does not return, batch by batch.

        Parameters
        ----------
        function
            Takes a batch of rows with ``draws`` (of each member, a distribution of batch shape
            (S, B, N)), ``weights`` (B, M) and ``mixture()``; returns tensors (B, N, \*shape).
        X, tasks, columns
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
        further = read_columns(columns, labels)
        check_columns(further, self._columns)
        names = getattr(self, "feature_names_in_", None)
        check_finite(X, labels, names, range(X.shape[0]))
        new = [repr(label) for label in dict.fromkeys(labels) if label not in self._sizes]
        if new:
            warnings.warn(
                f"{join_some(new)}: no such task in the fit, so rows are predicted as of a new "
                "task. `add_task` learns a task from its rows.",
                DataWarning,
                stacklevel=3,
            )
        classes = self._class_labels()
        cost = self.num_samples * max(len(classes or ()), 2)
        results: dict[str, np.ndarray] = {}
        for rows, chosen in prediction_batches(labels, tuple(self._sizes), X.shape[1], cost):
            of_rows, known = [labels[row] for row in rows.tolist()], tuple(self._sizes)
            if chosen is None:
                of_rows, known = ["new"] * len(rows), ("new",)
            some = {name: values[rows] for name, values in further.items()}
            x = self._scaling(X[rows])
            data = to_task_data(x, None, of_rows, known, classes, columns=some)
            batch = self._predict_batch(rows, data.to(self.device), chosen)
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
            posterior = draws = self.fitted_.new_task_draws(data, **settings)
            weights = self.fitted_.new_task_weights[None]
        else:
            weights, chosen = self.fitted_.weights[chosen], chosen.to(self.device)
            posterior = self.fitted_.draws(data, tasks=chosen, calibrated=False, **settings)
            draws = self.fitted_.calibrate(posterior)
            data = data.map_rows(partial(torch.Tensor.index_select, dim=0, index=chosen))
        index = rows[data.row[data.mask].cpu().numpy()]
        return PredictionBatch(index, draws, posterior, weights, data.mask)


def prediction_batches(
    labels: Sequence[Hashable], task_labels: Sequence[Hashable], num_features: int, cost: int
) -> Iterator[tuple[np.ndarray, Tensor | None]]:
    """Split rows into batches that fit into memory: the first rows of every task, the next, ....

    ``cost`` is how many numbers the prediction of a row holds, over all draws. Yield indices of
    rows, and indices (B,) of the tasks to predict, which are None for rows of new tasks.
    """
    index = {label: t for t, label in enumerate(task_labels)}
    task = np.array([index.get(label, -1) for label in labels])
    new = np.flatnonzero(task < 0)
    size = max(1, MAX_NUMBERS // (cost + num_features))
    for start in range(0, len(new), size):
        yield new[start : start + size], None
    counts = np.bincount(task[task >= 0], minlength=len(task_labels))
    position = positions_in_tasks(task)
    start, padded = 0, len(task_labels) * counts.max()
    alike = padded <= MOST_PADDING * counts.sum() or padded * cost <= MAX_NUMBERS
    while start < counts.max():
        present = np.flatnonzero(counts > start)
        if alike and len(task_labels) <= FEW_TASKS:
            present = np.arange(len(task_labels))  # so that draws do not depend on those asked for
        numbers = len(present) * cost + len(task_labels) * num_features
        size = max(1, MAX_NUMBERS // numbers)
        now = (task >= 0) & (position >= start) & (position < start + size)
        yield np.flatnonzero(now), torch.from_numpy(present)
        start += size
