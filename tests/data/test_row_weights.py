"""Weights of rows: a row that counts twice is a row that is there twice."""

import pytest
import torch
from problems import F64, classifier
from pyro.infer.autoguide import AutoNormal

from pyro_vmtl import MeanFieldELBO, RandomRows, TaskBlocks, TaskData, as_one_task, fit, folds
from pyro_vmtl.handlers.isolation import validation
from pyro_vmtl.inference.step import batch_of
from pyro_vmtl.models import LinearRegressor, TaskNoise, ZeroMeanNormal

COUNTS = torch.tensor([2, 1, 0, 1, 3, 1, 1, 2, 0, 1, 1])


def weighed_and_repeated(ragged):
    """The same rows, once with weights, and once repeated."""
    X, y = (ragged.unpad(v) for v in (ragged.x, ragged.y))
    tasks = ["a", "b", "a", "c", "a", "c", "b", "a", "c", "a", "c"]
    again = torch.arange(11).repeat_interleave(COUNTS)
    weighed = TaskData.classification(X, y, tasks, classes=range(3), sample_weight=COUNTS)
    repeated = TaskData.classification(
        X[again], y[again], [tasks[i] for i in again], classes=range(3)
    )
    return weighed, repeated


def loss(data, model, guide):
    torch.manual_seed(3)
    with batch_of((data,), None) as batch:
        return MeanFieldELBO().loss(model, guide, *batch)


def test_a_weight_of_two_is_a_row_twice(ragged):
    weighed, repeated = weighed_and_repeated(ragged)
    programs = classifier(ragged)
    assert loss(weighed, *programs) == pytest.approx(loss(repeated, *programs), rel=1e-12)
    assert loss(weighed, *programs) != pytest.approx(loss(ragged, *programs), rel=1e-3)
    one, other = as_one_task(weighed), as_one_task(repeated)
    programs = classifier(one)
    assert loss(one, *programs) == pytest.approx(loss(other, *programs), rel=1e-12)


def test_the_elbo_of_weighed_batches_is_unbiased(ragged):
    weighed, _ = weighed_and_repeated(ragged)
    programs = classifier(ragged)
    state, losses = torch.get_rng_state(), []
    for _ in range(500):
        torch.set_rng_state(state)
        with batch_of((weighed,), RandomRows(2)) as batch, validation(False):
            state = torch.get_rng_state()
            torch.manual_seed(3)  # the same w for all batches: only the rows differ
            losses.append(MeanFieldELBO().loss(*programs, *batch))
    losses = torch.tensor(losses)
    error = losses.std() / len(losses) ** 0.5
    assert abs(losses.mean() - loss(weighed, *programs)) < 5 * error  # 5 standard errors


@pytest.mark.parametrize("tasks", [None, TaskBlocks(2)])
def test_a_fit_of_weighed_rows_is_that_of_repeated_rows(ragged, tasks):
    """Same draws and same loss, so the same fit up to rounding in 60 steps."""
    found = []
    for data in weighed_and_repeated(ragged):
        programs = classifier(ragged)
        fit(*programs, data, num_steps=60, tasks=tasks)
        found.append(programs[1].locs["w"].detach())
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8)


def test_a_users_model_with_an_autoguide_is_weighed_too():
    X, y = torch.randn(6, 1, dtype=F64), torch.randn(6, dtype=F64)
    weight = torch.tensor([1.0, 0.0, 2.0, 1.0, 1.0, 3.0])
    again = torch.arange(6).repeat_interleave(weight.long())
    model = LinearRegressor(ZeroMeanNormal([1]), TaskNoise(2)).double()
    weighed = TaskData.regression(X, y, [0, 0, 0, 1, 1, 1], sample_weight=weight)
    repeated = TaskData.regression(X[again], y[again], [[0, 0, 0, 1, 1, 1][i] for i in again])
    guide = AutoNormal(model)
    guide(weighed)
    assert loss(weighed, model, guide) == pytest.approx(loss(repeated, model, guide), rel=1e-6)


def test_weights_go_where_their_rows_go(ragged):
    weighed, _ = weighed_and_repeated(ragged)
    assert torch.equal(weighed.unpad(weighed.weight), COUNTS.to(F64))
    for part in (p for pair in folds(weighed, 3) for p in pair):
        for t in range(3):
            for x, w in zip(part.x[t][part.mask[t]], part.weight[t][part.mask[t]], strict=True):
                place = (weighed.x[t] == x).all(-1).nonzero().item()
                assert weighed.weight[t, place] == w


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0, -1.0], r"has -1.0 in row 1, expected a finite number of at least 0"),
        ([float("nan"), 1.0], "has nan in row 0"),
        ([0.0, 0.0], "is 0 in every row"),
        ([1.0], "sample_weight has 1 rows, expected 2 as in X"),
        ([[1.0, 1.0]], r"shape \(1, 2\)"),
        (["a", 1], "not numbers"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weight, message):
    with pytest.raises(ValueError, match=message):
        TaskData.regression([[1.0], [2.0]], [1.0, 2.0], ["a", "b"], sample_weight=weight)


def test_batches_much_smaller_than_tasks_are_weighed_too():
    """One row of each part, of 150 rows; the mean over many batches is the loss of all rows."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(300, 3, generator=generator, dtype=F64)
    y, weight = (X[:, 0] > 0).long(), torch.rand(300, generator=generator, dtype=F64)
    data = TaskData.classification(X, y, [0] * 150 + [1] * 150, sample_weight=weight)
    programs = classifier(data)
    losses = []
    for seed in range(500):
        torch.manual_seed(seed)
        with batch_of((data,), RandomRows(8)) as batch, validation(False):
            assert batch[0].weight.shape == (2, 8)
            torch.manual_seed(3)  # the same w for all batches: only the rows differ
            losses.append(MeanFieldELBO().loss(*programs, *batch))
    losses = torch.tensor(losses)
    error = losses.std() / len(losses) ** 0.5
    assert abs(losses.mean() - loss(data, *programs)) < 5 * error  # 5 standard errors
