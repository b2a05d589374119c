"""The padded container: nothing is lost, and bad input is named."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pyro_vmtl import TaskData

hashables = st.one_of(st.integers(), st.text(), st.tuples(st.integers(), st.text()), st.booleans())


@settings(deadline=None)
@given(st.lists(hashables, min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_rows_come_back_in_the_user_s_order(tasks, random):
    assume(len({*tasks}) == len({(type(task), task) for task in tasks}))  # not both True and 1
    X = np.array([[random.random(), i] for i in range(len(tasks))])
    y = [random.choice("xyz") for _ in tasks]
    data = TaskData.classification(X, y, tasks)
    assert data.task_labels == tuple(dict.fromkeys(tasks))
    assert data.mask.sum() == len(tasks)
    torch.testing.assert_close(data.unpad(data.x), torch.tensor(X, dtype=torch.float32))
    assert [data.classes[i] for i in data.unpad(data.y)] == y
    assert [data.task_labels[t] for t in data.unpad(task_of_row(data))] == tasks
    assert (data.x[~data.mask] == 0).all()
    assert (data.y[~data.mask] == 0).all()
    assert (data.row[~data.mask] == -1).all()


def task_of_row(data):
    return torch.arange(data.num_tasks)[:, None].expand(data.mask.shape)


def test_labels_keep_their_kind():
    labels = [("ward", 3), None.__class__, 2.5, frozenset({1})]
    data = TaskData.regression(np.zeros((4, 1)), np.zeros(4), labels)
    assert data.task_labels == tuple(labels)
    assert data.classes is None and data.num_classes == 1
    dates = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-01", "2024-01-02"])
    data = TaskData.classification(np.zeros((4, 1)), dates, ["a", "b", "a", "b"])
    assert len(data.classes) == 2


def test_pandas_numpy_lists_and_tensors_give_the_same():
    X, y, t = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [1.0, 2.0, 3.0], ["a", "b", "a"]
    frame = pd.DataFrame(X)
    forms = [
        (X, y, t),
        (np.array(X), np.array(y), np.array(t)),
        (frame, pd.Series(y), pd.Series(t)),
        (torch.tensor(X), torch.tensor(y), t),
    ]
    reference = TaskData.regression(*forms[0])
    for form in forms[1:]:
        data = TaskData.regression(*form)
        assert data.task_labels == ("a", "b")
        torch.testing.assert_close(data.x, reference.x)
        torch.testing.assert_close(data.y, reference.y)


def test_float64_tensors_stay_float64():
    X = torch.zeros(2, 1, dtype=torch.float64)
    data = TaskData.regression(X, torch.zeros(2, dtype=torch.float64), ["a", "b"])
    assert data.x.dtype == data.y.dtype == torch.float64


def test_rows_to_predict_follow_the_training_tasks():
    data = TaskData.classification([[1.0], [2.0], [3.0]], ["x", "y", "x"], ["a", "b", "c"])
    new = data.new_rows([[7.0], [8.0]], ["c", "a"])
    assert new.task_labels == data.task_labels and new.classes == data.classes and new.y is None
    assert new.mask.tolist() == [[True], [False], [True]]
    assert new.unpad(new.x).flatten().tolist() == [7.0, 8.0]
    with_one = new.with_intercept()
    assert with_one.x[..., -1].tolist() == [[1.0], [0.0], [1.0]]
    assert with_one.with_intercept() is with_one
    again = data.with_intercept().new_rows([[7.0], [8.0]], ["c", "a"], ["y", "x"])
    assert torch.equal(again.x, with_one.x) and again.intercept
    assert again.unpad(again.y).tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"X has 2 columns, expected 1 .*intercept is added here"):
        data.with_intercept().new_rows([[7.0, 1.0]], ["c"])
    with pytest.raises(ValueError, match=r"y has class 'z' in row 0"):
        data.new_rows([[7.0]], ["c"], ["z"])


def test_rows_to_predict_take_the_type_of_the_training_rows():
    double = torch.zeros(2, 1, dtype=torch.float64)
    data = TaskData.regression(double, double[:, 0], ["a", "b"])
    new = data.new_rows([[1.0]], ["b"], [2.0])
    assert new.x.dtype == new.y.dtype == torch.float64
    assert new.unpad(new.y).tolist() == [2.0]


def test_it_prints_in_a_line():
    data = TaskData.classification([[1.0], [2.0], [3.0]], ["x", "y", "x"], ["a", "b", "b"])
    assert repr(data) == "TaskData(2 tasks, 3 rows, at most 2 a task, 1 features, 2 classes)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ["a", "b"]}, r"tasks has 2 rows, expected 3 as in X"),
        ({"y": [0, 1]}, r"y has 2 rows, expected 3 as in X"),
        ({"X": [1.0, 2.0, 3.0]}, r"X has shape \(3,\), expected 2 dimension"),
        ({"X": [["u"], ["v"], ["w"]]}, r"X has values that are not numbers"),
        (
            {"X": [[1.0, 2.0], [1.0, np.nan], [0.0, 0.0]]},
            r"X has nan in row 1, column 1 \(task 'b'\)",
        ),
        ({"X": [[np.inf, 2.0], [1.0, 1.0], [0.0, 0.0]]}, r"X has inf in row 0, column 0"),
        ({"tasks": ["a", None, "b"]}, r"tasks has no label in row 1"),
        ({"tasks": ["a", float("nan"), "b"]}, r"tasks has no label in row 1"),
        ({"tasks": ["a", ["b"], "b"]}, r"tasks has \['b'\] in row 1, expected a hashable"),
        ({"tasks": "abc"}, r"tasks is str, expected one label per row"),
        ({"y": [0, 2, 1], "classes": [0, 1]}, r"y has class 2 in row 1, expected one of \[0, 1\]"),
        ({"X": np.zeros((0, 2)), "y": [], "tasks": []}, r"X has no rows"),
        ({"X": np.zeros((3, 0))}, r"X has no columns"),
        ({"classes": [0, 1, 1]}, r"classes has a label twice"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"X": np.zeros((3, 2)), "y": [0, 1, 0], "tasks": ["a", "b", "a"]}
    with pytest.raises(ValueError, match=message):
        TaskData.classification(**{**good, **change})


def test_bad_targets_and_bad_rows_to_predict_are_named():
    with pytest.raises(ValueError, match=r"y has nan in row 1 \(task 'b'\)"):
        TaskData.regression([[1.0], [2.0]], [0.0, np.nan], ["a", "b"])
    data = TaskData.regression([[1.0], [2.0]], [0.0, 1.0], ["a", "b"])
    with pytest.raises(ValueError, match=r"tasks has 'z' in row 0, which is not among"):
        data.new_rows([[1.0]], ["z"])
    with pytest.raises(ValueError, match=r"X has 2 columns, expected 1"):
        data.new_rows([[1.0, 2.0]], ["a"])


def test_true_and_1_are_not_one_task():
    with pytest.raises(ValueError, match="tasks has both True and 1, which are equal in Python"):
        TaskData.regression([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0], [True, 1, 2])
    assert TaskData.regression([[0.0], [1.0]], [0.0, 1.0], [True, 2]).task_labels == (True, 2)
