"""Targets and tasks from columns of a table, or an error that names column and row."""

import numpy as np
import pandas as pd
import pytest

from pyro_vmtl.cli.target import match_labels, read_target, read_tasks
from pyro_vmtl.cli.user_errors import InputError

ROWS = 30
TEXT = [f"pupil {i}" for i in range(ROWS)]
MIXED = ["12,5", "1 000", "n/a?", "$5", *map(str, range(ROWS - 4))]


DATES = ["2020-01-02", "3.4.2021", "3/14/21", "Jan 3, 2020", "3 March 2020", "2020-01-02T10:11"] * 5


def with_at(values, at, value):
    """The list with another value at one place."""
    values = list(values)
    values[at] = value
    return values


# id, column, kind, what the message must hold
BAD_TARGETS = [
    ("all missing", [None] * ROWS, None, "no value in any row"),
    ("dates", DATES, None, "'y', the target, holds dates"),
    ("timestamps", pd.date_range("2020", periods=ROWS), "regression", "holds dates"),
    ("lists", [[1]] * ROWS, None, "values of an unknown kind"),
    ("mostly numbers", MIXED, None, "'12,5' in row 2"),
    ("text for regression", ["a", "b"] * 15, "regression", "'a' in row 2, 'b' in row 3"),
    ("way out of it", ["a", "b"] * 15, "regression", "Or use --kind classification."),
    ("constant", [2.5] * ROWS, "regression", "is 2.5 in every row"),
    ("one class", ["a", None] * 15, None, "is a in every row, expected at least two classes"),
    ("infinite", with_at(np.arange(ROWS), 1, np.inf), "regression", "infinite value in row 3"),
    ("infinite, guessed", with_at(np.arange(ROWS) / 4, 1, np.inf), None, "infinite value in row 3"),
    ("infinite class", [1.5, np.inf] * 15, "classification", "infinite value in rows 3, 5"),
    ("fractions", np.arange(ROWS) // 2 / 4, "classification", "0.25 in row 4"),
    ("fractions, way out", np.arange(ROWS) // 2 / 4, "classification", "Use --kind regression"),
    ("each its class", range(ROWS), "classification", "30 classes in 30 rows"),
    ("ids", TEXT, None, "30 classes in 30 rows"),
    ("negative count", with_at(range(ROWS), 3, -1), "counts", "has -1 in row 5"),
    ("half a count", with_at(range(ROWS), 3, 0.5), "counts", "has 0.5 in row 5"),
    ("text count", ["a", "b"] * 15, "counts", "'a' in row 2"),
]


@pytest.mark.parametrize(
    ("values", "kind", "part"), [b[1:] for b in BAD_TARGETS], ids=[b[0] for b in BAD_TARGETS]
)
def test_bad_targets_are_told(values, kind, part):
    with pytest.raises(InputError) as error:
        read_target(pd.DataFrame({"y": values}), "y", kind)
    assert part in str(error.value)


@pytest.mark.parametrize(
    ("values", "kind", "first"),
    [
        (["b", "a"] * 15, "classification", "b"),
        (["007", "011"] * 15, "classification", "007"),
        ([True, False] * 15, "classification", True),
        ([0, 1] * 2, "classification", 0),
        ([0.0, 1.0, np.nan] * 2, "classification", 0),
        (list(range(6)) * 5, "classification", 0),
        (list(range(7)) * 4, "regression", 0.0),  # 7 classes in 28 < 35 rows
        (list(range(21)) * 9, "regression", 0.0),  # over 20
        ([0.5, 1.5] * 15, "regression", 0.5),
    ],
)
def test_the_kind_of_target_is_guessed_and_told(values, kind, first):
    target = read_target(pd.DataFrame({"y": values}), "y")
    assert target.kind == kind and target.notices[0].startswith(f"Column 'y' is taken for {kind}")
    assert ("--kind" in target.notices[0]) == (not isinstance(first, str))  # text has no other
    assert target.values[0] == first and type(target.values[0]) in (type(first), np.float64)


def test_missing_targets_stay_missing_and_are_counted():
    table = pd.DataFrame(
        {"y": pd.array([1, None, 0, 1], dtype="Int64"), "s": ["a", None, "b", "a"]}
    )
    classes = read_target(table, "y", "classification")
    assert classes.values.tolist() == [1, None, 0, 1] and "1 of 4 rows" in classes.notices[0]
    assert read_target(table, "s").values.tolist() == ["a", None, "b", "a"]
    for kind in ("regression", "counts"):
        values = read_target(table, "y", kind).values
        np.testing.assert_array_equal(values, [1, np.nan, 0, 1])


def test_a_constant_target_is_enough_to_evaluate():
    table = pd.DataFrame({"y": [1, 1]})
    assert read_target(table, "y", "classification", to_learn=False).values.tolist() == [1, 1]
    each = list(range(ROWS))  # few rows may be of as many classes
    found = read_target(pd.DataFrame({"y": each}), "y", "classification", to_learn=False)
    assert found.values.tolist() == each
    assert read_target(table, "y", "counts", to_learn=False).values.tolist() == [1.0, 1.0]


def test_halves_are_classes_if_asked_for():
    values = [0.5, 1.0, 1.5] * 10
    target = read_target(pd.DataFrame({"y": values}), "y", "classification")
    assert target.values.tolist() == values


def test_tasks_are_as_they_are_written():
    for written in (["007", "b"], [2**60 + 1, 7], [True, False]):
        labels = read_tasks(pd.DataFrame({"t": written}), "t")
        assert labels == written and [type(v) for v in labels] == [type(v) for v in written]
    assert read_tasks(pd.DataFrame({"t": [1.0, 2.0]}), "t") == [1, 2]
    assert match_labels([7, "x", None, 8], ["x", "7"]) == ["7", "x", None, 8]
    assert match_labels(["7", "x"], [7, 8]) == [7, "x"]


def test_an_outlier_is_told_by_row_and_column():
    values = np.random.RandomState(0).normal(size=ROWS).round(3)
    values[7] = 1e9
    found = read_target(pd.DataFrame({"y": values}), "y")
    assert "Column 'y' has 1e+09 in row 9, far from all others" in found.notices[-1]
    assert "variants/robust.py" in found.notices[-1]
    heavy = np.random.RandomState(0).standard_t(3, size=1000)
    assert len(read_target(pd.DataFrame({"y": heavy}), "y").notices) == 1
