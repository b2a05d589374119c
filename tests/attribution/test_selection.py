"""Selection of rows by influence, judged on rows that had no part in it."""

import pytest
import torch

from pyro_vmtl import TaskData, select_rows
from pyro_vmtl.methods.presets import presets


def groups(*, wrong=0, seed=0):
    """Three tasks with the same coefficients, rows of the first ``wrong`` at times."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for num_rows in (30, 60):
        X = torch.randn(3 * num_rows, 2, generator=generator)
        y = X.sum(1) + 0.3 * torch.randn(len(X), generator=generator)
        made.append((X, y, [f"t{t}" for t in range(3) for _ in range(num_rows)]))
    (X, y, tasks), (others, of_others, labels) = made
    y[:wrong] = -3 * X[:wrong].sum(1)
    data = TaskData.regression(X, y, tasks)
    return data, data.new_rows(others, labels, of_others)


METHOD = presets("regression")["mixed-model"].few_features


@pytest.mark.slow
def test_wrong_rows_are_left_out():
    data, validation = groups(wrong=6)
    selection = select_rows(METHOD, data, validation, fractions=[0.03, 0.06])
    left_out = data.row[data.mask & ~selection.kept]
    assert set(selection.gains) == {3, 5}  # 3 and 6 % of 90
    assert len(left_out) in selection.gains and (left_out < 6).all()
    gain, error = selection.gains[len(left_out)]
    assert gain > error > 0
    assert selection.fitted.num_tasks == 3


@pytest.mark.slow
def test_nothing_is_left_out_where_nothing_is_wrong():
    data, validation = groups()
    selection = select_rows(METHOD, data, validation, fractions=[0.2])
    (gain, error), *_ = selection.gains.values()
    assert (gain <= error) == bool(selection.kept.sum() == 90)


@pytest.mark.slow
def test_tasks_that_harm_another_are_candidates():
    data, validation = groups(wrong=30)  # all of the first task
    selection = select_rows(METHOD, data, validation, task="t1", fractions=[0.02])
    assert set(selection.gains) == {2, 30}  # all rows of the first task
    assert selection.kept[1].all()
