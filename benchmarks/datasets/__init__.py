"""Data sets that only benchmarks use: those on disk, synthetic ones, and the suite of all."""

from benchmarks.datasets.curves import Curves
from benchmarks.datasets.data_set import DataSet
from benchmarks.datasets.digits import Digits, DigitsAngle
from benchmarks.datasets.mnist import RotatedMNIST
from benchmarks.datasets.office_caltech import OfficeCaltech
from benchmarks.datasets.random_slopes import RandomSlopes
from benchmarks.datasets.school import School
from benchmarks.datasets.suite import SUITE
from benchmarks.datasets.synthetic import GroupedTasks
from benchmarks.datasets.tables import GroupedTable

__all__ = [
    "DATA_SETS",
    "SUITE",
    "Curves",
    "GroupedTable",
    "GroupedTasks",
    "OfficeCaltech",
    "RandomSlopes",
    "RotatedMNIST",
    "School",
]

DATA_SETS: dict[str, type[DataSet]] = {
    data_set.name: data_set
    for data_set in (
        *(Digits, DigitsAngle, Curves, GroupedTable, GroupedTasks, OfficeCaltech, RandomSlopes),
        *(RotatedMNIST, School),
    )
}
"""The data sets by their names on the command line."""
