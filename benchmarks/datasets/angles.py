"""Regression of the angle by which images are rotated."""

from __future__ import annotations

import numpy as np

from pyro_vmtl.datasets import Split

__all__ = ["angle_split"]

LARGEST = 90.0
"""Largest angle, in degrees."""

Images = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Images (n, side, side), their digits, and the indices of their originals."""


def angle_split(train: Images, test: Images, rng: np.random.RandomState) -> Split:
    """Rotate every image once, by a random angle.

    Parameters
    ----------
    train, test
        Images, digits, which are the labels of the tasks, and originals.
    rng
        Random state of the angles, uniform from 0 to 90 degrees.

    Returns
    -------
    Split
        Pixels as features, from 0 to 1 and centred at the mean training image, and angles in
        degrees as targets.
    """
    X_train, y_train = _turned(train[0], rng)
    X_test, y_test = _turned(test[0], rng)
    centre = X_train.mean(axis=0)
    return Split(
        X_train=X_train - centre,
        y_train=y_train,
        tasks_train=train[1].tolist(),
        origin_train=train[2],
        X_test=X_test - centre,
        y_test=y_test,
        tasks_test=test[1].tolist(),
        origin_test=test[2],
    )


def _turned(images: np.ndarray, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Rotate each image, and return pixels from 0 to 1 and angles."""
    from scipy.ndimage import rotate

    angles = rng.uniform(0, LARGEST, len(images))
    white = 255.0 if images.dtype == np.uint8 else 16.0
    turned = [
        rotate(image / white, angle, reshape=False, order=1).ravel()
        for image, angle in zip(images, angles, strict=True)
    ]
    return np.stack(turned), angles
