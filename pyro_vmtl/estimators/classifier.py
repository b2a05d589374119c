"""Multi-task classifier with scikit-learn's interface."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

from pyro_vmtl.estimators.base import VMTLEstimator
from pyro_vmtl.estimators.rows import Rows, read_targets

__all__ = ["VMTLClassifier"]


class VMTLClassifier(ClassifierMixin, VMTLEstimator):
    """Classifier of many related tasks, each of which borrows strength from the relevant others.

    Features are standardized over the rows of all tasks, and an intercept is added. Tasks may
    differ in their numbers of rows, from one on, and in the classes of their rows.

    Parameters
    ----------
    method
        Name of a preset, such as ``"default"`` or ``"shared"`` (:mod:`pyro_vmtl.methods.presets`),
        or any method: a :class:`~pyro_vmtl.methods.preset.Preset`, a :class:`~pyro_vmtl.Stack`, or
        your own model and guide.
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
    classes_
        (C,), classes in sorted order.
    tasks_
        Labels of the T tasks in sorted order, not that of their appearance.
    task_sizes_
        (T,), number of training rows of each task, in the order of ``tasks_``.
    relatedness_, history_
        Posterior of the source weights, and loss of the fit, in the order of ``tasks_``.
    fitted_
        The underlying :class:`~pyro_vmtl.Fitted`, with its tasks in an order of its own.
    n_features_in_, feature_names_in_
        Number of features, and their names if those of ``fit`` have any.

    See Also
    --------
    VMTLRegressor : The same for real targets and counts.

    References
    ----------
    Shen, Zhen, Worring, Shao. "Variational multi-task learning with Gumbel-softmax priors."
    NeurIPS 2021. https://arxiv.org/abs/2111.05323

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

    __metadata_request__predict_proba: ClassVar = {"tasks": True, "columns": True}
    __metadata_request__predict_log_proba: ClassVar = {"tasks": True, "columns": True}

    def predict_proba(self, X: Any, tasks: Any = None, *, columns: Any = None) -> np.ndarray:
        """Return class probabilities, averaged over the posterior.

        Parameters
        ----------
        X
            (rows, F), features.
        tasks
            (rows,), task labels. Rows of a task that is not in the fit are predicted as rows of a
            new task, with a warning.
        columns
            As for :meth:`fit`: the same columns.

        Returns
        -------
        ndarray
            (rows, C), columns in the order of ``classes_``.
        """
        found = self.map_predictions(lambda b: {"proba": b.mixture().probs}, X, tasks, columns)
        proba = found["proba"]
        return proba / proba.sum(axis=1, keepdims=True)

    def predict_log_proba(self, X: Any, tasks: Any = None, *, columns: Any = None) -> np.ndarray:
        """Return the logarithm of :meth:`predict_proba`, (rows, C)."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X, tasks, columns=columns))

    def predict(self, X: Any, tasks: Any = None, *, columns: Any = None) -> np.ndarray:
        """Return the most probable class of each row, (rows,).

        Parameters
        ----------
        X, tasks, columns
            As for :meth:`predict_proba`.
        """
        best = self.predict_proba(X, tasks, columns=columns).argmax(axis=1)
        return self.classes_[best]

    def score(
        self, X: Any, y: Any, tasks: Any = None, sample_weight: Any = None, *, columns: Any = None
    ) -> float:
        """Return the accuracy over all rows.

        Parameters
        ----------
        X, tasks, columns
            As for :meth:`predict_proba`.
        y, sample_weight
            (rows,), true classes, and weights of the rows.
        """
        predicted = self.predict(X, tasks, columns=columns)
        y = _as_plain_array(read_targets(y, len(predicted)))
        return float(accuracy_score(y, predicted, sample_weight=sample_weight))

    def _kind(self) -> str:
        return "classification"

    def _class_labels(self) -> tuple[Any, ...]:
        return tuple(self.classes_.tolist())

    def _learn_targets(self, rows: Rows) -> Tensor:
        y = _as_plain_array(rows.y)
        check_classification_targets(y)
        try:
            self.classes_, index = np.unique(y, return_inverse=True)
        except TypeError as error:
            kinds = sorted({type(value).__name__ for value in y})
            raise ValueError(
                f"y has labels of several types ({', '.join(kinds)}), which cannot be sorted. "
                "Convert them to strings, for example."
            ) from error
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has one class, {self.classes_[0]!r}, in all rows, expected at least 2 classes."
            )
        return torch.from_numpy(index)

    def _encode_targets(self, rows: Rows) -> Tensor:
        y = _as_plain_array(rows.y)
        index = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        wrong = np.flatnonzero(self.classes_[index] != y)
        if len(wrong):
            raise ValueError(
                f"y has class {y[wrong].tolist()[0]!r} in row {rows.index[wrong[0]]}, expected one "
                f"of the classes of the fit, {self.classes_.tolist()}. To learn others, fit again."
            )
        return torch.from_numpy(index)


def _as_plain_array(y: np.ndarray) -> np.ndarray:
    """Convert an array of objects of one type, such as after dropping None, to that type."""
    plain = y.dtype == object and len({type(value) for value in y}) == 1
    return np.array(y.tolist()) if plain and not isinstance(y[0], str) else y
