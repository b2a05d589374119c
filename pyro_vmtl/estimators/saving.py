"""Estimators on disk: settings as JSON, numbers as safetensors, nothing executable."""

from __future__ import annotations

import hashlib
import json
import platform
import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired

import numpy as np
import pyro
import sklearn
import torch
from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter
from torch import Tensor
from typing_extensions import TypedDict

from pyro_vmtl._version import __version__
from pyro_vmtl.data.atomic_files import new_directory
from pyro_vmtl.data.checked_files import check_schema, file_in, read_json
from pyro_vmtl.data.limits import AllocationLimit, check_limit
from pyro_vmtl.data.tensor_files import read_tensors, write_tensors
from pyro_vmtl.estimators.device import check_device
from pyro_vmtl.estimators.exceptions import VersionWarning
from pyro_vmtl.estimators.rows import to_task_data
from pyro_vmtl.estimators.scaling import Scaling
from pyro_vmtl.inference.history import with_prefix
from pyro_vmtl.methods.saving import from_state, to_state
from pyro_vmtl.methods.specification import from_json, to_json

if TYPE_CHECKING:
    from pyro_vmtl.data.task_data import TaskData

__all__ = ["CONFIG", "load", "save", "versions"]

CONFIG = "estimator.json"
WEIGHTS = "weights.safetensors"
IN_RUN = "estimator"
"""Directory of the estimator in a run directory of the command line."""

FORMAT = 2
"""Version of the file format, incremented whenever older files can no longer be read."""

INVALID = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Errors raised while reading files whose content was changed."""

Label = str | int | FiniteFloat | bool | None
Size = Annotated[int, Field(gt=0)]


class Result(TypedDict):
    """What the file says of a fit."""

    seconds: Annotated[FiniteFloat, Field(ge=0)]
    stopped: Literal["settled", "steps", "interrupted"]
    method: NotRequired[dict[str, Any] | None]


class FitState(Result):
    """What it says of all fits of a method together."""

    members: dict[str, Result]
    calibrations: dict[str, dict[str, FiniteFloat]]


class Config(TypedDict):
    """Content of :data:`CONFIG`."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    format: Literal[2]
    estimator: Literal["VMTLClassifier", "VMTLRegressor"]
    versions: dict[str, str]
    settings: dict[str, Any]
    tasks: list[Label]
    task_sizes: list[Size]
    num_features: Size
    features: list[str] | None
    classes: NotRequired[list[Label]]
    centre: NotRequired[FiniteFloat]
    unit: NotRequired[Annotated[FiniteFloat, Field(gt=0)]]
    fitted: FitState


SCHEMA = TypeAdapter(Config)


def versions() -> dict[str, str]:
    """Return the versions of the packages that a fit depends on."""
    return {
        "pyro_vmtl": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "numpy": np.__version__,
        "sklearn": sklearn.__version__,
    }


def save(estimator: Any, path: Path, *, overwrite: bool = False) -> None:
    """Write a fitted estimator to a directory, atomically."""
    settings = {
        name: to_json(value)
        for name, value in estimator.get_params(deep=False).items()
        if name not in ("method", "device", "progress")  # the last two are not of the fit
    }
    try:
        settings["method"] = to_json(estimator.method)
    except ValueError:  # the user's own, to be passed to `load`
        settings["method"] = {"own": type(estimator.method).__qualname__}
    fitted, tensors = to_state(estimator.fitted_)
    features = getattr(estimator, "feature_names_in_", None)
    config: dict[str, Any] = {
        "format": FORMAT,
        "estimator": type(estimator).__name__,
        "versions": versions(),
        "settings": settings,
        "tasks": _check_labels(list(estimator._sizes), "tasks"),
        "task_sizes": list(estimator._sizes.values()),
        "num_features": estimator.n_features_in_,
        "features": None if features is None else features.tolist(),
        "fitted": fitted,
    }
    if hasattr(estimator, "classes_"):
        config["classes"] = _check_labels(estimator.classes_.tolist(), "classes")
    else:
        config |= {"centre": estimator.target_mean_, "unit": estimator.target_scale_}
    tensors |= {f"columns.{name}": values for name, values in estimator._columns.items()}
    for name in ("mean", "scale"):
        column = np.asarray(getattr(estimator._scaling, name), dtype=np.float64)
        tensors[f"features.{name}"] = torch.from_numpy(column)
    with new_directory(path, overwrite=overwrite, marker=CONFIG) as folder:
        write_tensors(folder / WEIGHTS, tensors)
        config["checksum"] = _checksum(config, folder / WEIGHTS)
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")


