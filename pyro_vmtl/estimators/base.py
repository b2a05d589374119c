"""Base class of the estimators: fit, add a task, predict, save and load."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _num_samples, check_is_fitted
from torch import Tensor

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.estimators.device import check_device
from pyro_vmtl.estimators.inspection import InspectionMixin
from pyro_vmtl.estimators.rows import (
    Rows,
    canonical_order,
    read_known_rows,
    read_rows,
    to_task_data,
)
from pyro_vmtl.estimators.saving import load, save
from pyro_vmtl.estimators.scaling import Scaling
from pyro_vmtl.methods.add_task import add_task
from pyro_vmtl.methods.method import Method
from pyro_vmtl.methods.presets import presets
from pyro_vmtl.methods.stack import Stack

__all__ = ["VMTLEstimator"]


class VMTLEstimator(InspectionMixin, BaseEstimator):
    """Base class of :class:`~pyro_vmtl.VMTLClassifier` and :class:`~pyro_vmtl.VMTLRegressor`."""

    # metadata that scikit-learn's tools pass on without a request
    __metadata_request__fit: ClassVar = {"tasks": True, "sample_weight": True, "columns": True}
    __metadata_request__predict: ClassVar = {"tasks": True, "columns": True}
    __metadata_request__score: ClassVar = {"tasks": True, "sample_weight": True, "columns": True}

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

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "fitted_")

    def _kind(self) -> str:
        """Return the kind of the presets."""
        raise NotImplementedError

    def _learn_targets(self, rows: Rows) -> Tensor:
        """Learn classes or units from the targets of a fit, and encode them."""
        raise NotImplementedError

    def _encode_targets(self, rows: Rows) -> Tensor:
        """Encode targets of other rows."""
        raise NotImplementedError

    def fit(
        self,
        X: Any,
        y: Any,
        tasks: Any = None,
        *,
        sample_weight: Any = None,
        columns: Any = None,
        validation_data: Sequence[Any] | None = None,
        checkpoints: str | Path | None = None,
    ) -> Self:
        """Fit all tasks together.

        Parameters
        ----------
        X
            (rows, F), features: an array, data frame, torch tensor or sparse matrix.
        y
            (rows,), classes, real targets or counts. Rows with None or NaN are not used, with a
            warning.
        tasks
            (rows,), hashable label of each row's task; a single task by default.
        sample_weight
            (rows,), weights of the rows; all equal by default.
        columns
            What programs of your own read as ``data.columns[name]``, such as an exposure: a mapping
            of names to arrays (rows, ...), or a data frame, which scikit-learn's cross-validation
            can split. They are not standardized, and presets ignore them.
        validation_data
            Held-out rows, ``(X, y, tasks)`` or ``(X, y, tasks, sample_weight, columns)``, to
            calibrate and weigh the members of a stack. The default is cross-validation with five
            folds, which takes six times as long.
        checkpoints
            Directory to save the state of the fit to and to resume from.

        Raises
        ------
        ValueError
            If rows cannot be used. The message names the task, column and row.
        """
        self._check_settings()
        method = self._resolve_method()
        self.__dict__.pop("fitted_", None)  # if this fit fails, there is none
        is_stack = isinstance(getattr(method, "few_features", method), Stack)
        if validation_data is not None and not is_stack:
            raise ValueError(
                f"validation_data is for weighing the members of a stack, but method is "
                f"{self.method!r}. Leave it out, or use method='default'."
            )
        rows = read_rows(self, X, y, tasks, sample_weight, columns, reset=True, limit=True)
        targets = self._learn_targets(rows)
        self._scaling = Scaling.learn(rows.X, rows.weight, unit_variance=self.scale_features)
        x, labels, weight, further = self._scaling(rows.X), rows.tasks, rows.weight, rows.columns
        self._columns = {name: values[:1].clone() for name, values in further.items()}
        del X, rows
        order, self._sizes = canonical_order(x, targets, labels, weight)
        x, targets, labels = x[order], targets[order], [labels[row] for row in order.tolist()]
        weight = None if weight is None else weight[order]
        further = {name: values[order] for name, values in further.items()}
        data = to_task_data(
            x, targets, labels, [*self._sizes], self._class_labels(), weight, further
        ).to(self.device)
        del x, targets
        self._relatedness = None
        settings: dict[str, Any] = {
            "checkpoints": None if checkpoints is None else Path(checkpoints)
        }
        if validation_data is not None:
            held_out = read_known_rows(self, validation_data, "validation_data")
            settings["validation"] = self._to_task_data(held_out)
        self.fitted_ = method.fit(data, seed=self.random_state, progress=self.progress, **settings)
        return self

    def _check_settings(self) -> None:
        for name, least in (("num_samples", 1), ("random_state", 0)):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} is {value!r}, expected an integer of at least {least}.")
        check_device(self.device)

    def _resolve_method(self) -> Any:
        if not isinstance(self.method, str) and callable(getattr(self.method, "fit", None)):
            return self.method
        known = presets(self._kind())  # type: ignore[arg-type]
        if self.method not in known:
            raise ValueError(
                f"method is {self.method!r}, expected one of {', '.join(known)}, or a method such "
                "as a Preset, a Stack, or Programs of your own."
            )
        return known[self.method]

    def _to_task_data(self, rows: Rows, new_task: Sequence[Hashable] = ()) -> TaskData:
        """Encode rows like those of the fit, of its tasks unless they are of a new one."""
        x, targets = self._scaling(rows.X), self._encode_targets(rows)
        tasks, classes = new_task or [*self._sizes], self._class_labels()
        more = rows.weight, rows.columns
        return to_task_data(x, targets, rows.tasks, tasks, classes, *more).to(self.device)

    def add_task(self, X: Any, y: Any, *, task: Hashable, columns: Any = None) -> Self:
        """Learn a new task from its rows; the others are not fitted again, and predict as before.

        Parameters
        ----------
        X
            (rows, F), features.
        y
            (rows,), targets; of a classifier, among the classes of the fit.
        task
            Label of the task.
        columns
            As for :meth:`fit`.

        Raises
        ------
        ValueError
            If the fit has the task already, or rows cannot be used.

        See Also
        --------
        pyro_vmtl.add_task : The same for a fit of one's own programs.
        """
        check_is_fitted(self)
        rows = read_rows(self, X, y, [task] * _num_samples(X), columns=columns)
        task = rows.tasks[0]
        if task in self._sizes:
            raise ValueError(
                f"task {task!r} is among the tasks of the fit. To learn from more rows of it, fit "
                "again."
            )
        data = self._to_task_data(rows, [task])
        self.fitted_ = add_task(self.fitted_, data, seed=self.random_state)
        self._sizes = {**self._sizes, task: len(rows.tasks)}
        self._relatedness = None
        return self

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the fit to a directory, as JSON and safetensors.

        Parameters
        ----------
        path
            Directory to create.
        overwrite
            Whether to replace an earlier fit, which stays until the new one is complete.

        Raises
        ------
        OSError, ValueError
            If the path exists and may not be overwritten, or cannot be written to; if labels of
            tasks or classes have no counterpart in JSON, such as dates.
        """
        check_is_fitted(self)
        save(self, Path(path), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path, *, device: str = "cpu", method: Method | None = None) -> Self:
        """Read a fit from a directory, without executing anything in it.

        Parameters
        ----------
        path
            Directory written by :meth:`save`, or a run directory of ``pyro-vmtl fit TABLE``.
        device
            Device to predict on.
        method
            The method of the fit, needed if it is not made of this package's settings only, for
            instance if it runs your own model and guide.

        Raises
        ------
        OSError, ValueError
            If there is no such directory; if its content is broken or was changed, belongs to
            another estimator, or needs a ``method``.
        """
        return load(cls, Path(path), device=device, method=method)
