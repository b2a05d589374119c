"""The state of a fit as JSON and tensors, without its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import isolated, validation
from pyro_vmtl.handlers.tracing import trace_guide_and_model
from pyro_vmtl.inference.history import History, with_prefix
from pyro_vmtl.inference.svi import FitResult
from pyro_vmtl.methods.borrowing import Borrowing
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.member import Member
from pyro_vmtl.methods.method import Method, ProgramMethod
from pyro_vmtl.methods.specification import from_json, to_json
from pyro_vmtl.predictive.calibration import Calibration

__all__ = ["from_state", "to_state"]

State = tuple[dict[str, Any], dict[str, Tensor]]
"""JSON, and tensors by name."""


def to_state(fitted: Fitted) -> State:
    """Take the state of a fit: of programs of your own, only what they learned."""
    config, tensors = _result_state(fitted.result)
    config["calibrations"] = {name: asdict(c) for name, c in fitted.calibrations.items()}
    config["members"] = {}
    tensors["weights"], tensors["new_task_weights"] = fitted.weights, fitted.new_task_weights
    if fitted.share_draws is not None:
        tensors["share_draws"] = fitted.share_draws
    for name, member in fitted.members.items():
        config["members"][name], own = _member_state(member)
        tensors |= {f"{name}/{key}": value for key, value in own.items()}
    return config, tensors


def from_state(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    like: TaskData,
    method: Method | None = None,
) -> Fitted:
    """Restore a fit from its state.

    ``like`` has as many tasks, features and classes as the training rows; any rows will do.
    ``method`` is what was fitted, where it has programs of your own.
    """
    try:
        members = {
            name: _member(name, own, with_prefix(tensors, f"{name}/"), like, method)
            for name, own in config["members"].items()
        }
        calibrations = {name: _calibration(**c) for name, c in config["calibrations"].items()}
        weights, new_task_weights = tensors["weights"], tensors["new_task_weights"]
        if not all((w >= 0).all() and (w <= 1.001).all() for w in (weights, new_task_weights)):
            raise ValueError("The members have weights outside [0, 1].")
        if weights.shape != (like.num_tasks, len(members)) or len(new_task_weights) != len(members):
            raise ValueError(
                f"The weights of the members have shapes {tuple(weights.shape)} and "
                f"{tuple(new_task_weights.shape)}, expected {(like.num_tasks, len(members))} and "
                f"{(len(members),)}."
            )
        drawn = tensors.get("share_draws")
        result = _result(config, tensors)
        return Fitted(members, weights, result, calibrations, new_task_weights, drawn)
    except (KeyError, RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"Settings and weights do not belong together ({reason}).") from error


def _member_state(member: Member) -> State:
    config, tensors = _result_state(member.result)
    try:
        config["method"] = to_json(member.method)
    except ValueError:  # programs of the user's own, to be passed to `from_state`
        config["method"] = None
    for part in ("model", "guide"):
        for name, value in getattr(member, part).state_dict().items():
            tensors[f"{part}.{name}"] = value.cpu()
    tensors["borrowing.shares"] = member.borrowing.shares
    tensors["borrowing.sources"] = member.borrowing.sources
    if member.borrowing.of_tasks is not None:
        tensors["borrowing.of_tasks"] = member.borrowing.of_tasks
    for site, value in member.borrowing.shares_per_weight.items():
        tensors[f"borrowing.per_weight.{site}"] = value
    return config, tensors


def _member(
    name: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    like: TaskData,
    given: Method | None,
) -> Member:
    method = from_json(config["method"])
    if method is None:
        method = getattr(given, "members", {name: given}).get(name)
        if method is None:
            raise ValueError(
                f"The fit {name!r} has programs of your own, which are not saved. Pass the method "
                "that was fitted, `method=`."
            )
    if not isinstance(method, ProgramMethod):
        raise ValueError(f"The settings are of {type(method).__name__}, expected a single method.")
    borrowing = Borrowing(
        tensors["borrowing.shares"],
        tensors["borrowing.sources"],
        with_prefix(tensors, "borrowing.per_weight."),
        tensors.get("borrowing.of_tasks"),
    )
    of_tasks, shape = borrowing.of_tasks, (like.num_tasks, like.num_tasks)
    if of_tasks is not None and (of_tasks.shape != shape or not of_tasks.isfinite().all()):
        raise ValueError(f"Shares of tasks have shape {tuple(of_tasks.shape)}, expected {shape}.")
    if borrowing.num_tasks != like.num_tasks:
        raise ValueError(f"There are {like.num_tasks} tasks, expected {borrowing.num_tasks}.")
    rows = method.prepare(like)
    model, guide = method.initial_programs(rows)
    with isolated(0), validation(False), torch.no_grad():
        trace_guide_and_model(model, guide, rows)  # makes the lazy parameters
    for part, program in (("model", model), ("guide", guide)):
        state = with_prefix(tensors, f"{part}.")
        for key, value in program.state_dict().items():
            if key in state and state[key].dtype != value.dtype:
                raise ValueError(f"{key!r} is of {state[key].dtype}, expected {value.dtype}.")
        program.load_state_dict(state)
        for key, parameter in program.named_parameters():  # buffers may be infinite: masks are
            if not parameter.isfinite().all():
                raise ValueError(f"{key!r} is infinite, expected finite numbers.")
        program.to(like.x.device).eval()
    return Member(method, model, guide, _result(config, tensors), borrowing)


def _calibration(*, posterior_scale: float, temperature: float) -> Calibration:
    if not (0 <= posterior_scale < math.inf and 0 < temperature < math.inf):
        raise ValueError(
            f"A calibration has posterior_scale {posterior_scale} and temperature {temperature}."
        )
    return Calibration(posterior_scale, temperature)


def _result_state(result: FitResult) -> State:
    tensors = {f"history.{name}": v for name, v in result.history.to_tensors().items()}
    return {"seconds": result.seconds, "stopped": result.stopped}, tensors


def _result(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> FitResult:
    history = History.from_tensors(with_prefix(tensors, "history."))
    return FitResult(history, config["seconds"], config["stopped"])
