"""One method for data of few features, and another for those of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pyro_vmtl.data.limits import LimitError
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.method import LARGE

__all__ = ["FEW", "ByFeatures", "check_few_features", "has_few_features"]

FEW = 101
"""Features, with an intercept, above which covariances take too long."""

AnyMethod = TypeVar("AnyMethod")


def has_few_features(data: TaskData) -> bool:
    """Whether rows are few enough for fits without draws, and enough for KL weights of 1.

    There are at most 100 features, and at least five rows for each coefficient of a task. With
    fewer rows, normal posteriors without covariances have to be tempered.
    """
    num_coefficients = data.num_features * (1 if data.classes is None else data.num_classes)
    has_rows = 5 * num_coefficients <= int(data.rows_per_task.sum())
    return data.num_features <= FEW and has_rows and data.mask.numel() <= LARGE


def check_few_features(data: TaskData, needed_for: str) -> None:
    """Raise an error if there are more than 100 features and an intercept."""
    if data.num_features > FEW:
        raise LimitError(
            f"The rows have {data.num_features} features, expected at most {FEW} for {needed_for}. "
            "Reduce them, for example with sklearn.decomposition.PCA."
        )


@dataclass(frozen=True)
class ByFeatures(Generic[AnyMethod]):
    """A method for data of few features, and another for those of many.

    To change settings, choose one of the two first.

    Parameters
    ----------
    few_features
        Method for data of few features, as :func:`has_few_features` says.
    many_features
        Method for all other data.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from pyro_vmtl.methods.presets import presets
    >>> shared = presets("regression")["shared"]
    >>> changed = replace(shared.many_features, kl_weights=1.0)
    """

    few_features: AnyMethod
    many_features: AnyMethod

    def for_data(self, data: TaskData) -> Any:
        """Return the method for training rows."""
        return self.few_features if has_few_features(data) else self.many_features

    def needs_calibration(self, data: TaskData) -> bool:
        """Whether the method for training rows needs one."""
        needed: bool = self.for_data(data).needs_calibration(data)
        return needed

    def fit(self, data: TaskData, **settings: Any) -> Fitted:
        """Fit training rows by the method for them. See :meth:`Method.fit`."""
        fitted: Fitted = self.for_data(data).fit(data, **settings)
        return fitted

    def for_trial(self) -> ByFeatures[AnyMethod]:
        """Return the method itself, which takes its time."""
        return self

    def promises(self, data: TaskData) -> bool:
        """Whether the method for training rows promises to pay."""
        promises: bool = self.for_data(data).promises(data)
        return promises

    def starts_anew(self, data: TaskData) -> bool:
        """Whether the method for training rows fits several sets of them at once."""
        starts_anew: bool = self.for_data(data).starts_anew(data)
        return starts_anew

    def fit_each(self, parts: Sequence[TaskData], **settings: Any) -> list[Fitted]:
        """Fit several sets of rows of one table by the method for them."""
        fits: list[Fitted] = self.for_data(parts[0]).fit_each(parts, **settings)
        return fits
