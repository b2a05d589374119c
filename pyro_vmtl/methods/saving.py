"""A fitted method as JSON and tensors, and back, without its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from pyro_vmtl.data.counterparts import attend
from pyro_vmtl.data.one_task import as_one_task
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.inference.history import History
from pyro_vmtl.inference.svi import FitResult
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.preset import Preset
from pyro_vmtl.methods.specification import from_json, to_json
from pyro_vmtl.methods.stack import FittedStack
from pyro_vmtl.predictive.calibration import Calibration

__all__ = ["fitted_from", "fitted_parts"]

Parts = tuple[dict[str, Any], dict[str, Tensor]]
"""JSON, and tensors by name."""

BY_STEP = ("loss", "step", "snapshot_step")
"""What a history holds for the whole."""

BY_SITE = ("log_likelihood", "kl", "relatedness")
"""What a history holds for each site."""


def fitted_parts(fitted: Fitted | FittedStack) -> Parts:
    """Take a fitted method apart.

    Examples
    --------
    >>> import torch
    >>> data = TaskData.regression([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0], ["a", "a", "b"])
    >>> fitted = Preset(fitting={"num_steps": 20}).fit(data)
    >>> again = fitted_from(*fitted_parts(fitted), data)
    >>> torch.equal(again.predictive(data).mean, fitted.predictive(data).mean)
    True
    """
    config, tensors = _result_parts(fitted.result)
    if isinstance(fitted, Fitted):
        config |= {"preset": to_json(fitted.preset), "num_tasks": fitted.num_tasks}
        for part, program in (("model", fitted.model), ("guide", fitted.guide)):
            for name, value in program.state_dict().items():
                tensors[f"{part}.{name}"] = value.detach().cpu()
        return config, tensors
    config["members"] = {}
    for name, member in fitted.members.items():
        config["members"][name], parts = fitted_parts(member)
        tensors |= {f"{name}/{key}": value for key, value in parts.items()}
    config["calibrations"] = {name: asdict(c) for name, c in fitted.calibrations.items()}
    tensors["weights"], tensors["new_task_weights"] = fitted.weights, fitted.new_task_weights
    return config, tensors


def fitted_from(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], like: TaskData
) -> Fitted | FittedStack:
    """Put a fitted method together.

    Parameters
    ----------
    config, tensors
        What :func:`fitted_parts` gave.
    like
        Rows with as many tasks, features and classes as those of the fit; any rows will do.

    Raises
    ------
    ValueError
        If something is missing, or of another shape.
    """
    try:
        if "members" in config:
            return _stack(config, tensors, like)
        return _single(config, tensors, like)
    except (KeyError, RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"Settings and weights do not belong together ({reason}).") from error


def _stack(config: Mapping[str, Any], tensors: Mapping[str, Tensor], like: TaskData) -> FittedStack:
    members = {
        name: _single(member, _of_prefix(tensors, f"{name}/"), like)
        for name, member in config["members"].items()
    }
    calibrations = {name: _calibration(**c) for name, c in config["calibrations"].items()}
    weights, new_task_weights = tensors["weights"], tensors["new_task_weights"]
    if weights.shape != (like.num_tasks, len(members)) or len(new_task_weights) != len(members):
        raise ValueError(
            f"The weights of the members have shapes {tuple(weights.shape)} and "
            f"{tuple(new_task_weights.shape)}, expected {(like.num_tasks, len(members))} and "
            f"{(len(members),)}."
        )
    result = _result(config, tensors)
    return FittedStack(members, weights, result, calibrations, new_task_weights)


def _calibration(*, spread: float, temperature: float) -> Calibration:
    if not (0 <= spread < math.inf and 0 < temperature < math.inf):
        raise ValueError(f"A calibration has spread {spread} and temperature {temperature}.")
    return Calibration(spread, temperature)


def _single(config: Mapping[str, Any], tensors: Mapping[str, Tensor], like: TaskData) -> Fitted:
    preset = from_json(config["preset"])
    if not isinstance(preset, Preset):
        raise ValueError(f"The settings are of {type(preset).__name__}, expected Preset.")
    if config["num_tasks"] != like.num_tasks:
        raise ValueError(f"There are {like.num_tasks} tasks, expected {config['num_tasks']}.")
    rows = as_one_task(like) if preset.pooled else like
    if "z" in preset.shared:
        rows = attend(rows)
    with isolated(0):
        model, guide = preset.programs(rows)
        guide(rows)  # makes the lazy parameters
    for part, program in (("model", model), ("guide", guide)):
        program.load_state_dict(_of_prefix(tensors, f"{part}."))
        program.to(like.x.device).eval()
    return Fitted(preset, model, guide, _result(config, tensors), config["num_tasks"])


def _result_parts(result: FitResult) -> Parts:
    history = result.history
    tensors = {f"history.{name}": getattr(history, name) for name in BY_STEP}
    for kind in BY_SITE:
        tensors |= {f"history.{kind}.{s}": v for s, v in getattr(history, kind).items()}
    return {"seconds": result.seconds, "stopped": result.stopped}, tensors


def _result(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> FitResult:
    # fits saved before there were snapshots have none
    parts: dict[str, Any] = {
        name: tensors[key] for name in BY_STEP if (key := f"history.{name}") in tensors
    }
    parts |= {kind: _of_prefix(tensors, f"history.{kind}.") for kind in BY_SITE}
    history = History(**parts)
    return FitResult(history, config["seconds"], config["stopped"])


def _of_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: v for name, v in tensors.items() if name.startswith(prefix)}
