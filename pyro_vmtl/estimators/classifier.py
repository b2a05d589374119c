"""The classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor
from torch.distributions import Categorical

from pyro_vmtl.estimators.base import VMTLEstimator
from pyro_vmtl.estimators.reading import read_targets
from pyro_vmtl.methods.presets import Method

__all__ = ["VMTLClassifier"]


class VMTLClassifier(ClassifierMixin, VMTLEstimator):
    """Classification in many related tasks, each of which borrows from the right others.

    Features are standardised inside, over the rows of all tasks, and an intercept is added. Tasks
    may differ in their numbers of rows, from one on, and in the classes that they have rows of.

    Parameters
    ----------
    method
        Name of a preset, such as ``"default"`` or ``"shared"`` (:mod:`pyro_vmtl.methods.presets`),
        or a :class:`~pyro_vmtl.methods.preset.Preset` or :class:`~pyro_vmtl.Stack` of one's own.
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
    classes_
        (C,), the classes, sorted.
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
    >>> X = rng.normal(size=(60, 2))
    >>> tasks = np.repeat(["Ada", "Bo", "Cy"], 20)
    >>> y = np.where(X[:, 0] > 0, "high", "low")
    >>> clf = VMTLClassifier("shared").fit(X, y, tasks=tasks)
    >>> clf.predict([[2.0, 0.0], [-2.0, 0.0]], tasks=["Ada", "Cy"])
    array(['high', 'low'], dtype='<U4')
    >>> clf.relatedness_["mean"].dims
    ('task', 'source')
    """

    __metadata_request__predict_proba: ClassVar = {"tasks": True}
    __metadata_request__predict_log_proba: ClassVar = {"tasks": True}

    def __init__(
        self,
        method: str | Method = "default",
        *,
        scale_features: bool = True,
        num_samples: int = 200,
        random_state: int = 0,
        device: str = "cpu",
        progress: bool = False,
    ) -> None:
        self.method = method
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
            (rows,), classes. Rows where it is None or NaN are not used, with a notice.
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
        return self._fit(X, y, tasks, sample_weight, validation_data, checkpoints)

    def predict_proba(self, X: Any, tasks: Any = None) -> np.ndarray:
        """Give class probabilities, averaged over the posterior.

        Parameters
        ----------
        X
            (rows, F), features.
        tasks
            (rows,), labels of tasks. Rows of a task that was not in the fit are predicted as those
            of a new one, with a notice.

        Returns
        -------
        ndarray
            (rows, C), rows on the simplex, columns in the order of ``classes_``.
        """
        parts = list(self._predictive(X, tasks))
        proba = np.empty((sum(len(rows) for rows, _, _ in parts), len(self.classes_)))
        for rows, predictive, mask in parts:
            assert isinstance(predictive, Categorical)
            proba[rows] = predictive.probs[mask].double().cpu().numpy()
        return proba / proba.sum(axis=1, keepdims=True)

    def predict_log_proba(self, X: Any, tasks: Any = None) -> np.ndarray:
        """Give the logarithms of :meth:`predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X, tasks))

    def predict(self, X: Any, tasks: Any = None) -> np.ndarray:
        """Give the most probable class of each row, (rows,).

        Parameters
        ----------
        X, tasks
            As for :meth:`predict_proba`.
        """
        best = self.predict_proba(X, tasks).argmax(axis=1)
        return self.classes_[best]

    def score(self, X: Any, y: Any, tasks: Any = None, sample_weight: Any = None) -> float:
        """Give the accuracy, over all rows.

        Parameters
        ----------
        X, tasks
            As for :meth:`predict_proba`.
        y
            (rows,), true classes.
        sample_weight
            (rows,), how much each row counts.
        """
        found = self.predict(X, tasks)
        y = _of_one_kind(read_targets(y, len(found)))
        return float(accuracy_score(y, found, sample_weight=sample_weight))

    def _kind(self) -> str:
        return "classification"

    def _num_classes(self) -> int:
        return len(self.classes_)

    def _learn_targets(self, y: np.ndarray, weight: np.ndarray | None, rows: np.ndarray) -> Tensor:
        y = _of_one_kind(y)
        check_classification_targets(y)
        try:
            self.classes_, index = np.unique(y, return_inverse=True)
        except TypeError as error:
            kinds = sorted({type(value).__name__ for value in y})
            raise ValueError(
                f"y has labels of several kinds ({', '.join(kinds)}), which have no order. Make "
                "them all strings, for example."
            ) from error
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has one class, {self.classes_[0]!r}, in all rows, expected at least 2 classes."
            )
        return torch.from_numpy(index)

    def _targets(self, y: np.ndarray, rows: np.ndarray) -> Tensor:
        y = _of_one_kind(y)
        place = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        wrong = np.flatnonzero(self.classes_[place] != y)
        if len(wrong):
            raise ValueError(
                f"y has class {y[wrong].tolist()[0]!r} in row {rows[wrong[0]]}, expected one of "
                f"{self.classes_.tolist()}: a class is known from the fit, or not at all."
            )
        return torch.from_numpy(place)


def _of_one_kind(y: np.ndarray) -> np.ndarray:
    """Make an ordinary array of objects that are all of one kind, such as rows without a None."""
    plain = y.dtype == object and len({type(value) for value in y}) == 1
    return np.array(y.tolist()) if plain and not isinstance(y[0], str) else y
