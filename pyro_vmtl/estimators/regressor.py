"""The regressor, for real targets and for counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from torch import Tensor

from pyro_vmtl.estimators.base import VMTLEstimator
from pyro_vmtl.methods.presets import Method
from pyro_vmtl.predictive.quantiles import quantiles as quantiles_of

__all__ = ["VMTLRegressor"]


class VMTLRegressor(RegressorMixin, VMTLEstimator):
    """Regression in many related tasks, each of which borrows from the right others.

    Features and real targets are standardised inside, over the rows of all tasks, and an intercept
    is added. Predictions are in the unit of the targets. Tasks may differ in their numbers of rows,
    from one on.

    Parameters
    ----------
    method
        Name of a preset, such as ``"default"`` or ``"shared"`` (:mod:`pyro_vmtl.methods.presets`),
        or a :class:`~pyro_vmtl.methods.preset.Preset` or :class:`~pyro_vmtl.Stack` of one's own.
    likelihood
        ``"normal"`` for real targets, or ``"poisson"`` for counts.
    scale_features
        Whether to scale features to unit variance; they are always centred. False suits features
        that share a unit, such as pixels.
    num_samples
        S, draws from the posterior for predictions.
    random_state
        Seed: the same number gives the same fit and the same predictions.
    device
        Where to fit and predict, such as ``"cuda"``.
    progress
        Show a progress bar, with the time that remains?

    Attributes
    ----------
    tasks_
        the labels of the T tasks in order of first appearance.
    task_sizes_
        training rows of each.
    n_features_in_, feature_names_in_
        number of features, and their names where those of the fit had any.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X, tasks = rng.normal(size=(60, 2)), np.repeat(["Ada", "Bo", "Cy"], 20)
    >>> y = 100 + 10 * X[:, 0] + rng.normal(size=60)
    >>> reg = VMTLRegressor("shared").fit(X, y, tasks=tasks)
    >>> mean, std = reg.predict([[1.0, 0.0]], tasks=["Bo"], return_std=True)
    >>> bool(abs(mean - 110) < 2), bool(0.5 < std < 2)
    (True, True)
    """

    def __init__(
        self,
        method: str | Method = "default",
        *,
        likelihood: Literal["normal", "poisson"] = "normal",
        scale_features: bool = True,
        num_samples: int = 200,
        random_state: int = 0,
        device: str = "cpu",
        progress: bool = False,
    ) -> None:
        self.method = method
        self.likelihood = likelihood
        self.scale_features = scale_features
        self.num_samples = num_samples
        self.random_state = random_state
        self.device = device
        self.progress = progress

    def fit(
        self,
        X: Any,
        y: Any,
        tasks: Any = None,
        *,
        sample_weight: Any = None,
        validation_data: tuple[Any, ...] | None = None,
        checkpoints: str | Path | None = None,
    ) -> Self:
        """Fit all tasks together.

        Parameters
        ----------
        X
            (rows, F), features: an array, data frame, torch tensor or sparse matrix.
        y
            (rows,), real targets, or counts. Rows where it is NaN are not used, with a notice.
        tasks
            (rows,), the label of each row's task, of any hashable kind; by default all rows are of
            one task.
        sample_weight
            (rows,), how much each row counts; all the same by default.
        validation_data
            Other rows ``(X, y, tasks)`` to calibrate and weigh the members of the default on.
            They are else fitted to five folds of the rows in turn, which takes six times as long.
        checkpoints
            Folder to keep the state of the fit in, and to go on from.

        Raises
        ------
        ValueError
            If rows cannot be used. The message names task, column and row, and the way out.
        """
        if self.likelihood not in ("normal", "poisson"):
            raise ValueError(
                f"likelihood is {self.likelihood!r}, expected 'normal' for real targets or "
                "'poisson' for counts."
            )
        return self._fit(X, y, tasks, sample_weight, validation_data, checkpoints)

    def predict(
        self,
        X: Any,
        tasks: Any = None,
        *,
        return_std: bool = False,
        quantiles: Sequence[float] | None = None,
    ) -> Any:
        """Give predictive means, and how uncertain they are.

        Parameters
        ----------
        X
            (rows, F), features.
        tasks
            (rows,), labels of tasks. Rows of a task that was not in the fit are predicted as those
            of a new one, with a notice.
        return_std
            Give standard deviations, too?
        quantiles
            Probabilities between 0 and 1, to give the quantiles of.

        Returns
        -------
        ndarray or tuple of ndarray
            Means (rows,), then standard deviations (rows,) and quantiles (rows, number of
            probabilities) where they were asked for; all of new targets, noise included, in the
            unit of the targets.
        """
        asked = [] if quantiles is None else [float(p) for p in quantiles]
        if any(not 0 < p < 1 for p in asked):
            raise ValueError(f"quantiles is {asked}, expected probabilities between 0 and 1.")
        parts = list(self._predictive(X, tasks))
        found = np.empty((sum(len(rows) for rows, _, _ in parts), 2 + len(asked)))
        for rows, predictive, mask in parts:
            columns = [predictive.mean, predictive.variance.sqrt()]
            if asked:
                columns += list(quantiles_of(predictive, asked))
            values = torch.stack([column[mask] for column in columns], dim=1)
            found[rows] = values.double().cpu().numpy()
        found *= self._unit
        found[:, 0] += self._centre
        found[:, 2:] += self._centre
        results = [found[:, 0]]
        if return_std:
            results.append(found[:, 1])
        if quantiles is not None:
            results.append(found[:, 2:])
        return results[0] if len(results) == 1 else tuple(results)

    def log_density(self, X: Any, y: Any, tasks: Any = None) -> np.ndarray:
        """Give the log predictive density of targets that are known, (rows,), in nats.

        Parameters
        ----------
        X, tasks
            As for :meth:`predict`.
        y
            (rows,), true targets.
        """
        targets = self._targets(y, np.arange(len(y)))
        density = np.empty(len(targets))
        for rows, predictive, mask in self._predictive(X, tasks):
            y_at = torch.zeros(mask.shape, device=mask.device)
            y_at[mask] = targets[torch.from_numpy(rows)].to(mask.device)
            density[rows] = predictive.log_prob(y_at)[mask].double().cpu().numpy()
        return density - np.log(self._unit)

    def score(self, X: Any, y: Any, tasks: Any = None, sample_weight: Any = None) -> float:
        """Give the explained variance R², over all rows.

        Parameters
        ----------
        X, tasks
            As for :meth:`predict`.
        y
            (rows,), true targets.
        sample_weight
            (rows,), how much each row counts.
        """
        return float(r2_score(y, self.predict(X, tasks), sample_weight=sample_weight))

    def _kind(self) -> str:
        return "regression" if self.likelihood == "normal" else "counts"

    def _num_classes(self) -> None:
        return None

    def _learn_targets(self, y: np.ndarray, weight: np.ndarray | None, rows: np.ndarray) -> Tensor:
        values = self._numbers(y, rows)
        self._centre, self._unit = 0.0, 1.0
        if self.likelihood == "normal":
            self._centre = float(np.average(values, weights=weight))
            off = values - self._centre
            most = np.abs(off).max() or 1.0  # squares of very large or small numbers are none
            self._unit = float(most * np.sqrt(np.average((off / most) ** 2, weights=weight)))
        if len(values) > 1 and values.min() == values.max():
            raise ValueError(
                f"y is {values[0]:g} in all {len(values)} rows, expected targets that differ: "
                "there is nothing to learn."
            )
        self._unit = self._unit or 1.0  # a single row
        return self._scaled(values)

    def _targets(self, y: np.ndarray, rows: np.ndarray) -> Tensor:
        return self._scaled(self._numbers(y, rows))

    def _scaled(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy((values - self._centre) / self._unit).float()

    def _numbers(self, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Read targets as numbers, and name the row of the first that is none, or no count."""
        try:
            values = np.asarray(y, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"y has values that are not numbers ({error}). For classes use VMTLClassifier."
            ) from error
        wrong = np.flatnonzero(~np.isfinite(values))
        expected = "a finite number: y has NaN or infinity"
        if self.likelihood == "poisson" and not len(wrong):
            wrong = np.flatnonzero((values < 0) | (values != np.floor(values)))
            expected = "a count, 0, 1, 2 and so on. For other targets use likelihood='normal'"
        if len(wrong):
            raise ValueError(
                f"y has {values[wrong[0]]} in row {rows[wrong[0]]}, expected {expected}."
            )
        return values
