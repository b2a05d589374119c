"""School: examination scores in 139 London schools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from benchmarks.datasets.files import DataSetOnDisk, data_file
from pyro_vmtl.datasets import Split

__all__ = ["School"]


@dataclass(frozen=True)
class School(DataSetOnDisk):
    """Examination scores of 15,362 students, one task for each of 139 schools.

    Notes
    -----
    27 features, scaled to mean 0 and standard deviation 1 over the training rows of all schools.
    The ten published splits train on about three quarters of each school.
    """

    name: ClassVar[str] = "school"
    kind: ClassVar[Literal["regression"]] = "regression"
    provenance: ClassVar[str] = (
        "Inner London Education Authority, examination records of 1985 to 1987 (Goldstein, The "
        "Statistician 1991); the ten splits of Argyriou, Evgeniou and Pontil (2008)"
    )
    licence: ClassVar[str] = "unstated by the authors; for research, not to be passed on"
    files: ClassVar[dict[str, str]] = {
        "school/school_b.mat": "973f1ca99d0d41a838ec6ae86001a48e7b69391eb74646b9e4fc54f62866a146",
        **{
            f"school/school_{number}_indexes.mat": checksum
            for number, checksum in enumerate(
                (
                    "030c9ca0a73d6264aa1eeac49aba1d760a1b5692cd3124667e74a7a2b7751bc5",
                    "63d3a076a4cdd3de81825d3cf0c030b93bdc60e912eaed4763ee224efab163f8",
                    "f7f68e3adb50db8094e230c2b83d548790379cd93ad98fadb35ff2999762dbe6",
                    "02643928224056a61e25dec8d4841dba5195ed9affdc76fdc697854a2506d142",
                    "6ed00a453d582dce4397f6f49120cff803c22f53cfb2dd63a3826c359c24bcdf",
                    "ca853babe5b7f0f5812e7f4261f8b5e5728f1b3b06711e56a76b27b7f959f379",
                    "b72105509c70f94f48c7c8b0e1359c6c0ea630c7ac588337b412f946ede62283",
                    "8ad60073b135220f1a6f49fdd79b4430b6a0c8ce9925a22dcc5a09141f5b1c04",
                    "0de74247d93c413b690ebb65e2e7beb1c55f05b2a2d5db46469e673a552cccf2",
                    "b408742eab66cd124563493057b080fd39e5075f48b4c391c53e5f6a1a4c8df1",
                ),
                start=1,
            )
        },
    }
    num_splits: ClassVar[int] = 10

    def split(self, seed: int, *, validation: bool = False) -> Split:
        """Return the rows of one published split, by its number from 0 to 9.

        With ``validation`` a quarter of its training rows are the test rows.
        """
        from scipy.io import loadmat

        if not 0 <= seed < self.num_splits:
            raise ValueError(f"seed is {seed}, expected 0 to 9: School has ten published splits.")
        file = loadmat(data_file("school/school_b.mat"))
        rows = loadmat(data_file(f"school/school_{seed + 1}_indexes.mat"))
        train, test = (rows[part].ravel().astype(int) - 1 for part in ("tr", "tst"))
        if validation:
            train = np.random.RandomState(seed).permutation(train)
            test, train = train[: len(train) // 4], train[len(train) // 4 :]
        X, y = file["x"].T[:, :-1].astype(np.float64), file["y"].ravel().astype(np.float64)
        starts = file["task_indexes"].ravel().astype(int) - 1
        school = 1 + np.searchsorted(starts, np.arange(len(X)), side="right") - 1
        spread = X[train].std(axis=0)
        X = (X - X[train].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        train, test = np.sort(train), np.sort(test)  # schools in order, as their tables
        return Split(
            X_train=X[train],
            y_train=y[train],
            tasks_train=school[train].tolist(),
            origin_train=train,
            X_test=X[test],
            y_test=y[test],
            tasks_test=school[test].tolist(),
            origin_test=test,
        )