def load(kind: type[Any], path: Path, *, device: str = "cpu", method: Any = None) -> Any:
    """Read a fitted estimator from a directory."""
    if (path / IN_RUN / CONFIG).is_file():
        path = file_in(path, f"{IN_RUN}/{CONFIG}").parent
    config, tensors = _read(path)
    saved = config["estimator"]
    if saved != kind.__name__:
        raise ValueError(f"{path} holds a {saved}, expected a {kind.__name__}. Use {saved}.load.")
    estimator = kind(device=device)
    check_device(device)
    settings = config["settings"]
    own = isinstance(settings["method"], dict) and settings["method"].get("own")
    if own and method is None:
        raise ValueError(
            f"{path} was fitted by a method of your own ({own}), which is not in the file. Pass "
            f"it: {saved}.load(path, method=...)."
        )
    try:
        estimator.set_params(**from_json({**settings, "method": None} if own else settings))
        if own:
            estimator.method = method
        with AllocationLimit(path / CONFIG):
            _restore(estimator, config, tensors)
    except INVALID as error:
        raise ValueError(
            f"{path} is broken: its {CONFIG} and {WEIGHTS} do not belong together ({error}). "
            "Fit again, or restore an unchanged copy."
        ) from error
    return estimator


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read both files, and verify format and checksum."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no directory, expected one written by `save`.")
    weights = file_in(path, WEIGHTS, "RUN_BYTES")
    config = read_json(file_in(path, CONFIG))
    if not isinstance(config, dict) or {"checksum", "format", "versions"} - set(config):
        raise ValueError(f"{path / CONFIG} is not of an estimator. Take an unchanged copy.")
    checksum, written = config.pop("checksum"), config["versions"]
    if config["format"] != FORMAT:
        raise ValueError(
            f"{path / CONFIG} has format {config['format']!r} (written with {written}), expected "
            f"{FORMAT}. Update pyro_vmtl, or fit again."
        )
    if checksum != _checksum(config, weights):
        raise ValueError(
            f"{path} is not what was saved: {CONFIG} or {WEIGHTS} was changed or truncated. "
            "Restore an unchanged copy."
        )
    check_schema(SCHEMA, config, path / CONFIG)
    tensors, _ = read_tensors(weights)
    now = versions()
    other = [n for n in ("pyro_vmtl", "torch", "pyro") if written.get(n) != now[n]]
    if other:
        named = ", ".join(f"{n} {written.get(n, 'unknown')} (here {now[n]})" for n in other)
        warnings.warn(
            f"{path} was written with {named}. Predictions may differ; fit again to be sure.",
            VersionWarning,
            stacklevel=4,
        )
    return config, tensors


def _restore(estimator: Any, config: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
    """Set the attributes that ``fit`` sets."""
    estimator._check_settings()
    check_limit("DRAWS", estimator.num_samples, "num_samples")
    estimator._sizes = dict(zip(config["tasks"], config["task_sizes"], strict=True))
    estimator.n_features_in_ = config["num_features"]
    if config["features"] is not None:
        estimator.feature_names_in_ = np.array(config["features"], dtype=object)
    if "classes" in config:
        estimator.classes_ = np.array(config["classes"])
    else:
        estimator.target_mean_, estimator.target_scale_ = config["centre"], config["unit"]
    mean, scale = (tensors.pop(f"features.{name}").numpy() for name in ("mean", "scale"))
    shape = (estimator.n_features_in_,)
    sound = np.isfinite([*mean.flat, *scale.flat]).all() and (scale > 0).all()
    if mean.shape != shape or scale.shape != shape or not sound:
        raise ValueError(f"features have other means and scales than {shape[0]} finite numbers")
    estimator._scaling = Scaling(mean, scale)
    estimator._columns = with_prefix(tensors, "columns.")
    own = None if isinstance(estimator.method, str) else estimator.method
    estimator.fitted_ = from_state(config["fitted"], tensors, _example_data(estimator), own)


def _example_data(estimator: Any) -> TaskData:
    """Return rows of zeros with the tasks, features and classes of the fit."""
    tasks, classes = tuple(estimator._sizes), estimator._class_labels()
    labels = [*tasks] * -(-len(classes or (0,)) // len(tasks))  # a row of every class, too
    row = torch.arange(len(labels))
    targets = torch.zeros(len(labels)) if classes is None else row % len(classes)
    x = torch.zeros(len(labels), estimator.n_features_in_)
    columns = {n: v.expand(len(x), *v.shape[1:]) for n, v in estimator._columns.items()}
    data = to_task_data(x, targets, labels, tasks, classes, columns=columns)
    return data.to(estimator.device)


def _check_labels(labels: Sequence[Hashable], name: str) -> list[Any]:
    """Check that labels can be written as JSON and read back unchanged."""
    for label in labels:
        if not (label is None or isinstance(label, str | int | float | bool)):
            raise ValueError(
                f"{name} has {label!r} ({type(label).__name__}), expected strings or numbers: "
                "others cannot be saved. Convert them to strings before the fit."
            )
    return list(labels)


def _checksum(config: Mapping[str, Any], weights: Path) -> str:
    """Hash both files."""
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps(config, sort_keys=True).encode())
    return digest.hexdigest()
