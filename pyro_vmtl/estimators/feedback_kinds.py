"""Estimators of several outputs of one kind: classes, or real values."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score

from pyro_vmtl.estimators.feedback import FeedbackEstimator

__all__ = ["FeedbackClassifier", "FeedbackRegressor"]


class FeedbackClassifier(ClassifierMixin, FeedbackEstimator):
    """Predict several labels of each row, which feed one another.

    Parameters and attributes are those of :class:`~pyro_vmtl.FeedbackEstimator`. All outputs are
    classes: ``predict`` returns an array (rows, T), ``predict_proba`` a list of T arrays.

    See Also
    --------
    sklearn.multioutput.ClassifierChain : Feeds labels to later ones only, in a fixed order.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(80, 2))
    >>> y = np.column_stack([X[:, 0] > 0, X.sum(axis=1) > 0])
    >>> clf = FeedbackClassifier(num_steps=100).fit(X, y)
    >>> clf.predict([[2.0, 1.0]]).tolist()
    [[True, True]]
    >>> clf.gates_.dims
    ('from', 'to', 'gate')
    """

    _kind = "classes"

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of rows in which all outputs are right."""
        predicted = np.asarray(self.predict(X)).reshape(len(X), -1)
        right = (predicted == np.asarray(y).reshape(len(X), -1)).all(1)
        return float(np.average(right, weights=sample_weight))


class FeedbackRegressor(RegressorMixin, FeedbackEstimator):
    """Predict several real outputs of each row, which feed one another.

    Parameters and attributes are those of :class:`~pyro_vmtl.FeedbackEstimator`. All outputs are
    real values. With ``hidden_size=None`` the means are linear in the features with and without
    feedback, which is then a kind of regularization only.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(80, 2))
    >>> reg = FeedbackRegressor(num_steps=200).fit(X, X @ [[1.0, 0.5], [0.0, 2.0]])
    >>> mean, std = reg.predict([[1.0, 1.0]], return_std=True)
    >>> mean.shape, bool((std > 0).all())
    ((1, 2), True)
    """

    _kind = "real"

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the R² of the outputs, averaged."""
        return float(r2_score(y, self.predict(X), sample_weight=sample_weight))
