"""Estimators of several outputs on disk: JSON and safetensors, nothing executable."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter
from typing_extensions import TypedDict

from pyro_vmtl.data.atomic_files import new_directory
from pyro_vmtl.data.checked_files import check_schema, file_in, read_json
from pyro_vmtl.data.limits import AllocationLimit
from pyro_vmtl.data.output_data import OutputData
from pyro_vmtl.data.tensor_files import read_tensors, write_tensors
from pyro_vmtl.estimators.feedback_fit import (
    MOST_AXES,
    FittedOutputs,
    make_parameters,
    make_programs,
)
from pyro_vmtl.estimators.saving import versions
from pyro_vmtl.inference.history import History, with_prefix

__all__ = ["CONFIG", "load", "save"]

CONFIG = "outputs.json"
WEIGHTS = "weights.safetensors"

Label = str | int | FiniteFloat | bool


class Output(TypedDict):
    """One output: its classes, or the mean and unit of its real values."""

    name: str
    classes: list[Label] | None
    centre: FiniteFloat
    unit: Annotated[FiniteFloat, Field(gt=0)]


class Config(TypedDict):
    """Content of :data:`CONFIG`."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    format: Literal[1]
    estimator: Literal["FeedbackEstimator", "FeedbackClassifier", "FeedbackRegressor"]
    versions: dict[str, str]
    settings: dict[str, int | str | None]
    outputs: Annotated[list[Output], Field(min_length=1)]
    single: bool
    num_features: Annotated[int, Field(gt=0)]
    features: list[str] | None


SCHEMA = TypeAdapter(Config)


def save(estimator: Any, path: Path, *, overwrite: bool) -> None:
    """Write a fitted estimator to a directory, atomically."""
    fitted: FittedOutputs = estimator.fitted_
    names = getattr(estimator, "feature_names_in_", None)
    outputs: list[dict[str, Any]] = []
    for name, labels in fitted.data.classes.items():
        for label in labels or ():
            if not isinstance(label, str | int | float | bool):
                raise ValueError(
                    f"Output {name!r} has class {label!r} ({type(label).__name__}), expected texts "
                    "or numbers: others cannot be saved. Convert them before the fit."
                )
        centre, unit = fitted.units.get(name, (0.0, 1.0))
        classes = None if labels is None else list(labels)
        outputs.append({"name": name, "classes": classes, "centre": centre, "unit": unit})
    config: dict[str, Any] = {
        "format": 1,
        "estimator": type(estimator).__name__,
        "versions": versions(),
        "settings": {
            name: int(v) if isinstance(v, np.integer) else v
            for name, v in estimator.get_params(deep=False).items()
            if name != "progress"  # is not of the fit
        },
        "outputs": outputs,
        "single": estimator._single,
        "num_features": estimator.n_features_in_,
        "features": None if names is None else names.tolist(),
    }
    tensors = {"features.mean": fitted.features[0], "features.axes": fitted.features[1]}
    for part in ("model", "guide"):
        state = getattr(fitted, part).state_dict()
        tensors |= {f"{part}.{name}": values for name, values in state.items()}
    if fitted.history is not None:
        tensors |= {f"history.{name}": v for name, v in fitted.history.to_tensors().items()}
    with new_directory(path, overwrite=overwrite, marker=CONFIG) as folder:
        write_tensors(folder / WEIGHTS, tensors)
        config["checksum"] = _checksum(config, folder / WEIGHTS)
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")


def load(kind: type[Any], path: Path) -> Any:
    """Read a fitted estimator from a directory."""
    weights, config = file_in(path, WEIGHTS, "RUN_BYTES"), read_json(file_in(path, CONFIG))
    checksum = config.pop("checksum", None) if isinstance(config, dict) else None
    check_schema(SCHEMA, config, path / CONFIG)
    if checksum != _checksum(config, weights):
        raise ValueError(
            f"{path} is not what was saved: {CONFIG} or {WEIGHTS} was changed or truncated. "
            "Restore an unchanged copy."
        )
    if config["estimator"] != kind.__name__:
        raise ValueError(
            f"{path} holds a {config['estimator']}, expected a {kind.__name__}. Use "
            f"{config['estimator']}.load."
        )
    tensors, _ = read_tensors(weights)
    try:
        estimator = kind(**config["settings"])
        with AllocationLimit(path / CONFIG):
            _restore(estimator, config, tensors)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is broken: {CONFIG} and {WEIGHTS} do not belong together ({error}). Fit again."
        ) from error
    return estimator


def _restore(estimator: Any, config: Any, tensors: dict[str, torch.Tensor]) -> None:
    classes = {o["name"]: o["classes"] and tuple(o["classes"]) for o in config["outputs"]}
    size = config["num_features"]
    like = OutputData(torch.zeros(1, size), None, {}, classes).new_rows(torch.zeros(1, size), {})
    settings = {"num_iterations": estimator.num_iterations, "gates": estimator.gates}
    model, guide = make_programs(like, estimator.hidden_size, **settings)
    units = {o["name"]: (o["centre"], o["unit"]) for o in config["outputs"] if not o["classes"]}
    center, axes = tensors["features.mean"], tensors["features.axes"]
    shapes, finite = (center.shape, axes.shape), center.sum().isfinite() & axes.sum().isfinite()
    of_axes = (size, size) if size <= MOST_AXES else (size,)
    if shapes != ((size,), of_axes) or not finite:
        raise ValueError(f"features have other means and axes than of {size} finite numbers")
    history = History.from_tensors(with_prefix(tensors, "history."))
    fitted = FittedOutputs(model, guide, like, units, (center, axes), history)
    make_parameters(fitted)
    for part, program in (("model", model), ("guide", guide)):
        program.load_state_dict(with_prefix(tensors, f"{part}."))
        program.eval()
    estimator.fitted_, estimator._single = fitted, config["single"]
    estimator.outputs_ = np.array([*classes], dtype=object)
    estimator.n_features_in_ = size
    if config["features"] is not None:
        estimator.feature_names_in_ = np.array(config["features"], dtype=object)
    estimator._set_classes()


def _checksum(config: Any, weights: Path) -> str:
    digest = hashlib.sha256(weights.read_bytes())
    digest.update(json.dumps(config, sort_keys=True).encode())
    return digest.hexdigest()
