"""Estimators in a folder: settings as JSON, numbers as safetensors, nothing that is executed."""

from __future__ import annotations

import hashlib
import json
import platform
import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyro
import sklearn
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyro_vmtl._version import __version__
from pyro_vmtl.data.atomic_files import new_directory
from pyro_vmtl.estimators.notices import VersionNotice
from pyro_vmtl.estimators.rows import template
from pyro_vmtl.estimators.scaling import Scaling
from pyro_vmtl.methods.saving import from_state, to_state
from pyro_vmtl.methods.specification import from_json, to_json

if TYPE_CHECKING:
    from pyro_vmtl.estimators.base import VMTLEstimator

__all__ = ["CONFIG", "load", "save", "versions"]

CONFIG = "estimator.json"
WEIGHTS = "weights.safetensors"
IN_RUN = "estimator"
"""Folder of the estimator in a run directory of the command line."""

FORMAT = 1
"""Number of the form of these files; it grows when an older one can no longer be read."""

WRONG = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Errors that files cause where something else is in them than what was written."""

Estimator = TypeVar("Estimator", bound="VMTLEstimator")


def versions() -> dict[str, str]:
    """Versions of what a fit depends on."""
    return {
        "pyro_vmtl": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "numpy": np.__version__,
        "sklearn": sklearn.__version__,
    }


def save(estimator: VMTLEstimator, path: Path, *, overwrite: bool = False) -> None:
    """Write a fitted estimator to a folder, whole or not at all."""
    settings = {
        name: to_json(value)
        for name, value in estimator.get_params(deep=False).items()
        if name not in ("device", "progress")  # of the machine and the moment, not of the fit
    }
    fitted, tensors = to_state(estimator._fitted)
    kept: dict[str, Any] = {
        "tasks": _labels(list(estimator._sizes), "tasks"),
        "task_sizes": list(estimator._sizes.values()),
        "num_features": estimator.n_features_in_,
        "features": None,
    }
    if hasattr(estimator, "feature_names_in_"):
        kept["features"] = [str(name) for name in estimator.feature_names_in_]
    if hasattr(estimator, "classes_"):
        kept["classes"] = _labels(estimator.classes_.tolist(), "classes")
    else:
        kept |= {"centre": estimator._centre, "unit": estimator._unit}
    scaling = estimator._scaling
    for name, column in (("mean", scaling.mean), ("scale", scaling.scale)):
        tensors[f"features.{name}"] = torch.from_numpy(np.asarray(column, dtype=np.float64))
    own = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with new_directory(path, overwrite=overwrite, marker=CONFIG) as folder:
        save_file(own, folder / WEIGHTS)
        config = {
            "format": FORMAT,
            "estimator": type(estimator).__name__,
            "versions": versions(),
            "settings": settings,
            **kept,
            "fitted": fitted,
            "checksum": _checksum(folder / WEIGHTS),
        }
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")
        # safetensors would keep it to the owner
        (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)


def load(kind: type[Estimator], path: Path, *, device: str = "cpu") -> Estimator:
    """Read a fitted estimator from a folder."""
    if (path / IN_RUN / CONFIG).is_file():
        path = path / IN_RUN
    config, tensors = _read(path)
    named = config["estimator"]
    if named != kind.__name__:
        raise ValueError(f"{path} holds a {named}, expected a {kind.__name__}. Use {named}.load.")
    estimator = kind(device=device)
    estimator._check_device()
    try:
        estimator.set_params(**from_json(config["settings"]))
        estimator._check_settings()
        _fill(estimator, config, tensors, device)
    except WRONG as error:
        raise ValueError(
            f"{path} is broken: its {CONFIG} and {WEIGHTS} do not belong together ({error}). "
            "Fit again, or take an unchanged copy."
        ) from error
    return estimator


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read both files, and check them."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder, expected what `save` wrote.")
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path} has no {name}: it is no saved fit, or a part of one.")
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        found, checksum, _ = config["format"], config["checksum"], config["estimator"]
        newer, written = found > FORMAT, dict(config["versions"])
    except WRONG as error:
        raise ValueError(
            f"{path / CONFIG} cannot be read ({error}). Take an unchanged copy."
        ) from error
    if newer:
        raise ValueError(f"{path} was written by a newer version ({written}). Update pyro_vmtl.")
    if found != FORMAT:
        raise ValueError(f"{path / CONFIG} has format {found!r}, expected {FORMAT}.")
    if checksum != _checksum(path / WEIGHTS):
        raise ValueError(
            f"{path / WEIGHTS} is not the file that was saved: it was changed, or cut short. Take "
            "an unchanged copy."
        )
    try:
        tensors = load_file(path / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path / WEIGHTS} cannot be read ({error}).") from error
    _tell_version(written, path)
    return config, tensors


def _tell_version(found: Mapping[str, str], path: Path) -> None:
    """Tell where a version that matters is another."""
    now = versions()
    other = [n for n in ("pyro_vmtl", "torch", "pyro") if found.get(n) != now[n]]
    if other:
        named = ", ".join(f"{n} {found.get(n, 'unknown')} (here {now[n]})" for n in other)
        warnings.warn(
            f"{path} was written with {named}. Predictions may differ; fit again to be sure.",
            VersionNotice,
            stacklevel=4,
        )


def _fill(
    estimator: VMTLEstimator, config: Mapping[str, Any], tensors: dict[str, Tensor], device: str
) -> None:
    """Set what a fit would have set."""
    tasks, sizes = _different(config["tasks"], "tasks"), config["task_sizes"]
    if len(sizes) != len(tasks):
        raise ValueError(f"{len(tasks)} tasks, and sizes {sizes}")
    estimator._sizes = dict(zip(tasks, map(int, sizes), strict=True))
    estimator.n_features_in_ = config["num_features"]
    size = (estimator.n_features_in_,)
    if config["features"] is not None:
        names = np.array(_different(config["features"], "features"), dtype=object)
        estimator.feature_names_in_ = names
        if names.shape != size:
            raise ValueError(f"{len(names)} names of {size[0]} features")
    if hasattr(estimator, "predict_proba"):
        estimator.classes_ = np.array(_different(config["classes"], "classes"))
        if not 1 < len(estimator.classes_) == len(np.unique(estimator.classes_)):
            raise ValueError(f"classes are {config['classes']}")
    else:
        estimator._centre, estimator._unit = float(config["centre"]), float(config["unit"])
    mean, scale = (tensors.pop(f"features.{name}").numpy() for name in ("mean", "scale"))
    if not mean.shape == scale.shape == size:
        raise ValueError(f"features have shapes {mean.shape} and {scale.shape}, not {size}")
    unit = getattr(estimator, "_unit", 1.0)
    if not (np.isfinite([*mean, *scale, unit]).all() and min(*scale, unit) > 0):
        raise ValueError("units are not above 0, or not finite")
    estimator._scaling = Scaling(mean, scale)
    like = template(*size, tuple(estimator._sizes), estimator._num_classes(), device=device)
    estimator._fitted = from_state(config["fitted"], tensors, like)


def _labels(labels: Sequence[Hashable], name: str) -> list[Any]:
    """Check that labels can be written as JSON, and come back as they are."""
    for label in labels:
        if not (label is None or isinstance(label, str | int | float | bool)):
            raise ValueError(
                f"{name} has {label!r} ({type(label).__name__}), expected strings or numbers: "
                "others cannot be saved. Make strings of them before the fit."
            )
    return list(labels)


def _different(labels: Any, name: str) -> list[Any]:
    """Check labels that were read: a list, each once."""
    if not isinstance(labels, list) or len(set(labels)) != len(labels) or not labels:
        raise ValueError(f"{name} are {labels!r:.80}, not labels that differ")
    return _labels(labels, name)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
