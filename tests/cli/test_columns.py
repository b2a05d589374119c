"""Columns of a table become features, or an error that names column and row."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from pyro_vmtl.cli.columns import Columns
from pyro_vmtl.cli.read_table import read_table
from pyro_vmtl.cli.target import read_target, read_tasks
from pyro_vmtl.cli.user_errors import InputError

ROWS = 30
TEXT = [f"pupil {i}" for i in range(ROWS)]
MIXED = ["12,5", "1 000", "n/a?", "$5", *map(str, range(ROWS - 4))]


def rows(**columns):
    """A table of 30 rows with a good task, target and feature, and other columns beside them."""
    return pd.DataFrame(
        {
            "school": ["a", "b"] * (ROWS // 2),
            "score": np.arange(ROWS) / 4,
            "age": np.arange(ROWS) % 7,
        }
    ).assign(**columns)


def with_at(values, at, value):
    """The list with another value at one place."""
    values = list(values)
    values[at] = value
    return values


def learn(target="score", task="school", features=None, **columns):
    return Columns.learn(rows(**columns), target=target, task=task, features=features)[0]


DATES = ["2020-01-02", "3.4.2021", "3/14/21", "Jan 3, 2020", "3 March 2020", "2020-01-02T10:11"] * 5
# id, columns beside the good ones or names, what the message must hold
BAD_FEATURES = [
    ("no target", {"target": "scores"}, "--target names 'scores', which is not a column"),
    ("near target", {"target": "Score"}, "Did you mean 'score'?"),
    ("no task", {"task": "x"}, "There are 'school', 'score', 'age'."),
    ("target is task", {"target": "school"}, "--target and --task are both 'school'"),
    ("no feature", {"features": ["agee"]}, "--features names 'agee', which is not a column"),
    ("target a feature", {"features": ["age", "score"]}, "'score', which is the target"),
    ("task a feature", {"features": ["school"]}, "'school', which is the task"),
    ("twice", {"features": ["age", "age"]}, "'age' more than once"),
    ("none named", {"features": []}, "no columns to learn from"),
    ("none varies", {"age": 1}, "no columns to learn from"),
    ("task missing", {"school": with_at("ab" * 15, 3, None)}, "no label in row 5"),
    ("task of fractions", {"school": with_at(np.ones(ROWS), 2, 0.5)}, "has 0.5 in row 4"),
    ("task infinite", {"school": with_at(np.ones(ROWS), 2, np.inf)}, "has inf in row 4"),
    ("task an id", {"school": range(ROWS)}, "'school', the task, has another label in each of 30"),
    ("task of dates", {"school": pd.Timestamp(0)}, "'school', the task, is of type datetime64"),
    ("dates as text", {"day": DATES}, "'day' holds dates or times"),
    ("times", {"at": ["10:30", "9:15:00"] * 15}, "'at' holds dates or times"),
    ("timestamps", {"day": pd.date_range("2020", periods=ROWS)}, "'day' holds dates or times"),
    ("dates as objects", {"day": pd.date_range("2020", periods=ROWS).date}, "'day' holds dates"),
    ("durations", {"d": pd.to_timedelta(range(ROWS))}, "values of type timedelta64"),
    ("lists", {"l": [[i] for i in range(ROWS)]}, "'l' holds values of type object"),
    ("id", {"name": TEXT}, "'name' is text with 30 different entries in 30 rows"),
    ("all missing", {"gone": np.nan}, "'gone' has no value in any row"),
    ("all missing text", {"gone": None}, "'gone' has no value in any row"),
    ("infinite", {"x": with_at(range(ROWS), 4, -np.inf)}, "'x' has an infinite value in row 6"),
    ("too large", {"x": with_at(range(ROWS), 0, 1e39)}, "'x' has 1e+39 in row 2"),
    (
        "decimal comma",
        {"x": MIXED},
        "'12,5' in row 2, '1 000' in row 3, 'n/a?' in row 4 and 1",
    ),
    ("all with commas", {"x": ["1,5", "2,5"] * 15}, "'1,5' in row 2"),
    ("percent", {"x": ["1 %", "2 %"] * 15}, "'1 %' in row 2"),
]


@pytest.mark.parametrize(
    ("columns", "part"), [b[1:] for b in BAD_FEATURES], ids=[b[0] for b in BAD_FEATURES]
)
def test_bad_features_are_told(columns, part):
    with pytest.raises(InputError) as error:
        learn(**columns)
    assert part in str(error.value)


def test_many_categories_are_an_id_unless_they_come_again():
    many = pd.DataFrame({"t": [0] * 1000, "y": range(1000), "x": range(1000)})
    word = [f"w{i % 250}" for i in range(1000)]
    with pytest.raises(InputError, match="'word' is text with 250 different entries in 1000 rows"):
        Columns.learn(many.assign(word=word), target="y", task="t")
    few = [f"w{i % 90}" for i in range(1000)]
    columns, _ = Columns.learn(many.assign(word=few), target="y", task="t")
    assert len(columns.categories["word"]) == 90


@pytest.fixture
def learned():
    table = pd.DataFrame(
        {
            "school": ["a", "b", "a", "b", "a"],
            "score": [1.0, 2.0, 3.0, 4.0, 5.5],
            "age": pd.array([7, None, 9, 1, 100], dtype="Int64"),
            "one": [3.0, None, 3.0, 3.0, 3.0],
            "sex": ["f", None, "m", "f", "f"],
            "years": [7.0, np.nan, 9.0, 1.0, 100.0],
            "gender": ["f", None, "m", "f", "f"],
            "poor": [True, False, True, True, False],
            "zip": ["007", "11", "11", "007", "11"],
            "large": [1e12, -1e12, 3e37, 0.0, 1.0],
        }
    )
    return table, *Columns.learn(table, target="score", task="school")


def test_features_are_numbers_zeros_and_ones(learned):
    table, columns, _ = learned
    X = columns.features(table)
    expected = {
        "age": [7, 8, 9, 1, 100],  # the median of 1, 7, 9, 100 is 8
        "poor": [1, 0, 1, 1, 0],
        "large": [1e12, -1e12, 3e37, 0, 1],
        "sex=f": [1, 0, 0, 1, 1],
        "sex=m": [0, 0, 1, 0, 0],
        "sex=missing": [0, 1, 0, 0, 0],
        "zip=007": [1, 0, 0, 1, 0],
        "zip=11": [0, 1, 1, 0, 1],
    }
    assert list(X) == list(expected)
    np.testing.assert_array_equal(X, np.array(list(expected.values())).T)


def test_what_was_done_is_told(learned):
    *_, notices = learned
    assert notices == [
        "Column 'age' has no value in 1 of 5 rows, where its median 8 is used.",
        "Column 'one' is left out, as it is the same in every row.",
        "Column 'sex' is text and becomes 3 columns, one for each of 'f', 'm', 'missing'.",
        "Column 'years' is left out, as it equals 'age' in every row.",
        "Column 'gender' is left out, as it equals 'sex' in every row.",
        "Column 'zip' is text and becomes 2 columns, one for each of '007', '11'.",
    ]


def test_json_gives_the_same_columns(learned):
    table, columns, _ = learned
    again = Columns(**json.loads(json.dumps(asdict(columns))))
    assert again == columns
    assert_frame_equal(again.features(table), columns.features(table))


def test_other_rows_are_read_in_the_same_way(learned):
    _, columns, _ = learned
    new = pd.DataFrame(
        {
            "extra": pd.to_datetime(["2020", None]),
            "zip": [11, 7],  # this file has no padded number, so they are read as numbers
            "sex": ["x", None],
            "large": ["1e3", None],
            "poor": pd.array([True, None], dtype="boolean"),
            "age": [np.nan, 2.0],
        }
    )
    got = columns.features(new).to_dict("list")
    assert got["age"] == [8, 2] and got["poor"] == [1, 1]  # medians 8 and 1
    assert got["large"] == [1000, 1]  # the median of -1e12, 0, 1, 1e12, 3e37
    assert got["sex=f"] == got["sex=m"] == [0, 0] and got["sex=missing"] == [0, 1]
    assert got["zip=11"] == [1, 0] and got["zip=007"] == [0, 0]


def test_a_missing_entry_is_no_category_called_missing():
    some = ["missing", None, "f"] * (ROWS // 3)
    X = learn(sex=some).features(rows(sex=some))
    assert list(X)[1:] == ["'sex'='f'", "'sex'='missing'", "'sex'=None"]
    np.testing.assert_array_equal(X.to_numpy()[:3, 1:], [[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    columns = learn(sex=["m", None, "f"] * (ROWS // 3))  # the fit has seen no such word
    read = columns.features(rows(sex=some))
    assert read["sex=missing"][:3].tolist() == [0, 1, 0]
    assert "'missing' in 10 of 30 rows" in columns.unusual(rows(sex=some))[0]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda table: table.drop(columns=["age", "sex"]), "no column 'age', 'sex'"),
        (lambda table: table.rename(columns={"age": "Age"}), "Did you mean 'Age' or"),
        (lambda table: table.assign(age=["1", "2", "old", "3", "4"]), "'old' in row 4"),
        (lambda table: table.assign(age=[1, 2, 3, np.inf, 4]), "infinite value in row 5"),
        (lambda table: table.assign(age=pd.Timestamp(0)), "'age' holds dates"),
        (lambda table: table.assign(sex=pd.Timestamp(0)), "'sex' is of type datetime64"),
    ],
)
def test_other_rows_of_the_wrong_kind_are_told(learned, change, part):
    table, columns, _ = learned
    with pytest.raises(InputError) as error:
        columns.features(change(table))
    assert part in str(error.value)


def test_features_keep_the_order_they_are_named_in():
    columns = learn(features=["b", "age"], b=np.arange(ROWS) ** 2)
    assert list(columns.features(rows(b=1))) == ["b", "age"]


WORDS = [
    "",
    "1.\x1e",
    "a",
    "b",
    "missing",
    "007",
    "1",
    "1.5",
    "12,5",
    "2020-01-01",
    "inf",
    "true",
    "é\0\n",
]
ENTRIES = st.one_of(
    st.lists(st.integers(-3, 3), min_size=8, max_size=8),
    st.lists(st.one_of(st.none(), st.integers(-(2**70), 2**70)), min_size=8, max_size=8),
    st.lists(st.one_of(st.none(), st.floats()), min_size=8, max_size=8),
    st.lists(st.floats(-1e30, 1e30), min_size=8, max_size=8),
    st.lists(st.one_of(st.none(), st.booleans()), min_size=8, max_size=8),
    st.lists(
        st.one_of(st.none(), st.sampled_from(WORDS), st.text(max_size=4)), min_size=8, max_size=8
    ),
    st.lists(st.sampled_from(["a", "b"]), min_size=8, max_size=8),
    st.lists(st.one_of(st.text(max_size=2), st.floats(), st.datetimes()), min_size=8, max_size=8),
)


@settings(max_examples=40, deadline=None)
@given(
    st.fixed_dictionaries(dict.fromkeys(("t", "y", "u", "v"), ENTRIES)),
    st.fixed_dictionaries(dict.fromkeys(("t", "y", "u", "v"), ENTRIES)),
    st.sampled_from([None, "classification", "regression", "counts"]),
)
def test_any_table_is_read_or_told(columns, other, kind):
    table = pd.DataFrame(columns)
    try:
        assert len(read_tasks(table, "t")) == 8
    except InputError:
        table["t"] = 1
    try:
        values, found, _ = read_target(table, "y", kind)
        assert len(values) == 8 and (kind is None or found == kind)
        if found != "classification":
            assert not np.isinf(values).any() and values.dtype == np.float64
    except InputError:
        pass
    try:
        learned, _ = Columns.learn(table, target="y", task="t")
    except InputError:
        return
    learned = Columns(**json.loads(json.dumps(asdict(learned))))
    X = learned.features(table)
    assert len(X) == 8 and X.columns.is_unique and np.isfinite(X.astype(np.float32)).all(axis=None)
    try:
        new = learned.features(pd.DataFrame(other))
        assert new.shape == X.shape and np.isfinite(new).all(axis=None)
    except InputError:
        pass


def test_indicators_are_never_named_like_other_columns():
    for more in ({"x=a": range(ROWS)}, {"x=a": ["b", "c"] * 15, "x": ["a=b", "c"] * 15}):
        columns = learn(**{"x": ["a", "b", "c"] * 10, **more})
        assert len(set(columns.feature_names)) == len(columns.feature_names)


def test_words_for_nothing_are_text_among_text_and_missing_among_numbers(tmp_path):
    lines = [f"{'NA' if i % 5 else 'DE'},{'NA' if i == 3 else i},{i % 2},{i}" for i in range(30)]
    (tmp_path / "a.csv").write_text("\n".join(["country,age,task,y", *lines]))
    columns, notices = Columns.learn(read_table(tmp_path / "a.csv"), target="y", task="task")
    assert columns.categories == {"country": ["DE", "NA"]} and list(columns.medians) == ["age"]
    found = " ".join(notices)
    assert "'country' has 'NA' in 24 of 30 rows, which counts as text" in found
    assert "'age' has no value in 1 of 30 rows" in found
    declared = read_table(tmp_path / "a.csv", missing=["NA"])
    assert declared["country"].isna().sum() == 24
    one = pd.DataFrame({"country": ["NA"], "age": ["NA"]}, dtype="string")  # none among numbers
    assert columns.features(one)["age"].tolist() == [columns.medians["age"]]
