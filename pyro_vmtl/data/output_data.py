"""Rows with several outputs each: classes or real values, any of which may be missing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from pyro_vmtl.data.arrays import read_real, sorted_unique

__all__ = ["OutputData", "OutputKind"]

OutputKind = Literal["classes", "real"]


@dataclass(frozen=True, eq=False, repr=False)
class OutputData:
    """N rows with T outputs.

    Create one with :meth:`from_columns` and, for other rows of the same outputs, :meth:`new_rows`.

    Attributes
    ----------
    x
        (N, F), features.
    y
        (N,) for each output: class indices (int64), or real values; 0 where it is missing. None
        for rows whose outputs are not known, so that a model draws them.
    known
        (N,) for each output, False where it is missing.
    classes
        the user's labels of the classes of each output; None for real values.

    Examples
    --------
    >>> y = {"mood": ["sad", None, "happy"], "hours": [1.5, 2.0, float("nan")]}
    >>> data = OutputData.from_columns([[0.0], [1.0], [2.0]], y)
    >>> data
    OutputData(3 rows, 1 features, outputs mood (2 classes), hours (real))
    >>> data.y["mood"].tolist(), data.known["mood"].tolist()
    ([1, 0, 0], [True, False, True])
    """

    x: Tensor
    y: Mapping[str, Tensor] | None
    known: Mapping[str, Tensor]
    classes: Mapping[str, tuple[Hashable, ...] | None]

    def __repr__(self) -> str:
        kinds = (
            f"{name} ({'real' if labels is None else f'{len(labels)} classes'})"
            for name, labels in self.classes.items()
        )
        return (
            f"OutputData({self.num_rows} rows, {self.num_features} features, outputs "
            f"{', '.join(kinds)})"
        )

    @classmethod
    def from_columns(
        cls,
        X: Any,
        y: Mapping[str, Any],
        *,
        kinds: Mapping[str, OutputKind] | None = None,
        classes: Mapping[str, Sequence[Hashable] | None] | None = None,
    ) -> OutputData:
        """Create rows from features and a column for each output.

        Parameters
        ----------
        X
            (rows, F), features.
        y
            Columns (rows,) by name, such as a data frame; None or NaN where a value is missing.
        kinds
            ``"classes"`` or ``"real"`` for each output; by default numbers with fractions are
            real, and all else are classes.
        classes
            All classes of outputs in the wanted order; by default those found, sorted.

        Raises
        ------
        ValueError
            If lengths disagree, a number is not finite, an output has no value, or one class only.
        """
        x = _features(X)
        columns = {str(name): _column(values, str(name), len(x)) for name, values in y.items()}
        if not columns:
            raise ValueError("y has no columns, expected one for each output.")
        given, wanted = dict(kinds or {}), dict(classes or {})
        found: dict[str, tuple[Hashable, ...] | None] = {}
        for name, column in columns.items():
            present = [value for value in column if not _is_missing(value)]
            if not present:
                raise ValueError(f"Output {name!r} has no value in any row. Leave it out.")
            kind = given.get(name) or ("real" if any(map(_has_fraction, present)) else "classes")
            if kind not in get_args(OutputKind):
                raise ValueError(
                    f"The kind of output {name!r} is {kind!r}, expected 'classes' or 'real'."
                )
            labels = wanted.get(name) or (sorted_unique(present) if kind == "classes" else None)
            if labels is not None and len(labels) < 2:
                raise ValueError(
                    f"Output {name!r} has one class, {labels[0]!r}, in all rows, expected at least "
                    "2 classes. Leave it out: there is nothing to learn."
                )
            found[name] = None if labels is None else tuple(labels)
        return cls(x, *_encode(columns, found, x), found)

    def new_rows(self, X: Any, y: Mapping[str, Any] | None = None) -> OutputData:
        """Create other rows of the same outputs, to predict or to test.

        Parameters
        ----------
        X
            (rows, F), features.
        y
            Columns of outputs, of some or all; None or NaN where a value is not known. None if
            none is.

        Raises
        ------
        ValueError
            If there is another number of features, an unknown output or an unknown class.
        """
        x = _features(X).to(self.x)
        if x.shape[1] != self.num_features:
            raise ValueError(
                f"X has {x.shape[1]} columns, expected {self.num_features} as in the training rows."
            )
        columns = {str(name): _column(v, str(name), len(x)) for name, v in (y or {}).items()}
        for name in columns:
            if name not in self.classes:
                raise ValueError(
                    f"There is no output {name!r}, expected some of {[*self.classes]}."
                )
        missing = np.full(len(x), None, dtype=object)
        every = {name: columns.get(name, missing) for name in self.classes}
        values, known = _encode(every, self.classes, x)
        return replace(self, x=x, y=None if y is None else values, known=known)

    @property
    def num_rows(self) -> int:
        """N, the number of rows."""
        return len(self.x)

    @property
    def num_features(self) -> int:
        """F, the number of features."""
        return self.x.shape[1]

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers that say what an output is: one for each of three or more classes, else 1."""
        return {
            name: 1 if labels is None or len(labels) == 2 else len(labels)
            for name, labels in self.classes.items()
        }

    def known_means(self) -> dict[str, Tensor]:
        """Return what is known as means, (N, size), NaN where it is not, of outputs with any."""
        found: dict[str, Tensor] = {}
        for name, y in (self.y or {}).items():
            if self.known[name].any():
                size = self.sizes[name]
                means = torch.nn.functional.one_hot(y, size) if size > 1 else y[:, None]
                missing = ~self.known[name][:, None]
                found[name] = means.to(self.x).masked_fill(missing, torch.nan)
        return found


def _features(X: Any) -> Tensor:
    x = read_real(X, "X", ndim=2)
    bad = (~torch.isfinite(x)).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise ValueError(
            f"X has {x[row, column].item()} in row {row}, column {column}, expected a finite "
            "number. Impute or drop it."
        )
    return x


def _column(values: Any, name: str, num_rows: int) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = values.tolist() if hasattr(values, "tolist") else list(values)
    if len(column) != num_rows:
        raise ValueError(f"Output {name!r} has {len(column)} rows, expected {num_rows} as X has.")
    return column


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType") or value != value


def _has_fraction(value: Any) -> bool:
    return isinstance(value, float) and not value.is_integer()


def _encode(
    columns: Mapping[str, np.ndarray], classes: Mapping[str, Any], x: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return values, 0 where they are missing, and whether they are known."""
    values, known = {}, {}
    for name, column in columns.items():
        present = np.array([not _is_missing(value) for value in column], dtype=bool)
        known[name] = torch.from_numpy(present)
        labels = classes[name]
        index = None if labels is None else {label: i for i, label in enumerate(labels)}
        numbers = np.zeros(len(column))
        for row in np.flatnonzero(present):
            if index is None:
                numbers[row] = _to_number(column[row], name, int(row))
            elif column[row] in index:
                numbers[row] = index[column[row]]
            else:
                raise ValueError(
                    f"Output {name!r} has class {column[row]!r} in row {row}, expected one of "
                    f"{list(labels)}. Correct it, or fit again."
                )
        tensor = torch.from_numpy(numbers)
        values[name] = tensor.to(x) if index is None else tensor.long()
    return values, known


def _to_number(value: Any, name: str, row: int) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise ValueError(
            f"Output {name!r} has {value!r} in row {row}, expected a finite number. Leave it empty "
            "where it is missing."
        )
    return number
