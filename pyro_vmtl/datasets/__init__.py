"""Real data sets, split into training and test rows."""

from pyro_vmtl.datasets.digits import TWO_GROUPS, Digits, DigitsAngle, rotated_digits
from pyro_vmtl.datasets.mnist import RotatedMNIST
from pyro_vmtl.datasets.office_caltech import OfficeCaltech
from pyro_vmtl.datasets.school import School
from pyro_vmtl.datasets.split import DataSet, Split
from pyro_vmtl.datasets.suite import SUITE
from pyro_vmtl.datasets.synthetic import GroupedTasks

__all__ = [
    "DATA_SETS",
    "SUITE",
    "TWO_GROUPS",
    "DataSet",
    "Digits",
    "DigitsAngle",
    "GroupedTasks",
    "OfficeCaltech",
    "RotatedMNIST",
    "School",
    "Split",
    "rotated_digits",
]

DATA_SETS: dict[str, type[DataSet]] = {
    data_set.name: data_set
    for data_set in (Digits, DigitsAngle, GroupedTasks, OfficeCaltech, RotatedMNIST, School)
}
"""The data sets by the name that the command line calls them."""
