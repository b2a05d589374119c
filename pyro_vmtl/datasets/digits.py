"""Scikit-learn's handwritten digits, one task for each angle they are rotated by."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["TWO_GROUPS", "Split", "rotated_digits", "split_images"]

TWO_GROUPS = (0, 10, 20, 90, 100, 110)
"""Angles in degrees of six tasks: two groups of three, each within 20 degrees."""


@dataclass(frozen=True, eq=False)
class Split:
    """Training and test rows of several tasks; no original of a row is on both sides.

    Examples
    --------
    >>> from pyro_vmtl.datasets import rotated_digits
    >>> split = rotated_digits()
    >>> len(split.y_train) == len(split.tasks_train)
    True
    """

    X_train: np.ndarray
    y_train: np.ndarray
    tasks_train: list[Hashable]
    origin_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    tasks_test: list[Hashable]
    origin_test: np.ndarray


def rotated_digits(
    angles: Sequence[float] = TWO_GROUPS,
    *,
    percent: float = 3.0,
    seed: int = 0,
    validation: bool = False,
) -> Split:
    """Load scikit-learn's handwritten digits, one task for each angle they are rotated by.

    Half of the images, stratified by class, are test images in every task; from the other half
    each task draws its own training images. Otherwise sharing would leak labels between tasks.

    Angles in degrees are the labels of the tasks; 64 pixels from 0 to 1 are the features. Each task
    has ``percent`` of the images of each class. For ``validation``, 40 % of the training half are
    the test rows.

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

    images, classes, rng, train, test = split_images(seed, validation=validation)
    counts = [round(percent / 100 * n) for n in np.bincount(classes)]
    drawn, X_train, X_test = [], [], []
    for angle in angles:
        rotated = rotate(images / 16.0, angle, axes=(2, 1), reshape=False, order=1)
        rotated = rotated.reshape(len(images), -1)
        rows = [
            rng.choice(train[classes[train] == c], count, replace=False)
            for c, count in enumerate(counts)
        ]
        drawn.append(np.concatenate(rows))
        X_train.append(rotated[drawn[-1]])
        X_test.append(rotated[test])

    origin_train, origin_test = np.concatenate(drawn), np.tile(test, len(angles))
    return Split(
        X_train=np.concatenate(X_train),
        y_train=classes[origin_train],
        tasks_train=[a for a, rows in zip(angles, drawn, strict=True) for _ in rows],
        origin_train=origin_train,
        X_test=np.concatenate(X_test),
        y_test=classes[origin_test],
        tasks_test=[angle for angle in angles for _ in test],
        origin_test=origin_test,
    )


def split_images(
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
