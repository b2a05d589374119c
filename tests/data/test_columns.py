"""Further columns of rows follow them wherever they go."""

import re

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from pyro_vmtl import (
    BalancedRows,
    Programs,
    RandomRows,
    TaskBlocks,
    TaskData,
    as_one_task,
    fit,
    folds,
)
from pyro_vmtl.analysis import to_datatree
from pyro_vmtl.data.folds import subsample_rows
from pyro_vmtl.data.one_task import as_last_task
from pyro_vmtl.data.plates import some_tasks, subsample_tasks
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.inference.checkpoint import fingerprint

X = torch.arange(1.0, 9.0)[:, None]
TASKS = list("aabbbbbc")


def rows(**columns):
    """Eight rows, whose column ``twice`` is two times their only feature."""
    return TaskData.regression(X, X[:, 0], TASKS, columns={"twice": 2 * X[:, 0], **columns})


def assert_they_belong(data):
    """Check that columns are those of the same rows, and can be computed with where padded."""
    torch.testing.assert_close(data.columns["twice"][data.mask], 2 * data.x[..., 0][data.mask])
    assert data.columns["twice"].shape == data.mask.shape
    assert (data.columns["twice"] > 0).all()


def test_they_follow_the_rows():
    data = rows()
    assert_they_belong(data)
    assert_they_belong(data.with_intercept())
    assert_they_belong(data.to("cpu"))
    assert_they_belong(as_one_task(data))
    assert_they_belong(subsample_rows(data, 5))
    for train, held in folds(data, 3):
        assert_they_belong(train)
        assert_they_belong(held)
    for batches in (RandomRows(2), RandomRows(1), RandomRows(2, max_total=3)):
        assert_they_belong(batches(data)[0])
    long = torch.arange(1.0, 41.0)[:, None]  # of which a batch is drawn from parts
    long = TaskData.regression(long, long[:, 0], TASKS * 5, columns={"twice": 2 * long[:, 0]})
    assert_they_belong(RandomRows(1)(long)[0])
    new = TaskData.regression(X[:2], X[:2, 0], ["d"] * 2, columns={"twice": 2 * X[:2, 0]})
    last = as_last_task(new, 3)
    assert_they_belong(last)
    assert last.columns["twice"].shape == (4, 2)
    classes = TaskData.classification(
        X, list("xyxyxyxy"), TASKS, columns={"twice": 2 * X[:, 0].numpy()}
    )
    assert_they_belong(BalancedRows(2)(classes)[0])
    with some_tasks(torch.tensor([1, 2])), pyro.plate("task", 3, subsample_size=2, dim=-2):
        assert_they_belong(subsample_tasks(data))


def test_new_rows_need_those_of_the_fit():
    data = rows(late=[True, False] * 4)
    new = data.new_rows([[5.0], [7.0]], ["c", "a"], columns={"late": [1, 0], "twice": [10, 14.0]})
    assert_they_belong(new)
    with pytest.raises(ValueError, match=r"columns has no 'late'.*columns of the fit, twice, late"):
        data.new_rows([[5.0]], ["c"], columns={"twice": [10.0]})
    with pytest.raises(ValueError, match="columns has no 'twice'"):
        data.new_rows([[5.0]], ["c"])
    given = {"twice": [1.0], "late": [True], "later": [1.0]}
    with pytest.raises(ValueError, match=r"columns has 'later'.*Leave it out"):
        data.new_rows([[5.0]], ["c"], columns=given)
    with pytest.raises(ValueError, match=re.escape("has shape (2,), expected () as in the fit")):
        data.new_rows([[5.0]], ["c"], columns={"twice": [[1.0, 2.0]], "late": [True]})


