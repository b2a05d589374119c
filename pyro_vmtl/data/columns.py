"""Further columns of rows, such as an exposure or an offset, for programs of one's own."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vmtl.data.arrays import check_finite

__all__ = ["check_columns", "read_columns"]

TAKEN = ("x", "y", "sample_weight", "task", "row", "feature", "class")
"""Names that a tree for ArviZ has for something else."""


def read_columns(columns: Any, tasks: Sequence[Hashable]) -> dict[str, Tensor]:
    """Convert named columns to tensors, (rows, ...): booleans and integers stay what they are.

    ``columns`` is a mapping of names to arrays, a data frame, or None for no columns.
    """
    if columns is None:
        return {}
    if not hasattr(columns, "items"):
        raise ValueError(
            f"columns is {type(columns).__name__}, expected a mapping of names to arrays, such as "
            "{'exposure': hours}, or a data frame."
        )
    found = {}
    for name, values in columns.items():
        if not isinstance(name, str) or name in TAKEN:
            raise ValueError(
                f"columns has the name {name!r}, expected a string that is none of "
                f"{', '.join(TAKEN)}. Rename it."
            )
        found[name] = _read_column(values, f"columns[{name!r}]", list(tasks))
    return found


def _read_column(values: Any, name: str, tasks: list[Hashable]) -> Tensor:
    if isinstance(values, Tensor):
        tensor = values.detach()
    else:
        array = np.asarray(values)
        kind = {"b": np.bool_, "i": np.int64, "u": np.int64}.get(array.dtype.kind, np.float64)
        try:
            tensor = torch.from_numpy(np.array(array, dtype=kind))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} has values that are not numbers ({error}).") from error
        if kind is np.float64:
            tensor = tensor.to(torch.get_default_dtype())
    if tensor.ndim == 0 or len(tensor) != len(tasks):
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, expected {len(tasks)} rows as in X."
        )
    if tensor.is_floating_point():
        check_finite(tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None], tasks, name)
    return tensor


def check_columns(
    found: Mapping[str, Tensor], known: Mapping[str, Tensor], *, row_dims: int = 1
) -> None:
    """Check that columns have the names of the fit's, and a row of each the same shape.

    The first dimensions, ``row_dims``, are those of rows.

    Raises
    ------
    ValueError
        If a column of the fit is missing, one is not in the fit, or shapes differ.
    """
    for name in [*known, *found]:
        if name not in found:
            raise ValueError(
                f"columns has no {name!r}, expected the columns of the fit, {', '.join(known)}. "
                f"Pass them for these rows, too: columns={{{name!r}: ...}}."
            )
        if name not in known:
            raise ValueError(
                f"columns has {name!r}, expected those of the fit, {', '.join(known) or 'none'}. "
                "Leave it out, or fit again with it."
            )
        shapes = [tuple(columns[name].shape[row_dims:]) for columns in (found, known)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"A row of columns[{name!r}] has shape {shapes[0]}, expected {shapes[1]} as in the "
                "fit."
            )
