"""Office-Caltech10: the same ten classes of objects in four collections of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from benchmarks.datasets.files import DataSetOnDisk, data_file
from pyro_vmtl.datasets import Split

__all__ = ["OfficeCaltech"]

DOMAINS = ("amazon", "caltech10", "dslr", "webcam")
FEATURES = {
    "effnet": "office_caltech10/effnet_lite0_1280_fp16.npz",
    "surf": "office_caltech10/surf_800.npz",
}
LISTS = "office_caltech10/mrn_splits_rows.npz"


@dataclass(frozen=True)
class OfficeCaltech(DataSetOnDisk):
    """Office-Caltech10, one task for each of the four collections.

    Parameters
    ----------
    percent
        Training images of each task, in percent of the images of each class, at least one.
    features
        ``"effnet"``, 1,280 numbers of an EfficientNet-Lite0 trained on ImageNet, or ``"surf"``,
        counts of 800 visual words.
    lists
        ``"random"``, a new draw for each seed, or ``"mrn"``, the published lists of 5, 10 or 20
        percent. Those repeat images; repeats are dropped, as a row that counts twice would be
        surer than it is.

    Notes
    -----
    Features are centred at the mean of all training images and scaled to length 1. Some images
    are in the set twice: 4 to 11 test images of a split are also trained on.
    """

    percent: float = 5.0
    features: Literal["effnet", "surf"] = "effnet"
    lists: Literal["random", "mrn"] = "random"

    name: ClassVar[str] = "office-caltech"
    kind: ClassVar[Literal["classification"]] = "classification"
    provenance: ClassVar[str] = (
        "images of Gong, Shi, Sha and Grauman (CVPR 2012); lists of Long, Cao, Wang and Yu (MRN, "
        "NeurIPS 2017); features computed from the images"
    )
    licence: ClassVar[str] = "unstated by the authors; for research, not to be passed on"
    files: ClassVar[dict[str, str]] = {
        FEATURES["effnet"]: "5f1519f207d10f0176faa99cce03633b1cdd03f0e5c0cf8b2e1ebae86290b623",
        FEATURES["surf"]: "a4b9d77536ae07810550d0228ee1b568732041890df09726abc012028f0e2611",
        LISTS: "c8a6feede1562ef185f5cf6558779916e176ba6e4809187156cb3857d684f496",
    }

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.features not in FEATURES:
            raise ValueError(f"features is {self.features!r}, expected 'effnet' or 'surf'.")
        if self.lists not in ("random", "mrn"):
            raise ValueError(f"lists is {self.lists!r}, expected 'random' or 'mrn'.")
        if self.lists == "mrn" and self.percent not in (5, 10, 20):
            raise ValueError(f"percent is {self.percent}, expected 5, 10 or 20 with the MRN lists.")
        if not 0 < self.percent < 50:
            raise ValueError(f"percent is {self.percent}, expected above 0 and below 50.")

    def split(self, seed: int, *, validation: bool = False) -> Split:
        """Return the rows of one split.

        With ``validation`` as many images again as are trained on are drawn as test rows, from
        those that are not trained on. There are too few to keep any back for good: choose settings
        with other seeds than those reported. With the published lists they are half of the
        training images.
        """
        arrays = np.load(data_file(FEATURES[self.features]))
        rng = np.random.RandomState(seed)
        X, y, tasks, train, test = [], [], [], [], []
        first = 0
        for domain in DOMAINS:
            labels = arrays[f"{domain}_y"].astype(int)
            chosen, others = self._rows(domain, labels, rng, validation=validation)
            X.append(arrays[f"{domain}_X"].astype(np.float64))
            y.append(labels)
            tasks += [domain] * len(labels)
            train.append(first + chosen)
            test.append(first + others)
            first += len(labels)
        classes = np.load(data_file(FEATURES["effnet"]))["classes"]
        X_all, labels = np.concatenate(X), classes[np.concatenate(y) - 1]
        train_rows, test_rows = np.concatenate(train), np.concatenate(test)
        X_all = X_all - X_all[train_rows].mean(axis=0)
        X_all /= np.linalg.norm(X_all, axis=1, keepdims=True)
        return Split(
            X_train=X_all[train_rows],
            y_train=labels[train_rows],
            tasks_train=[tasks[row] for row in train_rows],
            origin_train=train_rows,
            X_test=X_all[test_rows],
            y_test=labels[test_rows],
            tasks_test=[tasks[row] for row in test_rows],
            origin_test=test_rows,
        )

    def split_label(self, seed: int) -> str:
        """Return the name of the published lists, the same for all seeds, or "random"."""
        return self.lists if self.lists == "random" else f"mrn {self.percent:g} %"

    def _rows(
        self, domain: str, labels: np.ndarray, rng: np.random.RandomState, *, validation: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose the training and test rows of one task."""
        if self.lists == "mrn":
            lists = np.load(data_file(LISTS))
            chosen = np.unique(lists[f"{domain}_train_{self.percent:g}"])
            others = lists[f"{domain}_test_{self.percent:g}"].astype(int)
            if validation:
                chosen = rng.permutation(chosen)
                chosen, others = np.array_split(chosen, 2)
            return chosen, others
        trained, held_out = [], []
        for label in np.unique(labels):
            members = rng.permutation(np.flatnonzero(labels == label))
            count = max(1, round(self.percent / 100 * len(members)))
            trained.append(members[:count])
            held_out.append(members[count : 2 * count] if validation else members[count:])
        return np.concatenate(trained), np.concatenate(held_out)
