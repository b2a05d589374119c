"""A fitted estimator as a DataTree: rows given again, in the user's labels and units."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.estimators.notices import DataNotice
from pyro_vmtl.estimators.reading import known_targets, read_row_weights, read_targets
from pyro_vmtl.estimators.rows import capped, laid_out

if TYPE_CHECKING:
    import xarray as xr

    from pyro_vmtl.estimators.base import VMTLEstimator

__all__ = ["exported"]

PLACES = ("mean", "lower", "upper", "y")
"""What moves with the targets; of the others, these have their unit."""

WIDTHS = ("std", "epistemic_std", "aleatoric_std")

OF_TARGETS = ("posterior_predictive", "prior_predictive", "observed_data", "predictions")

IN_UNITS_OF_THE_FIT = ("posterior", "prior", "sample_stats", "constant_data", "history")


def exported(
    estimator: VMTLEstimator,
    X: Any,
    y: Any,
    tasks: Any,
    *,
    sample_weight: Any,
    rows: Sequence[Any] | None,
    num_samples: int,
) -> xr.DataTree:
    """Do what ``to_datatree`` of the estimators does."""
    from pyro_vmtl.analysis import to_datatree

    check_is_fitted(estimator)
    data, used, targets = _laid_out(estimator, X, y, tasks, sample_weight, "X")
    _tell_other_rows(estimator, data)
    new = None
    if rows is not None:
        if not isinstance(rows, tuple | list) or len(rows) not in (2, 3):
            raise ValueError("rows is expected as (X, y, tasks).")
        Xn, yn, tn = (*rows, None)[:3]
        new = _laid_out(estimator, Xn, yn, tn, None, "rows")
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        names = [f"x{i}" for i in range(estimator.n_features_in_)]
    tree = to_datatree(
        estimator._fitted,
        data,
        rows=None if new is None else new[0],
        num_samples=num_samples,
        seed=estimator.random_state,
        coords={"feature": [*names, "intercept"]},
    )
    unit, centre = getattr(estimator, "_unit", 1.0), getattr(estimator, "_centre", 0.0)
    place = [*estimator._places(), len(estimator._sizes)]
    for node in list(tree.subtree):
        if node.path != "/" and node.dataset.data_vars:
            of = (used, targets) if new is None or node.name != "predictions" else new[1:]
            node.dataset = _in_order(_in_unit(node, unit, centre), place, *of)
    tree.attrs["unit"] = unit
    tree.attrs["centre"] = centre
    return tree


def _tell_other_rows(estimator: VMTLEstimator, data: TaskData) -> None:
    """Tell where these are not as many rows as the fit had."""
    given = dict(zip(estimator._sizes, data.mask.sum(1).tolist(), strict=True))
    other = [task for task, size in estimator._sizes.items() if given[task] != size]
    if other:
        task = other[0]
        warnings.warn(
            f"Task {task!r} has {given[task]} rows here and had {estimator._sizes[task]} in the "
            "fit: the posterior is that of the fit, but log densities, and so Pareto k and "
            "leave-one-out, are of the rows given here. Give the rows of the fit.",
            DataNotice,
            stacklevel=4,
        )


def _laid_out(
    estimator: VMTLEstimator, X: Any, y: Any, tasks: Any, sample_weight: Any, name: str
) -> tuple[TaskData, np.ndarray, np.ndarray]:
    """Lay rows out as in the fit, and say which of the user's these are, with their targets."""
    X, labels = estimator._read(X, tasks)
    new = [label for label in dict.fromkeys(labels) if label not in estimator._sizes]
    if new:
        raise ValueError(
            f"{name} has rows of task {new[0]!r}, which is not in the fit, expected its tasks. "
            "Leave them out, or take the task in with `add_task`."
        )
    y = read_targets(y, X.shape[0])
    known = known_targets(y, labels)
    weight = read_row_weights(sample_weight, X)
    if weight is not None:
        known &= weight > 0
    used = capped(labels, known, X.shape[1], seed=estimator.random_state)
    X, y, labels = X[used], y[used], [labels[row] for row in used]
    targets = estimator._targets(y, used)
    of_rows = None if weight is None else weight[used]
    order = tuple(estimator._sizes)
    data = laid_out(
        *(estimator._scaling(X), targets, labels, order, estimator._num_classes(), of_rows)
    )
    if hasattr(estimator, "classes_"):
        data = replace(data, classes=tuple(estimator.classes_.tolist()))
        numbers = targets.numpy()
    else:
        numbers = np.asarray(y, dtype=np.float64)
    return data.to(estimator.device), used, numbers


def _in_unit(node: xr.DataTree, unit: float, centre: float) -> xr.Dataset:
    """Take what is of targets to their unit, and say of the rest that it is not."""
    made = node.to_dataset()
    if node.name in OF_TARGETS and (unit, centre) != (1.0, 0.0):
        for name in made.data_vars:
            if name in (*PLACES, *WIDTHS):
                attrs, values = made[name].attrs, made[name] * unit
                made[name] = values + centre if name in PLACES else values
                made[name].attrs = attrs
    if node.name == "log_likelihood":  # a density in the unit of the targets
        made["y"] = made["y"] - np.log(unit)
    if node.name in IN_UNITS_OF_THE_FIT:
        made.attrs["units"] = "standardised"
    return made


def _in_order(
    made: xr.Dataset, place: list[int], used: np.ndarray, targets: np.ndarray
) -> xr.Dataset:
    """Give tasks the order of ``tasks_``, and rows the places that they have in the user's."""
    if "task" in made.sizes and made.sizes["task"] == len(place) - 1:
        made = made.isel(task=place[:-1])
    if "source" in made.sizes:
        made = made.isel(source=place)
    if "row" in made.sizes:
        made = made.assign_coords(row=used)
        if "y" in made and made["y"].dims == ("row",):  # exactly as they were given
            made["y"] = made["y"].copy(data=targets)
    return made
