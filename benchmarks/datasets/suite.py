"""All that a default is judged by: data sets of many kinds, each at several sizes."""

from __future__ import annotations

from benchmarks.datasets.data_set import DataSet
from benchmarks.datasets.digits import Digits, DigitsAngle
from benchmarks.datasets.mnist import RotatedMNIST
from benchmarks.datasets.office_caltech import OfficeCaltech
from benchmarks.datasets.school import School
from benchmarks.datasets.synthetic import GroupedTasks

__all__ = ["SUITE", "UNRELATED"]

FOUR_ANGLES = (0, 30, 60, 90)
TEN_ANGLES = tuple(range(0, 91, 10))

UNRELATED = Digits(percent=5, angles=(0, 10, 20, 30, 40, 50), permuted=(10, 30, 50))
"""Three related tasks and three strangers, in turn."""

SUITE: dict[str, tuple[DataSet, ...]] = {
    **{
        f"digits {name} {percent} %": (Digits(percent=percent, angles=angles),)
        for name, angles in {
            "4 angles": FOUR_ANGLES,
            "2 groups": Digits.angles,
            "10 angles": TEN_ANGLES,
        }.items()
        for percent in (3, 5, 10)
    },
    "digits unrelated 5 %": (UNRELATED,),
    **{
        f"office-caltech {features} {percent} %": (
            OfficeCaltech(percent=percent, features=features),
        )
        for features in ("effnet", "surf")
        for percent in (5, 10, 20)
    },
    **{
        f"office-caltech {features} lists": tuple(
            OfficeCaltech(percent=percent, features=features, lists="mrn")
            for percent in (5, 10, 20)
        )
        for features in ("effnet", "surf")
    },
    "school": (School(),),
    **{f"rotated-mnist {rows} rows": (RotatedMNIST(rows=rows),) for rows in (10, 20, 50)},
    **{f"digits-angle {rows} rows": (DigitsAngle(rows=rows),) for rows in (10, 20, 50)},
    **{
        f"synthetic {tasks} tasks": (GroupedTasks(tasks=tasks, groups=groups),)
        for tasks, groups in ((4, 2), (32, 4), (128, 8))
    },
}
"""The data sets of each row of the table. A row has several where each has but one split."""
