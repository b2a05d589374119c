"""Presets and stacks as JSON and back, by a closed list of names: nothing is executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pyro_vmtl.data.row_batches import BalancedRows, RandomRows
from pyro_vmtl.data.task_batches import RandomTasks, TaskBlocks
from pyro_vmtl.handlers.schedules import Constant, Cosine, Exponential, Linear, Stairs
from pyro_vmtl.methods.by_features import ByFeatures
from pyro_vmtl.methods.gaussian_process import GaussianProcess
from pyro_vmtl.methods.preset import Preset
from pyro_vmtl.methods.stack import Stack
from pyro_vmtl.predictive.calibration import Calibration
from pyro_vmtl.sharing.pools import (
    ExpectedLogarithmicPool,
    GaussianSumPool,
    LinearPool,
    LogarithmicPool,
)

__all__ = ["from_json", "to_json"]

OBJECTS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(Preset, GaussianProcess, Stack, ByFeatures, Calibration),
        *(Constant, Exponential, Cosine, Linear, Stairs),
        *(RandomRows, BalancedRows, RandomTasks, TaskBlocks),
    )
}
POOLS = (ExpectedLogarithmicPool, GaussianSumPool, LinearPool, LogarithmicPool)

CLASSES = {kind.__name__: kind for kind in POOLS}


def to_json(value: Any) -> Any:
    """Write a preset, a stack, or what is in them, with numbers, texts, lists and dictionaries.

    Examples
    --------
    >>> to_json({"tasks": TaskBlocks(512)})
    {'tasks': {'object': 'TaskBlocks', 'num_tasks': 512}}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, type) and value in CLASSES.values():
        return {"class": value.__name__}
    if is_dataclass(value) and OBJECTS.get(type(value).__name__) is type(value):
        content = {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
        return {"object": type(value).__name__, **content}
    if isinstance(value, Mapping):
        return {str(name): to_json(content) for name, content in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(content) for content in value]
    raise ValueError(
        f"The method has {value!r} in it, expected settings of this library's own kinds: only "
        "these can be saved. Save its `state_dict` yourself."
    )


def from_json(value: Any) -> Any:
    """Read settings that :func:`to_json` wrote."""
    if isinstance(value, list):
        return tuple(from_json(content) for content in value)
    if not isinstance(value, dict):
        return value
    if "class" in value:
        return _known(CLASSES, value["class"])
    content = {name: from_json(v) for name, v in value.items() if name != "object"}
    if "object" not in value:
        return content
    kind = _known(OBJECTS, value["object"])
    try:
        return kind(**content)
    except TypeError as error:
        raise ValueError(f"{value['object']} has other settings here: {error}.") from error


def _known(names: dict[str, Any], name: Any) -> Any:
    if name not in names:
        raise ValueError(f"There is no {name!r} here, expected one of {', '.join(names)}.")
    return names[name]
