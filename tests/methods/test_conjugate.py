"""The method that computes posteriors from the rows."""

from dataclasses import replace

import pytest
import torch

from pyro_vmtl import TaskData
from pyro_vmtl.analysis import to_datatree
from pyro_vmtl.methods.add_task import add_task
from pyro_vmtl.methods.by_features import ByFeatures
from pyro_vmtl.methods.preset import Preset
from pyro_vmtl.methods.saving import from_state, to_state
from pyro_vmtl.methods.stack import Stack

CONJUGATE = Preset(shared=(), conjugate=True)
NUM_TASKS, NUM_ROWS = 60, 8
SCALES = torch.tensor([1.0, 0.5, 0.0, 0.0])


def make_rows(num_tasks, num_rows, seed):
    """Make random slopes about a mean; two of four do not vary between tasks."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_tasks, num_rows, 4, generator=generator)
    w = torch.tensor([1.0, -1.0, 0.5, 0.0]) + SCALES * torch.randn(
        num_tasks, 1, 4, generator=generator
    )
    noise = 0.5 * torch.randn(num_tasks, num_rows, generator=generator)
    return x, (x * w).sum(-1) + noise, w[:, 0]


def as_data(x, y):
    tasks = [t for t in range(len(x)) for _ in range(x.shape[1])]
    return TaskData.regression(x.flatten(0, 1), y.flatten(), tasks).with_intercept()


@pytest.fixture(scope="module")
def rows():
    return make_rows(NUM_TASKS, 2 * NUM_ROWS, seed=0)


@pytest.fixture(scope="module")
def data(rows):
    return as_data(rows[0][:, :NUM_ROWS], rows[1][:, :NUM_ROWS])


@pytest.fixture(scope="module")
def fitted(data):
    return CONJUGATE.fit(data)


def test_scales_of_slopes_are_found(fitted):
    found = fitted.guide.posterior("w_scale").base_dist.loc.exp()
    # 60 tasks: relative standard errors of 1 / sqrt(120), here three of them and the noise's share
    torch.testing.assert_close(found[:2], SCALES[:2], rtol=0.35, atol=0.0)
    assert (found[2:4] < 0.2).all()
    noise = fitted.guide.posterior("noise_scale").mean
    torch.testing.assert_close(noise, torch.full_like(noise, 0.5), rtol=0.15, atol=0.0)


def test_intervals_of_slopes_hold(fitted, rows):
    w = fitted.guide.posterior("w")
    std = w.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt()[:, 0, :4]
    inside = ((w.mean[:, 0, :4] - rows[2]).abs() < 1.645 * std).float().mean()
    # 240 numbers, of which half have hardly a scale: a standard error of about 0.02
    assert 0.84 < inside <= 0.98


def test_predictive_intervals_hold_and_errors_are_near_the_best(fitted, data, rows):
    x, y = (value[:, NUM_ROWS:] for value in rows[:2])
    tasks = [t for t in range(NUM_TASKS) for _ in range(NUM_ROWS)]
    new = data.new_rows(x.flatten(0, 1), tasks, y.flatten())
    predictive = fitted.predictive(new)
    place = predictive.cdf(new.y)
    # 480 rows: a standard error of 0.014
    assert 0.86 < ((place > 0.05) & (place < 0.95)).float().mean() < 0.94
    error = (predictive.mean - new.y).square().mean()
    assert error < 1.35 * 0.25  # the noise, and what 8 rows leave open of 3 numbers


def test_a_new_task_has_the_prior(fitted):
    x, y, _ = make_rows(1, 400, seed=3)
    row = as_data(x, y)
    predictive = fitted.new_task_predictive(replace(row, task_labels=("new",)), num_samples=2000)
    # x of size 1 and slopes of standard deviation 1 and 0.5 about their mean, and the noise
    expected = (x[..., 0] ** 2 + (0.5 * x[..., 1]) ** 2 + 0.25).mean()
    assert 0.7 < predictive.variance.mean() / expected < 1.6


def test_a_task_that_is_added_is_that_of_a_whole_fit(data, fitted):
    x, y, _ = make_rows(1, 8, seed=4)
    new = replace(as_data(x, y), task_labels=("new",))
    grown = add_task(fitted, new)
    w, before = grown.guide.posterior("w"), fitted.guide.posterior("w")
    assert torch.equal(w.mean[:-1], before.mean)
    both = as_data(torch.cat([data.x[..., :4], x]), torch.cat([data.y, y]))
    whole = CONJUGATE.fit(both).guide.posterior("w")
    # one task of 61 hardly moves the scales
    torch.testing.assert_close(w.mean[-1], whole.mean[-1], rtol=0, atol=0.1)


def test_it_is_saved_and_exported(data, fitted):
    again = from_state(*to_state(fitted), data)
    assert torch.equal(again.predictive(data).mean, fitted.predictive(data).mean)
    posterior = to_datatree(fitted, data, num_samples=50)["posterior"]
    assert {"w", "w_mean", "w_scale", "noise_scale"} <= set(posterior)
    assert posterior["noise_scale"].sizes["task"] == NUM_TASKS


def test_it_borrows_more_where_slopes_do_not_vary(fitted):
    borrowed = 1 - fitted.relatedness(num_samples=5)[..., -1].mean()
    assert 0.3 < borrowed < 0.9


def test_a_stack_does_not_calibrate_it(data):
    alone = Preset(shared=(), fitting={"num_steps": 30})
    stack = Stack({"hierarchical": CONJUGATE, "alone": alone}, num_folds=2).fit(data)
    assert set(stack.calibrations) == {"alone"}
    assert (stack.weights[:, 0] > 0.5).all()


def test_with_many_features_the_other_settings_count():
    x = torch.randn(12, 150, generator=torch.Generator().manual_seed(0))
    many = TaskData.regression(x, x[:, 0], list("aabbcc") * 2)
    alone = Preset(shared=(), fitting={"num_steps": 20})
    one, other = (method.fit(many) for method in (ByFeatures(CONJUGATE, alone), alone))
    assert torch.equal(one.predictive(many).mean, other.predictive(many).mean)


@pytest.mark.parametrize("wrong", [{"shared": ("w",)}, {"latent_size": 3}])
def test_settings_that_do_not_go_together_are_refused(wrong):
    with pytest.raises(ValueError, match="conjugate is True"):
        replace(CONJUGATE, **wrong)


def test_classes_are_refused():
    data = TaskData.classification([[0.0], [1.0]], ["x", "y"], ["a", "a"])
    with pytest.raises(ValueError, match="expected real targets"):
        CONJUGATE.fit(data)
