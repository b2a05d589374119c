"""What both estimators have in common: from the user's rows to a fit, and back."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.distributions import Distribution

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.estimators.inspection import InspectionMixin
from pyro_vmtl.estimators.notices import DataNotice
from pyro_vmtl.estimators.reading import (
    check_finite,
    known_targets,
    read_features,
    read_row_weights,
    read_targets,
    read_tasks,
)
from pyro_vmtl.estimators.rows import canonical_order, capped, laid_out, windows
from pyro_vmtl.estimators.scaling import Scaling
from pyro_vmtl.methods.add_task import add_task
from pyro_vmtl.methods.preset import Preset
from pyro_vmtl.methods.presets import Method, presets
from pyro_vmtl.methods.stack import Stack

__all__ = ["VMTLEstimator"]


class VMTLEstimator(InspectionMixin, BaseEstimator):
    """Base of :class:`~pyro_vmtl.VMTLClassifier` and :class:`~pyro_vmtl.VMTLRegressor`."""

    # metadata that scikit-learn's tools pass on without being asked to
    __metadata_request__fit: ClassVar = {"tasks": True, "sample_weight": True}
    __metadata_request__predict: ClassVar = {"tasks": True}
    __metadata_request__score: ClassVar = {"tasks": True, "sample_weight": True}

    method: str | Method
    scale_features: bool
    num_samples: int
    random_state: int
    device: str
    progress: bool

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_fitted")

    # What the two differ in

    def _kind(self) -> str:
        """Kind of the presets."""
        raise NotImplementedError

    def _learn_targets(self, y: Any, weight: np.ndarray | None, rows: np.ndarray) -> Tensor:
        """Check targets, remember what they look like, and make numbers for a fit of them.

        ``rows`` says which of the user's rows they are of.
        """
        raise NotImplementedError

    def _targets(self, y: Any, rows: np.ndarray) -> Tensor:
        """Make numbers for a fit of targets of other rows."""
        raise NotImplementedError

    def _num_classes(self) -> int | None:
        """Number of classes; None for real targets."""
        raise NotImplementedError

    # Fitting

    def _fit(
        self,
        X: Any,
        y: Any,
        tasks: Any,
        sample_weight: Any,
        validation_data: tuple[Any, ...] | None,
        checkpoints: str | Path | None,
    ) -> Self:
        self._check_settings()
        method = self._method()
        self.__dict__.pop("_fitted", None)  # where this fit fails, there is none
        X = read_features(self, X, first=True)
        labels = read_tasks(tasks, X.shape[0])
        weight = read_row_weights(sample_weight, X)
        names = getattr(self, "feature_names_in_", None)
        y = read_targets(y, X.shape[0])
        used = known_targets(y, labels)
        if weight is not None:
            used &= weight > 0
        rows = capped(labels, used, X.shape[1], seed=self.random_state)
        if len(rows) < X.shape[0]:
            X, y, labels = X[rows], y[rows], [labels[row] for row in rows]
            weight = None if weight is None else weight[rows]
        check_finite(X, labels, names, rows)
        targets = self._learn_targets(y, weight, rows)
        self._scaling = Scaling.learn(X, weight, unit_variance=self.scale_features)
        x = self._scaling(X)
        del X
        order, self._sizes = canonical_order(x, targets, labels, weight)
        x, targets, labels = x[order], targets[order], [labels[row] for row in order]
        weight = None if weight is None else weight[order]
        data = laid_out(x, targets, labels, tuple(self._sizes), self._num_classes(), weight)
        data = data.to(self.device)
        del x, targets
        self._table = None
        settings: dict[str, Any] = {
            "checkpoints": None if checkpoints is None else Path(checkpoints)
        }
        if validation_data is not None:
            if not isinstance(method, Stack):
                raise ValueError(
                    f"validation_data is for weighing the members of a stack, and method is "
                    f"{self.method!r}. Leave it out, or use method='default'."
                )
            settings["validation"] = self._validation(validation_data)
        self._fitted = method.fit(data, seed=self.random_state, progress=self.progress, **settings)
        return self

    def _check_settings(self) -> None:
        if not isinstance(self.num_samples, int | np.integer) or self.num_samples < 1:
            raise ValueError(f"num_samples is {self.num_samples!r}, expected 1 or more.")
        if not isinstance(self.random_state, int | np.integer) or self.random_state < 0:
            raise ValueError(
                f"random_state is {self.random_state!r}, expected a whole number from 0 on: the "
                "same number gives the same fit."
            )
        self._check_device()

    def _check_device(self) -> None:
        try:
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"device is {self.device!r}, which cannot be used ({reason}). Use 'cpu'."
            ) from error

    def _method(self) -> Method:
        if isinstance(self.method, Preset | Stack):
            return self.method
        known = presets(self._kind())  # type: ignore[arg-type]
        if self.method not in known:
            raise ValueError(
                f"method is {self.method!r}, expected one of {', '.join(known)}, or a Preset or "
                "Stack."
            )
        return known[self.method]

    def _validation(self, validation_data: tuple[Any, ...]) -> TaskData:
        """Read rows to validate on: (X, y) or (X, y, tasks)."""
        if not isinstance(validation_data, tuple | list) or len(validation_data) not in (2, 3):
            raise ValueError("validation_data is expected as (X, y, tasks).")
        X, y, tasks = (*validation_data, None)[:3]
        X, labels = self._read(X, tasks)
        y = read_targets(y, X.shape[0])
        rows = np.flatnonzero(known_targets(y, labels))
        X, y, labels = X[rows], y[rows], [labels[row] for row in rows]
        new = set(labels) - set(self._sizes)
        if new:
            raise ValueError(
                f"validation_data has rows of task {next(iter(new))!r}, which has no training "
                "rows. Leave them out."
            )
        targets = self._targets(y, rows)
        x, tasks = self._scaling(X), tuple(self._sizes)
        return laid_out(x, targets, labels, tasks, self._num_classes()).to(self.device)

    def _read(self, X: Any, tasks: Any) -> tuple[Any, list[Any]]:
        """Read features and tasks of rows after those of the fit."""
        X = read_features(self, X, first=False)
        labels = read_tasks(tasks, X.shape[0], known=list(self._sizes))
        check_finite(X, labels, getattr(self, "feature_names_in_", None))
        return X, labels

    def add_task(self, X: Any, y: Any, *, task: Hashable) -> Self:
        """Take in a new task by a few rows, without fitting the others again.

        Parameters
        ----------
        X
            (rows, F), features.
        y
            (rows,), targets; those of a classifier are among the classes of the fit.
        task
            Its label.

        Returns
        -------
        self
            With one task more. The others predict as before.

        Raises
        ------
        ValueError
            If the task is there already, or rows cannot be used.
        """
        check_is_fitted(self)
        X, labels = self._read(X, [task] * _length(X))
        if task in self._sizes:
            raise ValueError(
                f"task {task!r} is among the tasks of the fit. To learn from more rows of it, fit "
                "again."
            )
        y = read_targets(y, X.shape[0])
        used = np.flatnonzero(known_targets(y, labels))
        x, targets, labels = (
            self._scaling(X[used]),
            self._targets(y[used], used),
            labels[: len(used)],
        )
        rows = laid_out(x, targets, labels, (labels[0],), self._num_classes())
        self._fitted = add_task(self._fitted, rows.to(self.device), seed=self.random_state)
        self._sizes = {**self._sizes, labels[0]: len(targets)}
        self._table = None
        return self

    # Predicting

    def _predictive(self, X: Any, tasks: Any) -> Iterator[tuple[np.ndarray, Distribution, Tensor]]:
        """Give the predictive distribution of some rows after the other.

        Yields
        ------
        tuple
            Indices of rows, a distribution (B, N), and where these rows are in it, (B, N), in
            the same order.
        """
        check_is_fitted(self)
        X, labels = self._read(X, tasks)
        new = list(dict.fromkeys(label for label in labels if label not in self._sizes))
        if new:
            named = ", ".join(map(repr, new[:5])) + (" and more" if len(new) > 5 else "")
            warnings.warn(
                f"{named}: no such task in the fit, so rows are predicted as of a new task. "
                "`add_task` takes in a task by a few rows.",
                DataNotice,
                stacklevel=3,
            )
        cost = self.num_samples * max(self._num_classes() or 0, 2)
        for window in windows(labels, tuple(self._sizes), X.shape[1], cost):
            x = self._scaling(X[window.rows])
            rows = window.lay_out(x, self._num_classes()).to(self.device)
            settings = {"num_samples": self.num_samples, "seed": self.random_state}
            if window.tasks is None:
                predictive = self._fitted.new_task_predictive(rows, **settings)
            else:
                chosen = window.tasks.to(self.device)
                predictive = self._fitted.predictive(rows, tasks=chosen, **settings)
                rows = rows.map_rows(partial(torch.Tensor.index_select, dim=0, index=chosen))
            yield window.rows[rows.row[rows.mask].cpu().numpy()], predictive, rows.mask

    # Keeping it

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the fit to a folder, as JSON and safetensors.

        Parameters
        ----------
        path
            The folder to make.
        overwrite
            May an earlier one be there? It stays until the new one is complete.

        Raises
        ------
        OSError
            If there is something that may not be overwritten, or the folder cannot be written to.
        ValueError
            If labels of tasks or classes are of kinds that JSON does not have, such as dates.
        """
        from pyro_vmtl.estimators.saving import save

        check_is_fitted(self)
        save(self, Path(path), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path, *, device: str = "cpu") -> Self:
        """Read a fit from a folder. Nothing that is in there is executed.

        Parameters
        ----------
        path
            What :meth:`save` wrote, or a run directory of ``pyro-vmtl fit TABLE``.
        device
            Where to predict.

        Raises
        ------
        OSError
            If there is no such folder.
        ValueError
            If it is broken, was changed, or holds an estimator of another kind.
        """
        from pyro_vmtl.estimators.saving import load

        return load(cls, Path(path), device=device)


def _length(X: Any) -> int:
    return X.shape[0] if hasattr(X, "shape") else len(X)
