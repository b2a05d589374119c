"""Programs that declare nothing are replayed if that is the same, and only then."""

import itertools
import logging
import random
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from torch import nn

from pyro_vmtl import MeanFieldELBO, RandomRows, TaskData, fit, share
from pyro_vmtl.inference import course
from pyro_vmtl.inference.step import Step

STEPS = course.RECORD_AFTER + 100


@pytest.fixture
def data():
    torch.manual_seed(0)
    return TaskData.regression(torch.randn(20, 2), torch.randn(20), ["a", "b", "b", "b"] * 5)


class Runs:
    """The number of runs of a program, where a check does not look: it leaves classes out."""

    number = 0


class Program:
    """A linear regression with a place for more."""

    def __init__(self, more=lambda w: 0.0):
        self.more = more

    def __call__(self, data):
        Runs.number += 1
        with pyro.plate("task", data.num_tasks, dim=-2):
            w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            mean = (data.x @ w.mT).squeeze(-1) + self.more(w)
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
                pyro.sample("y", dist.Normal(mean, 1.0), obs=data.y)


def fitted(program, data, **settings):
    Runs.number = 0
    torch.manual_seed(0)
    result = fit(
        *share(program, AutoNormal(program), sites=["w"]), data, num_steps=STEPS, **settings
    )
    return result.history.loss, Runs.number


@pytest.mark.parametrize(
    "settings", [{}, {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=4)}]
)
def test_programs_of_ones_own_are_replayed_exactly(data, settings, monkeypatch):
    replayed, runs = fitted(Program(), data, **settings)
    monkeypatch.setattr(Step, "allow_recording", lambda self: False)
    run, most = fitted(Program(), data, **settings)
    assert torch.equal(replayed, run)
    assert runs < most - 30 if settings else runs <= course.RECORD_AFTER + 20 < most


def test_batches_of_the_library_are_replayed_too(data, monkeypatch):
    guide = Mean()
    replayed = fit(Program(), guide, data, num_steps=60, batches=RandomRows(3)).history.loss
    monkeypatch.setattr(Step, "allow_recording", lambda self: False)
    run = fit(Program(), Mean(), data, num_steps=60, batches=RandomRows(3)).history.loss
    assert torch.equal(replayed, run)


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(2, 1, 2))

    def forward(self, data):
        with pyro.plate("task", data.num_tasks, dim=-2):
            pyro.sample("w", dist.Normal(self.loc, 0.3).to_event(1))


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.steps = 0

    def forward(self, w):
        self.steps += 1
        return 100.0 if self.steps > 60 else 0.0


def of_closure():
    steps = 0

    def more(w):
        nonlocal steps
        steps += 1
        return 100.0 if steps > 60 else 0.0

    return more


def of_iterator():
    numbers = itertools.count()
    return lambda w: 100.0 if next(numbers) > 60 else 0.0


def of_tensor():
    """A counter that is a tensor, made anew at each step."""
    box = {"steps": torch.tensor(0.0)}

    def more(w):
        box["steps"] = box["steps"] + 1
        return 100.0 * (box["steps"] > 60)

    return more


@pytest.mark.parametrize("make", [Counter, of_closure, of_iterator, of_tensor])
def test_counters_of_steps_are_found_before_they_matter(data, make, caplog, monkeypatch):
    with caplog.at_level(logging.INFO):
        loss, runs = fitted(Program(make()), data)
    assert "a run changes what they remember" in caplog.text
    assert runs >= STEPS and loss[-30:].mean() > 1000 > loss[30:50].mean()
    monkeypatch.setattr(Step, "allow_recording", lambda self: False)
    assert torch.equal(loss, fitted(Program(make()), data)[0])  # no run more, none less


def test_a_branch_on_a_draw_is_run(data, caplog):
    def more(w):
        return 1.0 if w.sum() > 0 else 0.0

    with caplog.at_level(logging.INFO), warnings.catch_warnings():
        warnings.simplefilter("error")
        _, runs = fitted(Program(more), data)
    assert runs >= STEPS and "not replayed" in caplog.text


def test_numbers_outside_of_torch_are_found_at_the_next_step(data):
    def more(w):  # the same at the first check, as the draws are
        return float(w.detach().numpy().sum())

    with pytest.warns(UserWarning, match="a run and its replay differ.* Of the last 1 steps"):
        _, runs = fitted(Program(more), data)
    assert runs >= STEPS


def test_random_branches_of_python_are_found(data, caplog):
    """Each of the seven checks finds them with a probability of one half; the seed is fixed."""
    numbers = random.Random(0)

    def more(w):
        return 1.0 if numbers.random() < 0.5 else 0.0

    with caplog.at_level(logging.INFO), warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fitted(Program(more), data)
    assert any("not replayed" in str(each) for each in [caplog.text, *found])


def test_batches_of_ones_own_are_run(data):
    def batches(rows):
        batches.calls += 1
        return rows, torch.ones(rows.num_tasks)

    batches.calls = 0
    fit(Program(), Mean(), data, num_steps=STEPS, batches=batches)
    assert batches.calls >= STEPS
