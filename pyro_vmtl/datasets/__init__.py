"""Example data: tables of many groups, and digits in split tasks; none needs a download."""

from pyro_vmtl.datasets.digits import TWO_GROUPS, Split, rotated_digits
from pyro_vmtl.datasets.tables import contraception, eight_schools, exam_scores, radon, sleepstudy

__all__ = [
    "TWO_GROUPS",
    "Split",
    "contraception",
    "eight_schools",
    "exam_scores",
    "radon",
    "rotated_digits",
    "sleepstudy",
]
