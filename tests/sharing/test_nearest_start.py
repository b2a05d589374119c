"""Where source weights start: at the nearest posteriors, from which groups of tasks are found."""

import pyro.distributions as dist
import pytest
import torch

from benchmarks.datasets import GroupedTasks
from benchmarks.known_groups import own_group_share
from pyro_vmtl import TaskData, fit, relatedness, share
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.handlers.schedules import Constant
from pyro_vmtl.methods.presets import presets
from pyro_vmtl.models import LinearRegressor, TaskNoise, ZeroMeanNormal
from pyro_vmtl.sharing.sources import MIN_LOGIT, Sources, nearness


def make(start="nearest", base=True):
    """Sources of five tasks, and posteriors with their moments."""
    torch.manual_seed(0)
    sources = Sources(
        5,
        torch.Size([5, 1, 1]),
        base=base,
        temperature=Constant(1.0),
        start=start,
    )
    loc, scale = torch.randn(5, 1, 3), torch.rand(5, 1, 3) + 0.5
    posterior = dist.Normal(loc, scale).to_event(1)
    return sources, posterior, loc[:, 0], scale[:, 0]


def expected_log_density(loc, scale, extra):
    """E_q_t log N(w; mu_i, sigma_i^2 + s^2), pair by pair."""
    var = scale**2 + extra**2
    pairs = [
        [
            dist.Normal(loc[i], var[i].sqrt()).log_prob(loc[t]) - scale[t] ** 2 / (2 * var[i])
            for i in range(5)
        ]
        for t in range(5)
    ]
    return torch.stack([torch.stack([p.sum() for p in row]) for row in pairs])


def test_logits_start_at_half_the_expected_log_density():
    sources, posterior, loc, scale = make()
    sources.initialize_logits(posterior)
    every = expected_log_density(loc, scale, 0.1)
    for t in range(5):
        others = [i for i in range(5) if i != t]
        logits = (every[t, others] - every[t, others].max()) / 2
        logits = logits.clamp_min(MIN_LOGIT)
        # float64 inside, stored as float32
        torch.testing.assert_close(sources.logits[t, :4], logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(sources.logits[t, 4], logits.mean(), rtol=1e-4, atol=1e-4)
    assert sources.logits.requires_grad


def test_after_tasks_were_alone_logits_are_in_units_of_their_spread():
    """The log density of a source that is equal varies by the root of 2 P, P = 3, among equals."""
    sources, posterior, loc, scale = make(start="alone")
    sources.initialize_logits(posterior)
    every = expected_log_density(loc, scale, 0.1)
    for t in range(5):
        others = [i for i in range(5) if i != t]
        logits = (every[t, others] - every[t, others].max()) / 6**0.5
        logits = logits.clamp_min(MIN_LOGIT)
        torch.testing.assert_close(sources.logits[t, :4], logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(sources.logits[t, 4], logits.mean(), rtol=1e-4, atol=1e-4)


def test_even_and_equal_starts_are_even():
    sources, posterior, _, _ = make(start="even")
    sources.initialize_logits(posterior)
    assert (sources.logits == 0).all()
    sources, _, _, _ = make(base=False)
    with pytest.warns(UserWarning, match="All posteriors are alike .* use start='alone'"):
        sources.initialize_logits(dist.Normal(torch.zeros(5, 1, 3), 1.0).to_event(1))
    assert (sources.logits == 0).all()


def test_weights_that_are_not_learned_stay_even():
    sources, posterior, _, _ = make()
    sources.weights = "even"
    sources.initialize_logits(posterior)
    assert (sources.logits == 0).all()


def test_a_task_is_not_near_itself():
    posterior = dist.Normal(torch.zeros(3, 1, 2), 1.0).to_event(1)
    assert (nearness(posterior, 0.0).diagonal() == -torch.inf).all()


def test_the_start_is_one_of_three():
    with pytest.raises(ValueError, match="start is 'near', expected one of"):
        share(lambda: None, lambda: None, sites=["w"], start="near")


@pytest.mark.slow
def test_groups_of_32_tasks_are_found():
    """From even weights they are not: own-group shares were 0.28 and 0.99 in three draws."""
    data_set = GroupedTasks(tasks=32, groups=4)
    split = data_set.split(100, validation=True)
    y = (split.y_train - split.y_train.mean()) / split.y_train.std()
    data = TaskData.regression(split.X_train, y, split.tasks_train).with_intercept()
    preset = presets("regression")["default"].many_features.members["shared-kl-1"]
    fitted = preset.fit(data)
    share_of_own = own_group_share(fitted.relatedness().mean(0).numpy(), data_set.group)
    assert share_of_own.min() > 0.85


def test_a_fit_of_programs_of_its_own_can_start_at_the_nearest():
    X = torch.tensor([[1.0], [2.0], [3.0]] * 3)
    y = torch.cat([X[:3, 0], X[:3, 0], -X[:3, 0]])
    data = TaskData.regression(X, y, ["a"] * 3 + ["b"] * 3 + ["c"] * 3)
    guide = MeanFieldNormal({"w": (1,)}, 3)
    guide.start_at("w", torch.tensor([[1.0], [1.0], [-1.0]]), torch.full((3, 1), 0.1))
    model, guide = share(
        LinearRegressor(ZeroMeanNormal((1,)), TaskNoise(3)), guide, sites=["w"], start="nearest"
    )
    fit(model, guide, data, num_steps=1)
    weights = relatedness(guide, "w").mean(0)
    assert weights[0, 1] > 3 * weights[0, 2] and weights[1, 0] > 3 * weights[1, 2]
