"""Scikit-learn's handwritten digits, with rotations as tasks or the angle as target."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from benchmarks.datasets.angles import angle_split
from benchmarks.datasets.data_set import DataSet
from pyro_vmtl.datasets.digits import TWO_GROUPS, Split, rotated_digits, split_images

__all__ = ["Digits", "DigitsAngle"]

PROVENANCE = (
    "test set of the Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998, UCI "
    "repository), embedded in scikit-learn"
)


@dataclass(frozen=True)
class Digits(DataSet):
    """The digits, one task for each angle they are rotated by; see :func:`rotated_digits`.

    Parameters
    ----------
    percent
        Training images of each task, in percent of the images of each class.
    angles
        Angles in degrees.
    permuted
        Angles whose classes are permuted, each by another permutation, the same for all seeds:
        such a task has next to nothing to learn from others.

    Notes
    -----
    64 pixels from 0 to 1, centred at the mean of the training images.
    """

    percent: float = 3.0
    angles: tuple[float, ...] = TWO_GROUPS
    permuted: tuple[float, ...] = ()

    name: ClassVar[str] = "digits"
    kind: ClassVar[Literal["classification"]] = "classification"
    provenance: ClassVar[str] = PROVENANCE
    licence: ClassVar[str] = "CC BY 4.0"

    def __post_init__(self) -> None:
        """Check the settings."""
        # half of the images are for tests, and 40 % of the others for validation
        if not 0 < self.percent <= 25:
            raise ValueError(f"percent is {self.percent}, expected above 0 and at most 25.")
        if strange := set(self.permuted) - set(self.angles):
            raise ValueError(f"permuted has {sorted(strange)}, expected some of {self.angles}.")

    def split(self, seed: int, *, validation: bool = False) -> Split:
        """Return the rows of one split; the validation rows are 40 % of the training half."""
        split = rotated_digits(self.angles, percent=self.percent, seed=seed, validation=validation)
        centre = split.X_train.mean(axis=0)
        return replace(
            split,
            X_train=split.X_train - centre,
            X_test=split.X_test - centre,
            y_train=self._permute(split.y_train, split.tasks_train),
            y_test=self._permute(split.y_test, split.tasks_test),
        )

    def _permute(self, y: np.ndarray, tasks: Sequence[Hashable]) -> np.ndarray:
        """Rename the classes of the permuted tasks."""
        rng = np.random.RandomState(0)
        new: dict[Hashable, np.ndarray] = {a: rng.permutation(10) for a in self.permuted}
        same = np.arange(10)
        return np.array([new.get(task, same)[c] for c, task in zip(y, tasks, strict=True)])


@dataclass(frozen=True)
class DigitsAngle(DataSet):
    """The digits turned by an angle from 0 to 90 degrees, which is the target: ten tasks.

    Parameters
    ----------
    rows
        Number of training images of each digit. Half of the images are test images.

    Notes
    -----
    64 pixels from 0 to 1, centred at the mean of the training images. Each image is turned once.
    """

    rows: int = 20

    name: ClassVar[str] = "digits-angle"
    kind: ClassVar[Literal["regression"]] = "regression"
    provenance: ClassVar[str] = PROVENANCE
    licence: ClassVar[str] = "CC BY 4.0"

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.rows < 1:
            raise ValueError(f"rows is {self.rows}, expected at least 1.")

    def split(self, seed: int, *, validation: bool = False) -> Split:
        """Return the rows of one split; the validation rows are 40 % of the training half."""
        images, digits, rng, train, test = split_images(seed, validation=validation)
        fewest = np.bincount(digits[train]).min()
        if self.rows > fewest:
            raise ValueError(f"rows is {self.rows}, expected at most {fewest}.")
        train = np.concatenate(
            [rng.permutation(train[digits[train] == d])[: self.rows] for d in range(10)]
        )
        test = test[np.argsort(digits[test], kind="stable")]
        return angle_split(
            (images[train], digits[train], train), (images[test], digits[test], test), rng
        )
