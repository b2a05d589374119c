"""A fit of a method in one file: settings and numbers, no rows, nothing executable."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from pyro_vmtl.data.limits import AllocationLimit
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.data.tensor_files import read_tensors, write_tensors
from pyro_vmtl.inference.saved_program import describe, make_like, without_rows
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.method import Method
from pyro_vmtl.methods.saving import from_state, to_state

__all__ = ["load_fitted", "save_fitted"]


def save_fitted(path: Path | str, fitted: Fitted, data: TaskData) -> None:
    """Write a fit to a file.

    Parameters
    ----------
    path
        File to write, or to overwrite.
    fitted
        What a method returned, such as :class:`~pyro_vmtl.Programs` or :class:`~pyro_vmtl.Stack`.
    data
        The rows that it was fitted to, of which only shapes and labels are saved.

    See Also
    --------
    load_fitted : Read the file in another process.
    save_program : The same for a pair of programs that :func:`~pyro_vmtl.fit` fitted.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_fitted(f"{folder}/fit", fitted, data)
    ...     Path(f"{folder}/fit").exists()
    True
    """
    config, tensors = to_state(fitted)
    if data.num_tasks != fitted.num_tasks:
        raise ValueError(
            f"data has {data.num_tasks} tasks, expected the {fitted.num_tasks} of the fit."
        )
    texts = {"fitted": json.dumps(config), "rows": json.dumps(describe(data))}
    write_tensors(Path(path), tensors, texts)


def load_fitted(path: Path | str, method: Method | None = None) -> tuple[Fitted, TaskData]:
    """Read a fit from a file.

    Parameters
    ----------
    path
        File that :func:`save_fitted` wrote.
    method
        The method that was fitted, needed if it makes programs of your own.

    Returns
    -------
    tuple
        The fit, and data without rows, whose ``new_rows`` arranges rows to predict.

    Raises
    ------
    ValueError
        If the file is broken, is of another method, or needs a ``method``.

    Examples
    --------
    >>> import tempfile
    >>> from pyro_vmtl.methods.preset import Preset
    >>> data = TaskData.regression([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0], ["a", "a", "b"])
    >>> fitted = Preset(fitting={"num_steps": 20}).fit(data)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_fitted(f"{folder}/fit.safetensors", fitted, data)
    ...     again, like = load_fitted(f"{folder}/fit.safetensors")
    >>> rows = like.new_rows([[1.5]], ["b"])
    >>> bool((again.predictive(rows).mean == fitted.predictive(rows).mean).all())
    True
    """
    try:
        tensors, texts = read_tensors(Path(path))
        config, rows = (json.loads(texts[name]) for name in ("fitted", "rows"))
        with AllocationLimit(path):
            like: TaskData = make_like(rows)
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} was not written by `save_fitted`, or is broken ({error})."
        ) from error
    with AllocationLimit(path):
        if like.y is not None and like.classes is not None:  # some programs need all classes
            y = torch.arange(like.num_rows) % like.num_classes
            like = replace(like, y=y.expand(like.mask.shape))
        return from_state(config, tensors, like, method), without_rows(like)