def test_their_kinds_stay():
    columns = pd.DataFrame({"school": np.arange(8), "late": [True, False] * 4})
    data = TaskData.regression(X, X[:, 0], TASKS, columns=columns)
    assert data.columns["school"].dtype == torch.int64 and data.columns["late"].dtype == torch.bool
    assert data.unpad(data.columns["school"]).tolist() == list(range(8))
    several = rows(known=torch.arange(16.0).reshape(8, 2))
    assert several.columns["known"].shape == (3, 5, 2)
    batch, _ = RandomRows(3)(several)
    assert torch.equal(batch.columns["known"][batch.mask][:, 0], 2.0 * batch.row[batch.mask])
    exact = TaskData.regression(X.double(), X[:, 0], TASKS, columns={"twice": 2 * X[:, 0]})
    assert exact.columns["twice"].dtype == torch.float64
    assert repr(several).endswith("regression, with twice, known)")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"hours": [1.0] * 7}, r"columns['hours'] has shape (7,), expected 8 rows as in X."),
        ({"hours": [1.0] * 6 + [np.nan, 1.0]}, "columns['hours'] has nan in row 6 (task 'b')"),
        ({"hours": ["one"] * 8}, "columns['hours'] has values that are not numbers"),
        ({"x": [1.0] * 8}, "columns has the name 'x', expected a string that is none of x, y"),
        ([1.0] * 8, "columns is list, expected a mapping of names to arrays"),
    ],
)
def test_unusable_ones_are_refused(columns, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TaskData.regression(X, X[:, 0], TASKS, columns=columns)


def poisson(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        log_rate = pyro.sample("log_rate", dist.Normal(torch.zeros(()), 2.0))
        rows = subsample_tasks(data)
        rate = log_rate.exp() * rows.columns["exposure"]
        with pyro.plate("data", rows.num_rows, dim=-1), pyro.poutine.mask(mask=rows.mask):
            pyro.sample("y", dist.Poisson(rate), obs=rows.y)


def counts(num, seed=0):
    """Counts of tasks with two and five cases an hour, over very different hours."""
    generator = torch.Generator().manual_seed(seed)
    hours = 30 * torch.rand(num, generator=generator) + 0.5
    of_task = torch.tensor([2.0, 5.0]).repeat(num // 2)
    y = torch.poisson(of_task * hours, generator=generator)
    # of unequal sizes, so that there is padding
    keep = torch.arange(num) % 4 != 1
    return y[keep], [["two", "five"][i % 2] for i in range(num) if keep[i]], hours[keep]


@pytest.mark.parametrize("settings", [{}, {"batches": RandomRows(10)}, {"tasks": TaskBlocks(1)}])
def test_a_poisson_program_learns_from_exposures(settings):
    y, tasks, hours = counts(200)
    data = TaskData.regression(torch.zeros(len(y), 1), y, tasks, columns={"exposure": hours})
    guide = MeanFieldNormal({"log_rate": ()}, 2)
    fit(poisson, guide, data, num_steps=1000, learning_rate=0.05, **settings)
    found = guide(data)["log_rate"].exp().flatten()
    total = torch.tensor([y[[t == name for t in tasks]].sum() for name in ("two", "five")])
    over = torch.tensor([hours[[t == name for t in tasks]].sum() for name in ("two", "five")])
    # a draw from the posterior; its relative standard deviation is that of a Poisson count
    assert ((found / (total / over) - 1).abs() < 5 / total.sqrt()).all()


def test_they_are_exported_and_hashed():
    y, tasks, hours = counts(40)
    columns = {"exposure": hours, "pair": torch.arange(2.0 * len(y)).reshape(-1, 2)}
    data = TaskData.regression(torch.zeros(len(y), 1), y, tasks, columns=columns)
    method = Programs(lambda data: (poisson, AutoNormal(poisson)), {"num_steps": 20})
    tree = to_datatree(method.fit(data), data, rows=data)
    found = tree["constant_data"]
    np.testing.assert_array_equal(found["exposure"].values, hours)
    assert found["pair"].dims == ("row", "pair_dim_0")
    other = TaskData.regression(
        torch.zeros(len(y), 1), y, tasks, columns={**columns, "exposure": hours + 1}
    )
    one, two, again = (fingerprint(torch.nn.Identity(), (d,)) for d in (data, other, data))
    assert one == again != two
