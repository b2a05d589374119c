"""The methods that benchmarks compare: presets, ablations, and models of other libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

from benchmarks.baselines import (
    boosted_trees_classification,
    boosted_trees_regression,
    ridge_per_task,
    ridge_pooled,
)
from benchmarks.boosted_mixed_model import (
    boosted_mixed_model,
    boosted_mixed_model_classes,
    boosted_mixed_model_counts,
)
from benchmarks.datasets.data_set import DataSet
from benchmarks.gaussian_process import gaussian_process
from benchmarks.lightgbm_task import lightgbm_classes, lightgbm_counts, lightgbm_regression
from benchmarks.mixed_model import (
    linear_mixed_model,
    linear_mixed_model_classes,
    linear_mixed_model_counts,
)
from benchmarks.nuts import nuts_classes, nuts_counts, nuts_regression
from pyro_vmtl.analysis.baselines import logistic_regression_per_task, logistic_regression_pooled
from pyro_vmtl.methods.by_features import ByFeatures
from pyro_vmtl.methods.method import Method
from pyro_vmtl.methods.preset import Preset
from pyro_vmtl.methods.presets import presets

__all__ = ["BASELINES", "ON_REQUEST", "ablations", "all_presets", "methods_for"]

BASELINES: dict[str, dict[str, Callable[..., Any]]] = {
    "classification": {
        "per-task": logistic_regression_per_task,
        "pooled": lambda X, y, tasks, X_new, tasks_new, classes: logistic_regression_pooled(
            X, y, X_new, classes
        ),
        "boosted-trees": boosted_trees_classification,
        "linear-mixed-model": linear_mixed_model_classes,
        "linear-mixed-model-selected": partial(linear_mixed_model_classes, selected=True),
        "boosted-mixed-model": boosted_mixed_model_classes,
        "lightgbm-task": lightgbm_classes,
        "nuts": nuts_classes,
    },
    "regression": {
        "per-task": ridge_per_task,
        "pooled": lambda X, y, tasks, X_new, tasks_new: ridge_pooled(X, y, X_new),
        "boosted-trees": boosted_trees_regression,
        "gpytorch": gaussian_process,
        "linear-mixed-model": linear_mixed_model,
        "linear-mixed-model-selected": partial(linear_mixed_model, selected=True),
        "boosted-mixed-model": boosted_mixed_model,
        "lightgbm-task": lightgbm_regression,
        "nuts": nuts_regression,
    },
    "counts": {
        "linear-mixed-model": linear_mixed_model_counts,
        "linear-mixed-model-selected": partial(linear_mixed_model_counts, selected=True),
        "boosted-mixed-model": boosted_mixed_model_counts,
        "lightgbm-task": lightgbm_counts,
        "nuts": nuts_counts,
    },
}
"""Models of other libraries, which are no presets, for each kind of targets.

Each predicts class probabilities (rows, C); mean and standard deviation of real targets, each
(rows,); or rate and dispersion of draws of counts, each (S, rows).
"""


ON_REQUEST = (
    *("linear-mixed-model", "linear-mixed-model-selected", "boosted-mixed-model"),
    *("lightgbm-task", "nuts"),
)
"""Baselines for few features, with many of which they take hours: run only where asked for."""


def ablations(kind: Literal["classification", "regression", "counts"]) -> dict[str, Preset]:
    """Return variants of ``vmtl`` that differ in one respect; counts have none.

    They vary which sites are shared, the weights of the sources, and the number of draws.
    """
    if kind == "counts":
        return {}
    vmtl = presets(kind)["vmtl"]
    assert isinstance(vmtl, Preset)
    five = {"num_particles": 5}
    one_of_weights = {"w_sources": 1, "z_sources": 1}
    return {
        "vmtl-w-only": replace(vmtl, shared=("w",)),
        "vmtl-z-only": replace(vmtl, shared=("z",)),
        "vmtl-even": replace(vmtl, sharing={**vmtl.sharing, "weights": "even"}),
        "vmtl-softmax": replace(vmtl, sharing={**vmtl.sharing, "weights": "softmax"}),
        "vmtl-temperature-0.1": replace(vmtl, sharing={**vmtl.sharing, "temperature": 0.1}),
        "vmtl-temperature-1": replace(vmtl, sharing={**vmtl.sharing, "temperature": 1.0}),
        "vmtl-5-draws-of-w": replace(vmtl, num_draws={"z": 1, **one_of_weights}, **five),
        "vmtl-5-draws-of-z": replace(vmtl, num_draws={"w": 1, **one_of_weights}, **five),
    }


def all_presets(kind: Literal["classification", "regression", "counts"]) -> dict[str, Method]:
    """Return all presets and ablations by name.

    Of presets without ``share``, tables have that for many features, and ridge regressions.
    """
    known = presets(kind)
    hierarchical = cast(ByFeatures[Preset], known["hierarchical"]).many_features
    kept = {name: known[name] for name in known if name not in ("alone", "pooled")}
    return {**kept, "hierarchical": hierarchical, **ablations(kind)}


def methods_for(data_set: DataSet) -> list[str]:
    """Return the names of all methods that apply to a data set."""
    return [*all_presets(data_set.kind), *BASELINES[data_set.kind]]
