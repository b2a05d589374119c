"""Models and priors against plain formulas."""

from dataclasses import replace

import pyro.distributions as dist
import torch
from problems import F64
from pyro import poutine

from pyro_vmtl import TaskData
from pyro_vmtl.models import (
    HierarchicalNormal,
    LinearClassifier,
    LinearRegressor,
    TaskNoise,
    ZeroMeanNormal,
)


def log_prob(model, data, w):
    """Log density of w and of the targets."""
    trace = poutine.trace(poutine.condition(model, {"w": w})).get_trace(data)
    trace.compute_log_prob()
    return trace.nodes["w"]["log_prob_sum"], trace.nodes["y"]["log_prob_sum"]


def test_priors_have_the_numbers_they_learn():
    hierarchical = HierarchicalNormal([2, 3], init_scale=0.7)
    with torch.no_grad():
        hierarchical.raw_scale.fill_(-1.0)
    mean = torch.randn(2, 3)
    trace = poutine.trace(poutine.condition(hierarchical, {"w_mean": mean})).get_trace()
    prior = trace.nodes["_RETURN"]["value"]
    assert torch.equal(prior.mean, mean)
    torch.testing.assert_close(prior.stddev, torch.full((2, 3), -1.0).exp())
    assert prior.batch_shape == () and prior.event_shape == (2, 3)
    trace.compute_log_prob()
    expected = dist.Normal(0.0, 0.7).log_prob(mean).sum()
    torch.testing.assert_close(trace.nodes["w_mean"]["log_prob"], expected)
    zero_mean = ZeroMeanNormal([2, 3], init_scale=0.3)()
    torch.testing.assert_close(zero_mean.stddev, torch.full((2, 3), 0.3))
    assert (zero_mean.mean == 0).all()
    zero_mean.log_prob(torch.ones(2, 3)).backward()


def test_classifier_and_regressor_row_by_row(ragged):
    torch.manual_seed(0)
    w = torch.randn(3, 1, 3, 3, dtype=F64)
    model = LinearClassifier(ZeroMeanNormal([3, 3], init_scale=0.5).double())
    expected = sum(
        (w[t, 0] @ ragged.x[t, n]).log_softmax(-1)[ragged.y[t, n]]
        for t, n in ragged.mask.nonzero().tolist()
    )
    prior, likelihood = log_prob(model, ragged, w)
    torch.testing.assert_close(likelihood, expected)
    torch.testing.assert_close(prior, dist.Normal(0, 0.5).log_prob(w).sum())

    data = replace(ragged, y=torch.randn(3, 5, dtype=F64), classes=None)
    v = torch.randn(3, 1, 3, dtype=F64)
    regressor = LinearRegressor(HierarchicalNormal([3]).double(), TaskNoise(3)).double()
    with torch.no_grad():
        regressor.noise.raw_noise_scale.copy_(torch.tensor([[-1.0], [0.0], [1.0]]))
    expected = sum(
        dist.Normal(v[t, 0] @ data.x[t, n], torch.tensor(t - 1.0).exp()).log_prob(data.y[t, n])
        for t, n in data.mask.nonzero().tolist()
    )
    mean = torch.randn(3, dtype=F64)
    prior, likelihood = log_prob(poutine.condition(regressor, {"w_mean": mean}), data, v)
    torch.testing.assert_close(likelihood, expected)  # padded targets are junk here, and masked
    torch.testing.assert_close(prior, dist.Normal(mean, 1.0).log_prob(v).sum())


def test_without_targets_a_model_draws_them():
    data = TaskData.regression([[1.0], [2.0], [3.0]], [0.0, 0.0, 0.0], ["a", "b", "b"])
    model = LinearRegressor(ZeroMeanNormal([1]), TaskNoise(2))
    trace = poutine.trace(model).get_trace(data.without_targets())
    assert trace.nodes["y"]["value"].shape == (2, 2) and not trace.nodes["y"]["is_observed"]
