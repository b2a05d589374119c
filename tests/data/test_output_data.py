"""Rows with several outputs: what is read, and what errors say."""

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_vmtl import OutputData

X = np.arange(8.0).reshape(4, 2)
Y = {
    "mood": ["sad", None, "glad", "so-so"],
    "done": [True, False, True, None],
    "hours": [1.5, float("nan"), 2.0, -1.0],
}


def test_kinds_are_read_and_missing_values_masked():
    data = OutputData.from_columns(X, Y)
    assert data.classes == {"mood": ("glad", "sad", "so-so"), "done": (False, True), "hours": None}
    assert data.sizes == {"mood": 3, "done": 1, "hours": 1}
    assert data.y["mood"].tolist() == [1, 0, 0, 2]
    assert data.known["mood"].tolist() == [True, False, True, True]
    assert data.y["hours"].tolist() == [1.5, 0.0, 2.0, -1.0]
    frame = OutputData.from_columns(X, pd.DataFrame(Y))
    for name in Y:
        assert torch.equal(frame.y[name], data.y[name])
        assert torch.equal(frame.known[name], data.known[name])


def test_numbers_are_classes_unless_there_are_fractions_or_a_kind_is_given():
    data = OutputData.from_columns(X, {"a": [1.0, 2.0, 1.0, 2.0], "b": [1.0, 2.5, 1.0, 2.0]})
    assert data.classes == {"a": (1.0, 2.0), "b": None}
    data = OutputData.from_columns(X, {"a": [1, 2, 1, 2]}, kinds={"a": "real"})
    assert data.classes == {"a": None}


def test_new_rows_have_what_is_known_as_means():
    data = OutputData.from_columns(X, Y)
    new = data.new_rows(X[:2], {"mood": [None, "so-so"], "done": [None, None], "hours": [None, 3]})
    means = new.known_means()
    assert set(means) == {"mood", "hours"}
    assert means["mood"][0].isnan().all() and means["mood"][1].tolist() == [0.0, 0.0, 1.0]
    assert means["hours"][1].tolist() == [3.0]
    assert data.new_rows(X).y is None and data.new_rows(X).known_means() == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mood": ["sad"] * 3}, "Output 'mood' has 3 rows, expected 4"),
        ({"mood": ["sad"] * 4}, "Output 'mood' has one class, 'sad', in all rows"),
        ({"mood": [None] * 4}, "Output 'mood' has no value in any row"),
        ({"hours": [1.5, float("inf"), 1.0, 2.0]}, "Output 'hours' has inf in row 1"),
        ({"hours": [1.5, "many", 1.0, 2.0]}, "Output 'hours' has 'many' in row 1"),
    ],
)
def test_errors_name_output_and_row(change, message):
    with pytest.raises(ValueError, match=message):
        OutputData.from_columns(X, {**Y, **change})


def test_errors_of_new_rows_and_features():
    data = OutputData.from_columns(X, Y)
    with pytest.raises(ValueError, match="X has 1 columns, expected 2"):
        data.new_rows(X[:, :1])
    with pytest.raises(ValueError, match="no output 'price', expected some of"):
        data.new_rows(X, {"price": [1] * 4})
    with pytest.raises(ValueError, match="class 'angry' in row 2, expected one of"):
        data.new_rows(X, {"mood": ["sad", None, "angry", None]})
    with pytest.raises(ValueError, match="X has nan in row 0, column 1"):
        OutputData.from_columns([[0.0, np.nan]], {"a": [1]})
    with pytest.raises(ValueError, match="The kind of output 'mood' is 'text'"):
        OutputData.from_columns(X, Y, kinds={"mood": "text"})
    with pytest.raises(ValueError, match="y has no columns"):
        OutputData.from_columns(X, {})
