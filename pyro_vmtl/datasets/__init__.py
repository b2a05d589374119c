"""Example data, split into training and test rows; they need no download."""

from pyro_vmtl.datasets.digits import TWO_GROUPS, Split, rotated_digits

__all__ = ["TWO_GROUPS", "Split", "rotated_digits"]
