"""Estimators of several outputs of the same rows, which feed one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
import xarray as xr
from sklearn.base import BaseEstimator, MultiOutputMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from pyro_vmtl.data.output_data import OutputData
from pyro_vmtl.estimators.feedback_fit import GATES, columns_of, fit_outputs
from pyro_vmtl.estimators.feedback_saving import load, save
from pyro_vmtl.estimators.output_moments import all_proba, std_of_outputs, take_mean, take_moments
from pyro_vmtl.outputs.couplings import Gates

__all__ = ["FeedbackEstimator"]


class FeedbackEstimator(MultiOutputMixin, BaseEstimator):
    """Predict several outputs of each row, classes and real values, which feed one another.

    Features and real outputs are standardized. Where an output of some rows is known when others
    are predicted, ``known=`` takes it into account.

    Parameters
    ----------
    num_iterations
        K, how often the outputs are fed to one another; 0 predicts each by itself.
    gates
        ``"hard"``, ``"soft"`` or ``"on"``, as in :func:`~pyro_vmtl.feedback`.
    hidden_size
        Width of a hidden layer; None for outputs that are linear in the features.
    num_steps
        Maximum number of steps of the fit.
    num_samples
        S, number of posterior draws for predictions.
    random_state
        Seed of the fit and of predictions.
    progress
        Whether to show a progress bar.

    Attributes
    ----------
    outputs_
        Names of the T outputs: columns of a data frame, or ``y0``, ``y1``, ...
    classes_
        Classes of each output that has any: one array for one output, else a list.
    gates_
        Labelled probabilities (from, to, gate) that an output feeds another: not at all, its logits
        or mean, or its hidden layer.
    spectral_radius_
        Bound on the factor by which the outputs come closer to their fixed point per iteration.
    history_, n_features_in_, feature_names_in_
        Loss of the fit; number of features, and their names if those of ``fit`` have any.

    See Also
    --------
    pyro_vmtl.feedback : The same for Pyro programs of your own.

    Examples
    --------
    >>> import pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(80, 2))
    >>> y = pd.DataFrame({"rain": X[:, 0] > 0, "sales": X[:, 1] + rng.normal(size=80)})
    >>> both = FeedbackEstimator(num_steps=100).fit(X, y)
    >>> both.predict([[2.0, 0.0]]).columns.tolist()
    ['rain', 'sales']
    """

    _kind: str | None = None

    def __init__(
        self,
        *,
        num_iterations: int = 3,
        gates: Gates = "hard",
        hidden_size: int | None = None,
        num_steps: int = 2000,
        num_samples: int = 100,
        random_state: int = 0,
        progress: bool = False,
    ) -> None:
        self.num_iterations = num_iterations
        self.gates = gates
        self.hidden_size = hidden_size
        self.num_steps = num_steps
        self.num_samples = num_samples
        self.random_state = random_state
        self.progress = progress

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "fitted_")

    def fit(self, X: Any, y: Any) -> Self:
        """Fit all outputs together.

        Parameters
        ----------
        X
            (rows, F), features.
        y
            (rows, T), a column for each output, None or NaN where a value is missing.

        Raises
        ------
        ValueError
            If a value cannot be used. The message names the output and the row.
        """
        for name, least in (("num_samples", 1), ("num_steps", 1), ("random_state", 0)):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} is {value!r}, expected an integer of at least {least}.")
        self.__dict__.pop("fitted_", None)
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        columns, self._single = columns_of(y, len(X))
        self.outputs_ = np.array([*columns], dtype=object)
        kinds = dict.fromkeys(columns, self._kind) if self._kind else None
        if self._kind == "classes":
            for values in columns.values():
                numbers = np.asarray(values)
                if numbers.dtype.kind == "f":  # with NaN where a class is missing
                    check_classification_targets(numbers[~np.isnan(numbers)])
        data = OutputData.from_columns(torch.from_numpy(X).float(), columns, kinds=kinds)  # type: ignore[arg-type]
        self.fitted_ = fit_outputs(
            data,
            self.hidden_size,
            num_iterations=self.num_iterations,
            gates=self.gates,
            num_steps=self.num_steps,
            seed=self.random_state,
            progress=self.progress,
        )
        self._set_classes()
        return self

    def _set_classes(self) -> None:
        labels = [np.array(c) for c in self.fitted_.data.classes.values() if c is not None]
        if labels:
            self.classes_ = labels[0] if self._single else labels

    @property
    def gates_(self) -> xr.DataArray:
        """Probabilities that outputs feed one another."""
        names = self.outputs_.tolist()
        gates = self.fitted_.gates()
        choices = list(GATES[: gates.shape[-1]])
        coords = {"from": names, "to": names, "gate": choices}
        return xr.DataArray(gates.numpy(), coords, ("from", "to", "gate"), name="gates")

    @property
    def spectral_radius_(self) -> float:
        """Largest of the bounds of S draws."""
        return self.fitted_.radius(self.num_samples, self.random_state)

    @property
    def history_(self) -> Any:
        """Loss of the fit."""
        return self.fitted_.history

    def _draws(
        self, X: Any, known: Any, take: Callable[[Any], Tensor]
    ) -> tuple[dict[str, Tensor], OutputData]:
        """Average ``take`` of each output's distribution over the posterior."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        columns = {} if known is None else self._known_columns(known, len(X))
        rows = self.fitted_.data.new_rows(torch.from_numpy(X).float(), columns)
        means = self.fitted_.average(rows, take, self.num_samples, self.random_state)
        return means, rows

    def _known_columns(self, known: Any, num_rows: int) -> dict[str, Any]:
        if isinstance(known, Mapping) or hasattr(known, "columns"):
            return columns_of(known, num_rows)[0]
        columns, _ = columns_of(known, num_rows)
        if len(columns) != len(self.outputs_):
            raise ValueError(
                f"known has {len(columns)} columns, expected {len(self.outputs_)} as y, with NaN "
                "or None where nothing is known, or a mapping of the names of some outputs."
            )
        return dict(zip(self.outputs_, columns.values(), strict=True))

    def predict(self, X: Any, known: Any = None, *, return_std: bool = False) -> Any:
        """Return the most probable class or the mean of each output.

        Parameters
        ----------
        X
            (rows, F), features.
        known
            Outputs that are known: (rows, T) as ``y``, with NaN or None where nothing is known, or
            columns by name. They inform the others, and are returned as they are.
        return_std
            Whether to return standard deviations, too: NaN for classes, 0 for what is known.

        Returns
        -------
        DataFrame or ndarray, or a pair of them
            (rows, T): a data frame of outputs of different kinds, else an array; (rows,) if y was.
        """
        means, rows = self._draws(X, known, take_moments if return_std else take_mean)
        found = {}
        for name, labels in rows.classes.items():
            mean = self.fitted_.in_units(name, means[name].double()).numpy()
            of_output = (
                mean[:, 0] if labels is None else np.array(labels)[all_proba(mean).argmax(1)]
            )
            if (clamp := rows.known[name].numpy()).any():
                assert rows.y is not None
                y = rows.y[name].numpy()
                given = y if labels is None else np.array(labels)[y]
                of_output = np.where(clamp, given, of_output)
            found[name] = of_output
        kinds = {column.dtype.kind for column in found.values()}
        arrange = pd.DataFrame if self._kind is None and len(kinds) > 1 else self._as_array
        if not return_std:
            return arrange(found)
        spread = std_of_outputs(means, rows, self.fitted_.units)
        return arrange(found), arrange(spread)

    def _as_array(self, found: dict[str, np.ndarray]) -> np.ndarray:
        table = np.column_stack([*found.values()])
        return table[:, 0] if self._single else table

    @available_if(lambda self: self._kind != "real")
    def predict_proba(self, X: Any, known: Any = None) -> Any:
        """Return class probabilities, averaged over the posterior.

        Parameters
        ----------
        X, known
            As for :meth:`predict`.

        Returns
        -------
        list of ndarray or ndarray
            (rows, C) for each output with classes; one array if ``y`` of the fit was one column.
        """
        means, rows = self._draws(X, known, take_mean)
        found = []
        for name, labels in rows.classes.items():
            if labels is None:
                continue
            proba = all_proba(means[name].numpy())
            if (clamp := rows.known[name].numpy()).any():
                assert rows.y is not None
                proba[clamp] = np.eye(len(labels))[rows.y[name].numpy()[clamp]]
            found.append(proba)
        return found[0] if self._single else found

    def iterations(self, X: Any, *, num_iterations: int = 6) -> xr.DataArray:
        """Compute the outputs of rows from one iteration to the next.

        Parameters
        ----------
        X
            (rows, F), features.
        num_iterations
            Number of iterations to follow.

        Returns
        -------
        DataArray
            (row, iteration, output), averaged over the posterior: probabilities of each class, of
            two classes that of the second, and means of real outputs, standardized.
        """
        check_is_fitted(self)
        state = self.fitted_.feedback
        if state is None or state.couplings is None:
            raise ValueError("There is no feedback: one output, or num_iterations=0. Fit others.")
        before, found = state.num_iterations, []
        try:
            for k in range(num_iterations + 1):
                state.num_iterations = k
                means, rows = self._draws(X, None, take_mean)
                found.append(torch.cat([*means.values()], 1).numpy())
        finally:
            state.num_iterations = before
        names = []
        for name, labels in rows.classes.items():
            if labels is None or len(labels) == 2:
                names.append(name)
            else:
                names += [f"{name}={label}" for label in labels]
        coords = {"iteration": np.arange(num_iterations + 1), "output": names}
        dims = ("row", "iteration", "output")
        return xr.DataArray(np.stack(found, 1), coords, dims, name="iterations")

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the fit to a directory: settings as JSON, numbers as safetensors, no pickle.

        Parameters
        ----------
        path
            Directory to create.
        overwrite
            Whether to replace an earlier one.
        """
        check_is_fitted(self)
        save(self, Path(path), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote."""
        return load(cls, Path(path))
