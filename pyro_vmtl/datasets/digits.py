"""Scikit-learn's handwritten digits, with rotations as tasks or the angle as target."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from pyro_vmtl.datasets.angles import angle_split
from pyro_vmtl.datasets.split import DataSet, Split

__all__ = ["TWO_GROUPS", "Digits", "DigitsAngle", "rotated_digits"]

TWO_GROUPS = (0, 10, 20, 90, 100, 110)
"""Angles in degrees of six tasks: two groups of three, each within 20 degrees."""

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
        images, digits, rng, train, test = _halves(seed, validation=validation)
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


def rotated_digits(
    angles: Sequence[float] = TWO_GROUPS,
    *,
    percent: float = 3.0,
    seed: int = 0,
    validation: bool = False,
) -> Split:
    """Load scikit-learn's handwritten digits, one task for each angle they are rotated by.

    Half of the images, stratified by class, are test images in every task. From the other
    half each task draws its own training images. A test image of any task is thus a training
    image of none; otherwise sharing would leak labels between tasks.

    Parameters
    ----------
    angles
        Angles in degrees; they are the labels of the tasks.
    percent
        Training images of each task, in percent of the images of each class.
    seed
        Seed of the split.
    validation
        Whether to hold 40 % of the training half out and return these as the test rows, to choose
        settings on.

    Returns
    -------
    Split
        Pixels as features, from 0 to 1, 64 in a row.

    Notes
    -----
    The images are the test set of the Optical Recognition of Handwritten Digits data (Alpaydin and
    Kaynak 1998, UCI repository, CC BY 4.0): 1,797 images of 8 x 8 pixels, embedded in scikit-learn.

    Examples
    --------
    >>> split = rotated_digits([0, 90], percent=3)
    >>> split.X_train.shape, split.X_test.shape
    ((100, 64), (1798, 64))
    """
    from scipy.ndimage import rotate

    images, classes, rng, train, test = _halves(seed, validation=validation)
    images = images / 16.0
    rows_train, rows_test, X_train, X_test = [], [], [], []
    for angle in angles:
        rotated = rotate(images, angle, axes=(2, 1), reshape=False, order=1)
        rotated = rotated.reshape(len(images), -1)
        drawn = np.concatenate(
            [
                rng.choice(
                    train[classes[train] == c],
                    round(percent / 100 * np.sum(classes == c)),
                    replace=False,
                )
                for c in range(10)
            ]
        )
        rows_train.append(drawn)
        rows_test.append(test)
        X_train.append(rotated[drawn])
        X_test.append(rotated[test])

    origin_train, origin_test = np.concatenate(rows_train), np.concatenate(rows_test)
    return Split(
        X_train=np.concatenate(X_train),
        y_train=classes[origin_train],
        tasks_train=[a for a, rows in zip(angles, rows_train, strict=True) for _ in rows],
        origin_train=origin_train,
        X_test=np.concatenate(X_test),
        y_test=classes[origin_test],
        tasks_test=[a for a, rows in zip(angles, rows_test, strict=True) for _ in rows],
        origin_test=origin_test,
    )


def _halves(
    seed: int, *, validation: bool
) -> tuple[np.ndarray, np.ndarray, np.random.RandomState, np.ndarray, np.ndarray]:
    """Return images, digits, the generator, and the indices of training and test images."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    rng = np.random.RandomState(seed)
    train, test = train_test_split(
        np.arange(len(digits.target)), test_size=0.5, stratify=digits.target, random_state=rng
    )
    if validation:
        train, test = train_test_split(
            train, test_size=0.4, stratify=digits.target[train], random_state=rng
        )
    return digits.images, digits.target, rng, train, test
