"""Fitted programs of one's own on disk: what they learned, and the shapes of their arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vmtl.data.limits import AllocationLimit
from pyro_vmtl.data.task_data import Attended, TaskData
from pyro_vmtl.data.tensor_files import read_tensors, write_tensors
from pyro_vmtl.handlers.isolation import check_no_bare_parameters, evaluating, isolated, validation
from pyro_vmtl.handlers.own_parameters import own_parameters
from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.handlers.tracing import trace_guide_and_model

__all__ = ["describe", "load_program", "make_like", "save_program", "without_rows"]

OBJECTS = {kind.__name__: kind for kind in (TaskData, Attended)}
"""Containers of rows, of which the shapes are saved."""


def save_program(path: Path | str, model: Program, guide: Program, *args: Any) -> None:
    """Write what a model and guide learned to a file.

    The file has their parameters as safetensors, and of the arguments only shapes and the labels of
    tasks and classes, no rows. The code of the programs is not saved.

    Parameters
    ----------
    path
        File to write, or to overwrite.
    model, guide
        Fitted programs.
    *args
        Arguments that they were fitted to, such as a :class:`~pyro_vmtl.TaskData`.

    Raises
    ------
    ValueError
        If a parameter is a bare ``pyro.param``, or an argument cannot be described.

    See Also
    --------
    load_program : Read the file in another process.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_program(f"{folder}/fit", model, guide, data)
    ...     Path(f"{folder}/fit").exists()
    True
    """
    config = json.dumps([describe(arg) for arg in args])
    _run(model, guide, args)
    write_tensors(Path(path), _modules(model, guide).state_dict(), {"arguments": config})


def load_program(path: Path | str, model: Program, guide: Program) -> Any:
    """Read what a model and guide learned from a file, in place.

    Parameters
    ----------
    path
        File that :func:`save_program` wrote.
    model, guide
        The same programs as those that were saved, not yet fitted, made by the same code.

    Returns
    -------
    TaskData or tuple
        The arguments of the fit: one, or a tuple of more or none. A :class:`~pyro_vmtl.TaskData`
        has no rows; its ``new_rows`` arranges rows to predict. Other tensors are zero.

    Raises
    ------
    ValueError
        If the file is broken, or of other programs.

    Examples
    --------
    >>> import tempfile
    >>> from pyro_vmtl import fit, predict_moments
    >>> from pyro_vmtl.guides import MeanFieldNormal
    >>> from pyro_vmtl.models import LinearRegressor, TaskNoise, ZeroMeanNormal
    >>> def programs():
    ...     model = LinearRegressor(ZeroMeanNormal((1,)), TaskNoise(2))
    ...     return model, MeanFieldNormal({"w": (1,)}, num_tasks=2)
    >>> data = TaskData.regression([[1.0], [2.0], [3.0]], [1.0, 2.0, -3.0], ["a", "a", "b"])
    >>> pair = programs()
    >>> _ = fit(*pair, data, num_steps=5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_program(f"{folder}/fit.safetensors", *pair, data)
    ...     again = programs()  # in another process
    ...     like = load_program(f"{folder}/fit.safetensors", *again)
    >>> rows = like.new_rows([[1.5]], ["b"])
    >>> bool((predict_moments(*again, rows)[0] == predict_moments(*pair, rows)[0]).all())
    True
    """
    try:
        state, texts = read_tensors(Path(path))
        with AllocationLimit(path):
            args = tuple(map(make_like, json.loads(texts["arguments"])))
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} was not written by `save_program`, or is broken ({error})."
        ) from error
    own_parameters(model, guide)
    _run(model, guide, args)
    modules = _modules(model, guide)
    try:
        modules.load_state_dict(state)
    except RuntimeError as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise ValueError(
            f"{path} has the parameters of other programs than these ({reason}). Make model and "
            "guide by the code that made those that were saved."
        ) from error
    modules.eval()
    empty = tuple(without_rows(arg) if isinstance(arg, TaskData) else arg for arg in args)
    return empty[0] if len(empty) == 1 else empty


@torch.no_grad()
def _run(model: Program, guide: Program, args: tuple[Any, ...]) -> None:
    """Run the programs once, so that they have all their parameters."""
    with isolated(0), validation(False), evaluating(model, guide):
        trace_guide_and_model(model, guide, *args)
        check_no_bare_parameters(model, guide)


def _modules(model: Program, guide: Program) -> nn.ModuleDict:
    programs = {"model": model, "guide": guide}
    return nn.ModuleDict({n: p for n, p in programs.items() if isinstance(p, nn.Module)})


def without_rows(data: TaskData) -> TaskData:
    """Drop all rows, but keep the labels."""
    return replace(data.map_rows(lambda values: values[:, :0]), attended=None)


def describe(value: Any) -> Any:
    """Describe an argument by lists, numbers and texts; of tensors only shape and type."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if OBJECTS.get(type(value).__name__) is type(value):
        content = {f.name: describe(getattr(value, f.name)) for f in fields(value)}
        return {"object": type(value).__name__, "content": content}
    if isinstance(value, Mapping):
        return {"content": {str(name): describe(v) for name, v in value.items()}}
    if isinstance(value, tuple | list):
        return [describe(each) for each in value]
    raise ValueError(
        f"An argument has {value!r} in it, expected TaskData, tensors, numbers or texts: only "
        "these can be described in the file. Pass it to the program when you make it."
    )


def make_like(value: Any) -> Any:
    """Make an argument like the one that was described, with zeros in it."""
    if isinstance(value, list):
        return tuple(map(make_like, value))
    if not isinstance(value, dict):
        return value
    if "shape" in value:
        dtype = getattr(torch, value["dtype"])
        return torch.full(value["shape"], dtype == torch.bool, dtype=dtype)  # no row is padding
    content = {name: make_like(v) for name, v in value["content"].items()}
    return OBJECTS[value["object"]](**content) if "object" in value else content
