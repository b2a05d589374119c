"""Validation of the user's arrays, with errors that name the row."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "as_labels",
    "check_finite",
    "check_positive",
    "label_index",
    "read_labels",
    "read_real",
    "read_targets",
    "read_weights",
    "sorted_unique",
]


def read_real(values: Any, name: str, ndim: int) -> Tensor:
    """Convert real values to a tensor of torch's default dtype; float tensors keep theirs."""
    if isinstance(values, Tensor):
        tensor = values.detach()
        if not tensor.is_floating_point():
            tensor = tensor.to(torch.get_default_dtype())
    else:
        try:
            array = np.array(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} has values that are not numbers ({error}).") from error
        tensor = torch.as_tensor(array, dtype=torch.get_default_dtype())
    if tensor.ndim != ndim:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, expected {ndim} dimension(s): "
            f"{'(rows, features)' if ndim == 2 else '(rows,)'}."
        )
    return tensor


def read_targets(y: Any, tasks: Sequence[Hashable] | np.ndarray) -> Tensor:
    """Convert real targets, (rows,), and check that they are finite."""
    targets = read_real(y, "y", ndim=1)
    check_finite(targets[:, None], read_labels(tasks, "tasks"), "y")
    return targets


def read_weights(sample_weight: Any) -> Tensor:
    """Convert weights, (rows,), and check that they are at least 0 and not all 0."""
    weight = read_real(sample_weight, "sample_weight", ndim=1)
    bad = (~((weight >= 0) & torch.isfinite(weight))).nonzero()
    if len(bad):
        row = int(bad[0])
        raise ValueError(
            f"sample_weight has {weight[row].item()} in row {row}, expected a finite number of at "
            "least 0. To leave a row out, give it 0."
        )
    if not weight.any():
        raise ValueError("sample_weight is 0 in every row, expected some above 0.")
    return weight


def label_index(labels: list[Hashable], known: Sequence[Hashable], message: str) -> Tensor:
    """Return the positions of labels among the known ones, (rows,).

    The message of an error is formatted with the label, its row, and the known labels.
    """
    index = {label: i for i, label in enumerate(known)}
    for row, label in enumerate(labels):
        if label not in index:
            raise ValueError(message.format(label, row, list(known)))
    return torch.tensor([index[label] for label in labels], dtype=torch.int64)


def read_labels(values: Any, name: str) -> list[Hashable]:
    """Convert labels to plain Python objects, which hash and print as the user's own."""
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise ValueError(f"{name} is {type(values).__name__}, expected one label per row.")
    labels = values.tolist() if hasattr(values, "tolist") else list(values)
    # scalars of numpy and torch: equal ones of torch would have different hashes
    labels = [v.item() if getattr(v, "shape", None) == () else v for v in labels]
    for row, label in enumerate(labels):
        # NA of pandas has no truth value, and NaN is unequal to itself
        if label is None or type(label).__name__ == "NAType" or label != label:
            raise ValueError(f"{name} has no label in row {row}. Fill it in or drop the row.")
        if not isinstance(label, Hashable):
            raise ValueError(
                f"{name} has {label!r} in row {row}, expected a hashable label such as a string."
            )
    if any(isinstance(label, bool) for label in labels):
        for number in (0, 1):
            if len({type(label) is bool for label in labels if label == number}) > 1:
                raise ValueError(
                    f"{name} has both {bool(number)} and {number}, which are equal in Python, and "
                    "so would be one. Convert them to text."
                )
    return labels


def check_finite(values: Tensor, tasks: list[Hashable], name: str) -> None:
    """Check that values (rows, columns) are finite, and name the first that is not."""
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        task = f" (task {tasks[row]!r})" if row < len(tasks) else ""
        where = f"row {row}, column {column}" if name == "X" else f"row {row}"
        raise ValueError(
            f"{name} has {values[row, column].item()} in {where}{task}, expected a finite number. "
            "Impute or drop it."
        )


def as_labels(labels: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """Convert labels to a coordinate that files can hold: integers if all are, else strings."""
    plain = [label.item() if isinstance(label, np.generic) else label for label in labels]
    if plain and all(type(label) is int for label in plain):
        return np.array(plain, dtype=np.int64)
    texts = [str(label) for label in plain]
    if len(set(texts)) < len(set(plain)):
        texts = [repr(label) for label in plain]
    return np.array(texts, dtype=str)


def sorted_unique(labels: list[Hashable]) -> tuple[Hashable, ...]:
    """Return each label once, sorted if possible, else in order of first appearance."""
    unique = dict.fromkeys(labels)
    try:
        return tuple(sorted(unique))  # type: ignore[type-var]
    except TypeError:  # labels of mixed types have no order
        return tuple(unique)


def check_positive(**numbers: int | None) -> None:
    """Check that numbers of rows or tasks, where they are given, are at least 1."""
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}, expected at least 1.")
