"""Draws from a fitted estimator and influence, with the user's labels, rows and units."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.estimators.exceptions import DataWarning
from pyro_vmtl.estimators.rows import Rows, read_known_rows

if TYPE_CHECKING:
    import xarray as xr


__all__ = ["estimator_influence", "export_estimator"]

LOCATIONS = ("mean", "lower", "upper", "y")
SCALES = ("std", "epistemic_std", "aleatoric_std")

TARGET_GROUPS = ("posterior_predictive", "prior_predictive", "observed_data", "predictions")
"""Groups with targets, in their unit."""

STANDARDIZED_GROUPS = ("posterior", "prior", "sample_stats", "constant_data", "history")


def export_estimator(
    estimator: Any, training: Sequence[Any], rows: Any, *, num_samples: int
) -> xr.DataTree:
    """Implement ``to_datatree`` of the estimators."""
    from pyro_vmtl.analysis import to_datatree

    known, data = _read_training(estimator, training)
    new = None if rows is None else read_known_rows(estimator, rows, "rows")
    names = getattr(estimator, "feature_names_in_", None)
    tree = to_datatree(
        estimator.fitted_,
        data,
        rows=None if new is None else estimator._to_task_data(new),
        num_samples=num_samples,
        seed=estimator.random_state,
        coords=None if names is None else {"feature": [*names, "intercept"]},
    )
    scale = getattr(estimator, "target_scale_", 1.0)
    mean = getattr(estimator, "target_mean_", 0.0)
    units = "standardized" if estimator.scale_features else "centred"
    order = [*estimator._task_order(), len(estimator._sizes)]
    for node in list(tree.subtree):
        if node.path != "/" and node.dataset.data_vars:
            of = known if new is None or node.name != "predictions" else new
            dataset = _sort_tasks(_rescale(node, scale, mean, units), order)
            if "row" in dataset.sizes:
                dataset = dataset.assign_coords(row=of.index)
                if "y" in dataset and dataset["y"].dims == ("row",):  # free of rounding
                    dataset["y"] = dataset["y"].copy(data=_exact_targets(estimator, of))
            node.dataset = dataset
    tree.attrs |= {"unit": scale, "centre": mean}
    return tree


def estimator_influence(
    estimator: Any, training: Sequence[Any], rows: Any, **settings: Any
) -> xr.Dataset:
    """Implement ``influence`` of the estimators."""
    from pyro_vmtl.attribution.influence import influence

    known, data = _read_training(estimator, training)
    new = None if rows is None else read_known_rows(estimator, rows, "rows")
    predicted = data if new is None else estimator._to_task_data(new)
    settings = {"seed": estimator.random_state, **settings}
    found = influence(estimator.fitted_, data, rows=predicted, **settings)
    return found.assign_coords(row=known.index[found["row"].values]) if "row" in found else found


def _read_training(estimator: Any, training: Sequence[Any]) -> tuple[Rows, TaskData]:
    """Read the rows of a fit, and warn if their numbers differ from those that it had."""
    check_is_fitted(estimator)
    known = read_known_rows(estimator, training, "X")
    data: TaskData = estimator._to_task_data(known)
    given = data.mask.sum(1).tolist()
    for (task, size), num_rows in zip(estimator._sizes.items(), given, strict=True):
        if num_rows != size:
            warnings.warn(
                f"Task {task!r} has {num_rows} rows here and had {size} in the fit: the posterior "
                "is that of the fit, but log densities, and so Pareto k and leave-one-out, are of "
                "the rows given here. Pass the rows of the fit.",
                DataWarning,
                stacklevel=4,
            )
            break
    return known, data


def _exact_targets(estimator: Any, rows: Rows) -> np.ndarray:
    if hasattr(estimator, "classes_"):
        return estimator._encode_targets(rows).numpy()
    return np.asarray(rows.y, dtype=np.float64)


def _rescale(node: xr.DataTree, scale: float, mean: float, units: str) -> xr.Dataset:
    """Convert targets and their densities to the user's unit, and name the units of the model's."""
    dataset = node.to_dataset()
    if node.name in TARGET_GROUPS and (scale, mean) != (1.0, 0.0):
        for name in dataset.data_vars:
            if name in (*LOCATIONS, *SCALES):
                shift = mean if name in LOCATIONS else 0.0
                dataset[name] = (dataset[name] * scale + shift).assign_attrs(dataset[name].attrs)
    if node.name == "log_likelihood":
        dataset["y"] = dataset["y"] - np.log(scale)
    if node.name in STANDARDIZED_GROUPS:
        dataset.attrs["units"] = units
    return dataset


def _sort_tasks(dataset: xr.Dataset, order: list[int]) -> xr.Dataset:
    """Put tasks and sources into the order of ``tasks_``."""
    if dataset.sizes.get("task") == len(order) - 1:
        dataset = dataset.isel(task=order[:-1])
    return dataset.isel(source=order) if "source" in dataset.sizes else dataset
