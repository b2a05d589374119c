"""Real data sets, split into training and test rows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Split", "rotated_digits"]

TWO_GROUPS = (0, 10, 20, 90, 100, 110)
"""Angles in degrees of six tasks: two groups of three, each within 20 degrees."""


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


def rotated_digits(
    angles: Sequence[float] = TWO_GROUPS,
    *,
    percent: float = 3.0,
    seed: int = 0,
    validation: bool = False,
) -> Split:
    """Scikit-learn's handwritten digits, one task for each angle they are rotated by.

    Half of the images, stratified by class, are only ever tested, in every task. From the other
    half each task draws its own training images. An image tested in any task is thus trained on in
    none; else sharing would read the answer from another task.

    Parameters
    ----------
    angles
        Angles in degrees; they are the labels of the tasks.
    percent
        Training images of each task, in percent of the images of each class.
    seed
        Seed of the split.
    validation
        Hold 40 % of the training half out and give these as the test rows, to choose settings on
        without a look at the real ones.

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
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images, classes = digits.images / 16.0, digits.target
    rng = np.random.RandomState(seed)
    train, test = train_test_split(
        np.arange(len(classes)), test_size=0.5, stratify=classes, random_state=rng
    )
    if validation:
        train, test = train_test_split(
            train, test_size=0.4, stratify=classes[train], random_state=rng
        )

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
                for c in digits.target_names
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
