"""Rotated MNIST: how far is a digit turned? One task for each digit."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from benchmarks.datasets.angles import angle_split
from benchmarks.datasets.files import DataSetOnDisk, data_file
from pyro_vmtl.datasets import Split

__all__ = ["RotatedMNIST"]


@dataclass(frozen=True)
class RotatedMNIST(DataSetOnDisk):
    """MNIST digits turned by an angle from 0 to 90 degrees, which is the target.

    Parameters
    ----------
    rows
        Training images of each digit, drawn from MNIST's training images.
    test_rows
        Test images of each digit, drawn from MNIST's test images; with ``validation`` from the
        training images that are not trained on.

    Notes
    -----
    784 pixels from 0 to 1, centred at the mean of the training images.
    """

    rows: int = 20
    test_rows: int = 200

    name: ClassVar[str] = "rotated-mnist"
    kind: ClassVar[Literal["regression"]] = "regression"
    provenance: ClassVar[str] = "LeCun, Cortes and Burges, the MNIST database, four IDX files"
    licence: ClassVar[str] = "CC BY-SA 3.0"
    files: ClassVar[dict[str, str]] = {
        "mnist/train-images-idx3-ubyte.gz": (
            "7ff28fd295f802eefc6d40e461175dfe4b969b1842b2abc8c6dc8c20711cf79f"
        ),
        "mnist/train-labels-idx1-ubyte.gz": (
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
        ),
        "mnist/t10k-images-idx3-ubyte.gz": (
            "a099c5cbed9005941904202c3dc1fea19ea68d1bbbdfb713a7a390d877d62432"
        ),
        "mnist/t10k-labels-idx1-ubyte.gz": (
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
        ),
    }

    def __post_init__(self) -> None:
        """Check the settings."""
        for name, rows in (("rows", self.rows), ("test_rows", self.test_rows)):
            if rows < 1:
                raise ValueError(f"{name} is {rows}, expected at least 1.")

    def split(self, seed: int, *, validation: bool = False) -> Split:
        """Return the rows of one split."""
        train_images, train_digits = _read("train")
        test_images, test_digits = (train_images, train_digits) if validation else _read("t10k")
        rng = np.random.RandomState(seed)
        train, test = [], []
        for digit in range(10):
            members = rng.permutation(np.flatnonzero(train_digits == digit))
            if self.rows >= len(members):
                raise ValueError(f"rows is {self.rows}, expected below {len(members)} of {digit}.")
            train.append(members[: self.rows])
            others = (
                members[self.rows :]
                if validation
                else rng.permutation(np.flatnonzero(test_digits == digit))
            )
            test.append(others[: self.test_rows])
        train_rows, test_rows = np.concatenate(train), np.concatenate(test)
        shift = 0 if validation else len(train_images)  # the two files count their images anew
        return angle_split(
            (train_images[train_rows], train_digits[train_rows], train_rows),
            (test_images[test_rows], test_digits[test_rows], shift + test_rows),
            rng,
        )


def _read(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Read images from 0 to 1 and their digits from IDX files, which have headers of 16 and 8."""
    with gzip.open(data_file(f"mnist/{part}-images-idx3-ubyte.gz")) as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(data_file(f"mnist/{part}-labels-idx1-ubyte.gz")) as file:
        digits = np.frombuffer(file.read(), np.uint8, offset=8)
    return images, digits
