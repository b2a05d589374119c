"""What every data set gives: splits, and where it comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from pyro_vmtl.datasets.files import check_files

__all__ = ["DataSet", "Split"]


@dataclass(frozen=True, eq=False)
class Split:
    """Training and test rows of several tasks.

    Attributes
    ----------
    X_train, X_test
        (rows, F), features.
    y_train, y_test
        (rows,), targets.
    tasks_train, tasks_test
        (rows,), the user's label of the task each row belongs to.
    origin_train, origin_test
        (rows,), the original each row was made from. No original is on both sides.
    """

    X_train: np.ndarray
    y_train: np.ndarray
    tasks_train: list[Hashable]
    origin_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    tasks_test: list[Hashable]
    origin_test: np.ndarray


class DataSet(ABC):
    """A data set that benchmarks run on.

    Attributes
    ----------
    name
        how the command line calls it.
    kind
        what the targets are.
    provenance, licence
        where it comes from, and what may be done with it.
    files
        for each file below ``PYRO_VMTL_DATA`` its SHA-256; empty if the data are embedded.
    num_splits
        how many splits are published; None where each seed makes one.
    """

    name: ClassVar[str]
    kind: ClassVar[Literal["classification", "regression"]]
    provenance: ClassVar[str]
    licence: ClassVar[str]
    files: ClassVar[Mapping[str, str]] = {}
    num_splits: ClassVar[int | None] = None

    def check(self) -> None:
        """Check that the files are there and are the right ones.

        Raises
        ------
        FileNotFoundError
            If a file is missing; it says which, and how to get it.
        ValueError
            If a file is another one.
        """
        check_files(self.files, needed_by=self.name, provenance=self.provenance)

    @abstractmethod
    def split(self, seed: int, *, validation: bool = False) -> Split:
        """Give the rows of one split, features ready to be fitted.

        Parameters
        ----------
        seed
            Seed of the split, or number of the published one, from 0.
        validation
            Give other rows in place of the test rows, to choose settings on: rows that are no test
            rows, where the set is large enough to keep those back.
        """

    def split_label(self, seed: int) -> str:
        """Tell published splits by their number from those that a seed makes."""
        return "random" if self.num_splits is None else f"published {seed + 1}"
