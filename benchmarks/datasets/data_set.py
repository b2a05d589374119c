"""The interface of data sets: splits into training and test rows, and their provenance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np

from pyro_vmtl.datasets import Split

__all__ = ["DataSet", "split_rows"]


class DataSet(ABC):
    """A data set that benchmarks run on.

    Attributes
    ----------
    name
        name on the command line.
    kind
        what the targets are; for some data sets it depends on an option.
    provenance, licence
        origin and terms of use.
    num_splits
        number of published splits; None where each seed makes one.
    """

    name: ClassVar[str]
    kind: Literal["classification", "regression", "counts"]
    provenance: ClassVar[str]
    licence: ClassVar[str]
    num_splits: ClassVar[int | None] = None

    def check(self) -> None:  # noqa: B027, nothing to check by default
        """Check that the data are available; embedded data always are."""

    @abstractmethod
    def split(self, seed: int, *, validation: bool = False) -> Split:
        """Return the rows of one split, with features ready to be fitted.

        Parameters
        ----------
        seed
            Seed of the split, or number of the published one, from 0.
        validation
            Whether to return validation rows in place of the test rows, to choose settings on. They
            are never test rows, where the data set is large enough.
        """

    def split_label(self, seed: int) -> str:
        """Return the name of a split: its number, or "random" where seeds make them."""
        return "random" if self.num_splits is None else f"published {seed + 1}"


def split_rows(x: np.ndarray, y: np.ndarray, num_train: int) -> Split:
    """Train on the first rows of each task, of features (T, N, F) and targets (T, N)."""
    task = np.repeat(np.arange(len(y)), y.shape[1]).reshape(y.shape)
    origin = np.arange(y.size).reshape(y.shape)
    parts = slice(None, num_train), slice(num_train, None)
    (X, X_new), (y_train, y_test), (of_train, of_test), (rows, new) = (
        [values[:, part].reshape(-1, *values.shape[2:]) for part in parts]
        for values in (x, y, task, origin)
    )
    return Split(X, y_train, [*of_train.tolist()], rows, X_new, y_test, [*of_test.tolist()], new)
