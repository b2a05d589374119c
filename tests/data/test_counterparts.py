"""Counterparts in other tasks against loops over rows."""

from dataclasses import replace

import pytest
import torch
from problems import F64, plain_mean

from pyro_vmtl import TaskData, attend


def rows_of(data, task):
    """(feature, target, position in the user's arrays) of each row of a task."""
    return [
        (data.x[task, n], data.y[task, n].item(), data.row[task, n].item())
        for n in range(data.num_rows)
        if data.mask[task, n]
    ]


def check(data, found, expected):
    """Compare every row and every other task; ``expected`` gives None where there is nothing."""
    for t in range(data.num_tasks):
        others = [i for i in range(data.num_tasks) if i != t]
        for x, y, row in rows_of(data, t):
            for k, i in enumerate(others):
                mean = expected(x, y, rows_of(data, i))
                assert found.present[row, k] == (mean is not None)
                torch.testing.assert_close(
                    found.x[row, k], torch.zeros_like(x) if mean is None else mean
                )


def within_class(x, y, rows):
    keys = [key for key, label, _ in rows if label == y]
    return plain_mean(x, keys) if keys else None


def test_within_the_class_as_in_the_authors_code(ragged):
    assert len({(t, y) for t in range(3) for _, y, _ in rows_of(ragged, t)}) < 9  # some are missing
    data = attend(ragged)
    assert data.attended.x.shape == (11, 2, 3)
    check(ragged, data.attended, within_class)


def test_two_tasks_one_row_in_a_class_and_a_class_missing():
    torch.manual_seed(0)
    X = torch.randn(6, 2, dtype=F64)
    data = TaskData.classification(X, [0, 0, 1, 1, 1, 2], ["a", "a", "a", "b", "b", "b"])
    found = attend(data).attended
    check(data, found, within_class)
    assert found.present[:, 0].tolist() == [False, False, True, True, True, False]
    # one key is its own mean
    torch.testing.assert_close(found.x[3, 0], X[2])


def test_real_targets_attend_to_all_rows(ragged):
    data = replace(ragged, y=torch.randn(3, 5, dtype=F64), classes=None)

    def expected(x, y, rows):
        return plain_mean(x, [key for key, _, _ in rows])

    check(data, attend(data).attended, expected)


def test_rows_of_a_batch_find_their_counterparts(ragged):
    data = attend(ragged)
    index = torch.tensor([[4, 0], [1, 0], [2, 3]])
    batch = data.take(index, torch.tensor([[True, True], [True, True], [True, False]]))
    x, _ = batch.attended.of(batch.row)
    for t, place in ((0, 0), (0, 1), (1, 0), (2, 0)):
        row = ragged.row[t, index[t, place]]
        torch.testing.assert_close(x[t, place], data.attended.x[row])
    assert batch.row[2, 1] == -1
    assert data.new_rows(torch.zeros(1, 3), ["a"]).attended is None


def test_a_task_without_rows_has_nothing_to_say(ragged):
    new = ragged.new_rows(torch.randn(3, 3), ["a", "a", "c"], [0, 1, 0])
    data = attend(new)
    assert data.attended.present.tolist() == [[False, True], [False, False], [True, False]]
    check(new, data.attended, within_class)


def test_what_cannot_attend_is_refused(ragged):
    with pytest.raises(ValueError, match="Call attend afterwards"):
        attend(ragged).with_intercept()
    with pytest.raises(ValueError, match="no targets"):
        attend(ragged.without_targets())
    with pytest.raises(ValueError, match="1 task"):
        attend(TaskData.regression([[1.0], [2.0]], [1.0, 2.0], ["a", "a"]))
