"""Multi-task regressor for real targets and counts, with scikit-learn's interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from torch import Tensor

from pyro_vmtl.estimators.base import VMTLEstimator
from pyro_vmtl.estimators.predicting import PredictionBatch
from pyro_vmtl.estimators.rows import Rows
from pyro_vmtl.methods.method import Method
from pyro_vmtl.predictive.quantiles import quantiles as quantiles_of

__all__ = ["VMTLRegressor"]


class VMTLRegressor(RegressorMixin, VMTLEstimator):
    """Regressor of many related tasks, each of which borrows strength from the relevant others.

    Features and real targets are standardized over the rows of all tasks, and an intercept is
    added. Predictions are in the unit of the targets. Tasks may differ in their numbers of rows,
    from one on.

    Parameters
    ----------
    method
        Name of a preset, such as ``"default"`` or ``"shared"`` (:mod:`pyro_vmtl.methods.presets`),
        or any method: a :class:`~pyro_vmtl.methods.preset.Preset`, a :class:`~pyro_vmtl.Stack`, or
        your own model and guide.
    likelihood
        ``"normal"`` for real targets, or ``"poisson"`` for counts.
    scale_features
        Whether to scale features to unit variance; they are always centred. False suits features
        that share a unit, such as pixels.
    num_samples
        S, number of posterior draws for predictions.
    random_state
        Seed of the fit and of predictions.
    device
        Device to fit and predict on, such as ``"cuda"``.
    progress
        Whether to show a progress bar.

    Attributes
    ----------
    tasks_
        Labels of the T tasks in sorted order, not that of their appearance.
    task_sizes_
        (T,), number of training rows of each task, in the order of ``tasks_``.
    relatedness_, history_
        Posterior of the source weights, and loss of the fit, in the order of ``tasks_``.
    target_mean_, target_scale_
        Mean and standard deviation of real targets; 0 and 1 for counts.
    fitted_
        The underlying :class:`~pyro_vmtl.Fitted`, with its tasks in an order of its own.
    n_features_in_, feature_names_in_
        Number of features, and their names if those of ``fit`` have any.

    See Also
    --------
    VMTLClassifier : The same for classes.

    References
    ----------
    Shen, Zhen, Worring, Shao. "Variational multi-task learning with Gumbel-softmax priors."
    NeurIPS 2021. https://arxiv.org/abs/2111.05323

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
        super().__init__(
            method,
            scale_features=scale_features,
            num_samples=num_samples,
            random_state=random_state,
            device=device,
            progress=progress,
        )
        self.likelihood = likelihood

    def predict(
        self,
        X: Any,
        tasks: Any = None,
        *,
        return_std: bool = False,
        quantiles: Sequence[float] | None = None,
    ) -> Any:
        """Return predictive means, and optionally standard deviations and quantiles.

        Parameters
        ----------
        X
            (rows, F), features.
        tasks
            (rows,), task labels. Rows of a task that is not in the fit are predicted as rows of a
            new task, with a warning.
        return_std
            Whether to return standard deviations, too.
        quantiles
            Probabilities between 0 and 1 of quantiles to return, too.

        Returns
        -------
        ndarray or tuple of ndarray
            Means (rows,), then standard deviations (rows,) and quantiles (rows, number of
            probabilities) if requested; all of new targets, noise included.
        """
        levels = [] if quantiles is None else [float(p) for p in quantiles]
        if any(not 0 < p < 1 for p in levels):
            raise ValueError(f"quantiles is {levels}, expected probabilities between 0 and 1.")

        def summarize(batch: PredictionBatch) -> dict[str, Tensor]:
            predictive = batch.mixture()
            found = {"mean": predictive.mean, "std": predictive.variance.sqrt()}
            if levels:
                found["quantiles"] = torch.stack(list(quantiles_of(predictive, levels)), dim=-1)
            return found

        found = self.map_predictions(summarize, X, tasks)
        results = [self.target_mean_ + self.target_scale_ * found["mean"]]
        if return_std:
            results.append(self.target_scale_ * found["std"])
        if quantiles is not None:
            of_levels = found.get("quantiles", np.empty((len(results[0]), 0)))
            results.append(self.target_mean_ + self.target_scale_ * of_levels)
        return results[0] if len(results) == 1 else tuple(results)

    def log_density(self, X: Any, y: Any, tasks: Any = None) -> np.ndarray:
        """Return the log predictive density of known targets, (rows,), in nats.

        Parameters
        ----------
        X, tasks
            As for :meth:`predict`.
        y
            (rows,), true targets.
        """
        targets = self._standardize(self._check_numbers(y, np.arange(len(y))))
        found = self.map_predictions(
            lambda batch: {"density": batch.mixture().log_prob(batch.pad(targets))}, X, tasks
        )
        return found["density"] - np.log(self.target_scale_)

    def score(self, X: Any, y: Any, tasks: Any = None, sample_weight: Any = None) -> float:
        """Return the coefficient of determination R² over all rows.

        Parameters
        ----------
        X, tasks
            As for :meth:`predict`.
        y
            (rows,), true targets.
        sample_weight
            (rows,), weights of the rows.
        """
        return float(r2_score(y, self.predict(X, tasks), sample_weight=sample_weight))

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.likelihood not in ("normal", "poisson"):
            raise ValueError(
                f"likelihood is {self.likelihood!r}, expected 'normal' for real targets or "
                "'poisson' for counts."
            )

    def _kind(self) -> str:
        return "regression" if self.likelihood == "normal" else "counts"

    def _learn_targets(self, rows: Rows) -> Tensor:
        values, weight = self._check_numbers(rows.y, rows.index), rows.weight
        self.target_mean_, self.target_scale_ = 0.0, 1.0
        if self.likelihood == "normal":
            self.target_mean_ = float(np.average(values, weights=weight))
            off = values - self.target_mean_
            most = np.abs(off).max() or 1.0  # squares of huge or tiny numbers overflow
            scale = most * np.sqrt(np.average((off / most) ** 2, weights=weight))
            self.target_scale_ = float(scale) or 1.0  # 0 for a single row
        if len(values) > 1 and values.min() == values.max():
            raise ValueError(
                f"y is {values[0]:g} in all {len(values)} rows, expected targets that differ: "
                "there is nothing to learn."
            )
        return self._standardize(values)

    def _encode_targets(self, rows: Rows) -> Tensor:
        return self._standardize(self._check_numbers(rows.y, rows.index))

    def _standardize(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy((values - self.target_mean_) / self.target_scale_).float()

    def _check_numbers(self, y: Any, index: np.ndarray) -> np.ndarray:
        """Convert targets to numbers, and name the row of the first that is unusable."""
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
                f"y has {values[wrong[0]]} in row {index[wrong[0]]}, expected {expected}."
            )
        return values
