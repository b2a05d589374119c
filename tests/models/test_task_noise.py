"""The noise of tasks with few rows: a lower bound that is part of the model."""

import math

import pytest
import torch
from problems import F64

from pyro_vmtl import MeanFieldELBO, TaskData, fit
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.handlers.isolation import isolated, validation
from pyro_vmtl.handlers.point_estimates import point_estimates
from pyro_vmtl.inference.step import Step
from pyro_vmtl.models import LinearRegressor, ZeroMeanNormal
from pyro_vmtl.models.task_noise import TaskNoise

SIZES = [3, 40, 30, 3]
NOISE = [0.3, 0.2, 0.4, 2.0]


def noise_of(raw, rows):
    noise = TaskNoise(len(raw), 1.0, rows_per_task=torch.tensor(rows)).double()
    with torch.no_grad():
        noise.raw_noise_scale.copy_(torch.tensor(raw, dtype=F64)[:, None])
    return noise


@pytest.fixture
def lines():
    """Two tasks of 3 rows between two with more, of unequal noise."""
    generator = torch.Generator().manual_seed(0)
    tasks = [t for t, size in enumerate(SIZES) for _ in range(size)]
    X = torch.randn(len(tasks), 5, generator=generator)
    y = X[:, 0] + torch.tensor(NOISE)[tasks] * torch.randn(len(tasks), generator=generator)
    return TaskData.regression(X, y, tasks)


def test_tasks_with_few_rows_have_at_least_the_noise_of_the_others():
    raw = [-3.0, -1.0, 0.0, 2.0]
    found = noise_of(raw, [11, 12, 99, 1]).log_noise_scale.flatten().tolist()
    assert found == [-0.5, -1.0, 0.0, 2.0]
    assert noise_of(raw, [12] * 4).log_noise_scale.flatten().tolist() == raw
    assert noise_of(raw, [11] * 4).log_noise_scale.flatten().tolist() == [0.0, 0.0, 0.0, 2.0]
    assert noise_of(raw[:1], [1]).log_noise_scale.item() == -3.0


def test_tasks_below_the_bound_can_only_rise_and_do_not_move_it():
    raw, rows = [-3.0, -4.0, -1.0, 0.0, 2.0], [3, 3, 12, 99, 1]
    for sign in (1.0, -1.0):
        noise = noise_of(raw, rows)
        gradient = sign * torch.arange(1.0, 6.0, dtype=F64)[:, None]
        noise.log_noise_scale.backward(gradient)
        expected = gradient.clone()
        if sign > 0:  # descent would lower these
            expected[:2] = 0.0
        assert torch.equal(noise.raw_noise_scale.grad, expected)
    noise = noise_of(raw, [3] * 5)  # the one at the median is free
    noise.log_noise_scale.backward(gradient.abs())
    assert noise.raw_noise_scale.grad.flatten().tolist() == [0, 0, 3, 4, 5]


def test_without_larger_tasks_half_of_them_are_fitted_and_bound_the_others():
    """The noise of each task alone is known: the bound is its median."""
    best = torch.tensor([-3.0, -1.0, -2.0, 0.5, -0.5], dtype=F64)[:, None]
    noise = noise_of([0.0] * 5, [3] * 5)
    optimizer = torch.optim.Adam(noise.parameters(), lr=0.02)
    for step in range(1500):
        optimizer.param_groups[0]["lr"] = 0.02 * 0.995 ** max(0, step - 500)
        optimizer.zero_grad()
        log_scale = noise.log_noise_scale
        (log_scale + 0.5 * (2 * (best - log_scale)).exp()).sum().backward()  # normal, per row
        optimizer.step()
    found = noise.log_noise_scale.detach()
    torch.testing.assert_close(found, best.clamp(min=-1.0), rtol=0, atol=0.03)


def test_the_history_is_of_the_model_that_predicts(lines):
    """With point estimates the loss is a function of the parameters alone."""
    noise = TaskNoise(4, rows_per_task=lines.rows_per_task)
    pair = (
        LinearRegressor(ZeroMeanNormal([5]), noise),
        point_estimates(MeanFieldNormal({"w": [5]}, 4)),
    )
    result = fit(*pair, lines)
    scale = noise.noise_scale.flatten().tolist()
    usual = math.sqrt(scale[1] * scale[2])
    assert scale[0] == pytest.approx(usual) and scale[3] > 1.5 * usual
    loss = MeanFieldELBO().loss(*pair, lines)
    # the last step is a hundredth of the learning rate, near an optimum
    assert loss == pytest.approx(result.history.loss[-1].item(), abs=0.01)
    noise.few_rows = torch.zeros_like(noise.few_rows)
    assert abs(MeanFieldELBO().loss(*pair, lines) - loss) > 1


def test_recorded_steps_are_those_that_are_traced(lines):
    torch.manual_seed(0)
    model = LinearRegressor(ZeroMeanNormal([5]), TaskNoise(4, rows_per_task=lines.rows_per_task))
    loss_of = MeanFieldELBO()(model, MeanFieldNormal({"w": [5]}, 4))
    step = Step(loss_of, (lines,))
    for raw in ([-1.0, 0.0, -0.5, 1.0], [1.0, 0.0, -0.5, -2.0]):
        outcomes = []
        for recording in (False, True):
            step.recording = recording
            with torch.no_grad():
                model.noise.raw_noise_scale.copy_(torch.tensor(raw)[:, None])
            with isolated(3), validation(False):
                loss, _ = step()
            outcomes.append((loss, model.noise.raw_noise_scale.grad))
        for one, other in zip(*outcomes, strict=True):
            torch.testing.assert_close(one, other)


def test_without_small_tasks_nothing_changes(lines):
    data = lines.map_rows(lambda v: v[1:3])
    losses = []
    for rows in (None, data.rows_per_task):
        model = LinearRegressor(ZeroMeanNormal([5]), TaskNoise(2, rows_per_task=rows))
        guide = MeanFieldNormal({"w": [5]}, 2)
        losses.append(fit(model, guide, data, num_steps=60).history.loss)
    assert torch.equal(*losses)
