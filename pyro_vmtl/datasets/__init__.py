"""Example data sets, split into training and test rows; they need no download."""

from pyro_vmtl.datasets.digits import TWO_GROUPS, Digits, DigitsAngle, rotated_digits
from pyro_vmtl.datasets.split import DataSet, Split

__all__ = ["TWO_GROUPS", "DataSet", "Digits", "DigitsAngle", "Split", "rotated_digits"]
