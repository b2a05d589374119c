"""Counts: their distribution, model, start and calibration, and the default for them."""

from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from problems import F64
from pyro import poutine
from pyro.distributions import GammaPoisson
from scipy import stats
from sklearn.linear_model import PoissonRegressor
from torch.distributions import Poisson

from pyro_vmtl import (
    Calibration,
    OverdispersedPoisson,
    Stack,
    TaskData,
    likelihood_draws,
    log_predictive_density,
    predict_moments,
    predictive_mixture,
    quantiles,
)
from pyro_vmtl.handlers.program_handler import unwrap
from pyro_vmtl.inference.initialization import counts_start, usual_log_rate
from pyro_vmtl.methods.preset import Preset
from pyro_vmtl.methods.presets import DEFAULT, presets
from pyro_vmtl.models import LinearCounts, StandardNormal


def grouped(seed, *, tasks=12, groups=3, rows=10, features=4, rate=5.0, noise=1.0):
    """Tasks in groups; training and test rows. Noise is the dispersion."""
    rng = np.random.RandomState(seed)
    centre = 0.4 * rng.randn(groups, features)
    group = np.arange(tasks) % groups
    w = centre[group] + 0.1 * rng.randn(tasks, features)
    level = np.log(rate) + 0.4 * rng.randn(groups)[group]
    parts = []
    for n in (rows, 100):
        x = rng.randn(tasks, n, features)
        mean = np.exp(level[:, None] + np.einsum("tnf,tf->tn", x, w))
        if noise > 1:
            mean = rng.gamma(mean / (noise - 1), noise - 1)
        task = np.repeat(np.arange(tasks), n)
        parts.append((x.reshape(-1, features), rng.poisson(mean).ravel().astype(float), task))
    data = TaskData.regression(*parts[0]).with_intercept()
    x, y, task = parts[1]
    return data, data.new_rows(x, task, y)


def quick(preset):
    return replace(preset, fitting={**preset.fitting, "num_steps": 40})


# The distribution


@pytest.mark.parametrize("dispersion", [1.0, 1.05, 1.5, 20.0])
@pytest.mark.parametrize("rate", [1e-3, 0.7, 30.0, 1e5])
def test_counts_have_the_density_of_scipy(rate, dispersion):
    y = torch.tensor(sorted({0, 1, 2, int(rate), int(2 * rate) + 3}), dtype=F64)
    counts = OverdispersedPoisson(torch.tensor(rate, dtype=F64), dispersion)
    if dispersion == 1:
        known = stats.poisson(rate)
    else:
        known = stats.nbinom(rate / (dispersion - 1), 1 / dispersion)
    expected = torch.tensor(known.logpmf(y.numpy()))
    # Poisson is taken for a dispersion of 1.0001: half of 1e-4 * (y - rate)^2 / rate
    atol = 1e-8 if dispersion > 1 else 1e-4 * (1 + ((y - rate) ** 2 / rate).max().item())
    torch.testing.assert_close(counts.log_prob(y), expected, rtol=1e-8, atol=atol)
    assert counts.mean.item() == pytest.approx(known.mean())
    assert counts.variance.item() == pytest.approx(known.var())


def test_draws_have_mean_and_variance():
    torch.manual_seed(0)
    drawn = OverdispersedPoisson(torch.tensor([0.5, 8.0]), torch.tensor([1.0, 3.0])).sample(
        (40_000,)
    )
    assert drawn.shape == (40_000, 2) and (drawn == drawn.round()).all()
    # standard errors: 0.004 and 0.02 of the means, some 0.01 and 0.2 of the variances
    torch.testing.assert_close(drawn.mean(0), torch.tensor([0.5, 8.0]), atol=0.08, rtol=0)
    torch.testing.assert_close(drawn.var(0), torch.tensor([0.5, 24.0]), atol=0.8, rtol=0.05)


def test_the_density_near_poisson_has_a_gradient_in_float32():
    dispersion = torch.tensor(1.01, requires_grad=True)
    rate = torch.full((3,), 1e4, requires_grad=True)
    OverdispersedPoisson(rate, dispersion).log_prob(torch.tensor([9e3, 1e4, 2e4])).sum().backward()
    assert torch.isfinite(rate.grad).all() and torch.isfinite(dispersion.grad)


# The model


def test_the_model_row_by_row(ragged):
    data = replace(ragged, y=torch.arange(15.0, dtype=F64).reshape(3, 5), classes=None)
    w = 0.3 * torch.randn(3, 1, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    model = LinearCounts(StandardNormal([3]), log_rate=0.5).double()
    trace = poutine.trace(poutine.condition(model, {"w": w})).get_trace(data)
    trace.compute_log_prob()
    expected = sum(
        stats.poisson(np.exp(0.5 + (w[t, 0] @ data.x[t, n]).item())).logpmf(data.y[t, n].item())
        for t, n in data.mask.nonzero().tolist()
    )
    assert trace.nodes["y"]["log_prob_sum"].item() == pytest.approx(expected)


@pytest.mark.parametrize("size", [-1e4, 1e4])
def test_rates_and_their_squares_are_finite(size):
    data = TaskData.regression([[1.0]], [3.0], ["a"])
    w = torch.full((1, 1, 1), size)
    model = poutine.condition(LinearCounts(StandardNormal([1])), {"w": w})
    fn = poutine.trace(model).get_trace(data).nodes["y"]["fn"]
    rate = fn.rate
    assert rate.dtype == torch.float32 and (rate > 0).all() and torch.isfinite(rate**2).all()


# The start


@pytest.mark.parametrize("num_features", [3, 12])  # fewer and more than rows in a task
def test_the_start_is_the_best_point_and_its_curvature(num_features):
    """Against Newton's method to the end, in numpy, one task at a time."""
    data, _ = grouped(0, tasks=3, groups=1, rows=10, features=num_features)
    data = replace(data, x=data.x.double(), y=data.y.double())
    offset, ridge = 0.7, 0.5
    loc, scale = counts_start(data, kl_weight=ridge, log_rate=offset)
    for t in range(3):
        x, y = data.x[t].numpy(), data.y[t].numpy()
        w = np.zeros(x.shape[1])
        w[-1] = np.log(y.mean() + 0.5) - offset
        for _ in range(50):
            rate = np.exp(offset + x @ w)
            hessian = x.T @ (rate[:, None] * x) + ridge * np.eye(len(w))
            w = w + 0.5 * np.linalg.solve(hessian, x.T @ (y - rate) - ridge * w)
        # what eight steps leave of a coefficient, at most
        np.testing.assert_allclose(loc[t], w, atol=1e-3)
        rate = np.exp(offset + x @ loc[t].numpy())
        np.testing.assert_allclose(scale[t] ** -2.0, 1 + (rate @ x**2) / ridge)


def test_the_first_step_is_weighted_least_squares(monkeypatch):
    """By hand, from the rates half-way between the mean and the counts."""
    monkeypatch.setattr("pyro_vmtl.inference.initialization.NEWTON_STEPS", 1)
    x, y = np.array([[1.0, 0.3], [1.0, -1.0], [1.0, 2.0]]), np.array([2.0, 0.0, 7.0])
    data = TaskData.regression(torch.tensor(x), torch.tensor(y), ["a"] * 3)
    loc, _ = counts_start(data, kl_weight=0.4)
    mean = (9.0 + np.exp(usual_log_rate(data))) / 4
    rate = (y + mean) / 2
    target = np.log(rate) + y / rate - 1
    by_hand = np.linalg.solve(x.T @ (rate[:, None] * x) + 0.4 * np.eye(2), x.T @ (rate * target))
    np.testing.assert_allclose(loc[0], by_hand, rtol=1e-5)


@pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
def test_awkward_tasks_have_a_start(size):
    """Only zeros, a single row, one huge count, and no rows."""
    x = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0)) * size
    y = torch.tensor([[0.0] * 6, [5.0] + [0.0] * 5, [0.0] * 5 + [1e6], [0.0] * 6])
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[1, 1:], mask[3] = False, False
    row = torch.arange(24).reshape(4, 6)
    data = TaskData(x * mask[..., None], y, mask, row, tuple("abcd")).with_intercept()
    for kl_weight in (1.0, 1e-3):
        loc, scale = counts_start(data, kl_weight=kl_weight, log_rate=usual_log_rate(data))
        assert torch.isfinite(loc).all() and torch.isfinite(scale).all() and (scale > 0).all()
        assert (loc[3] == 0).all() and (scale[3] == 1).all()
    zeros = replace(data, y=torch.zeros(4, 6))
    for value in counts_start(zeros, log_rate=usual_log_rate(zeros)):
        assert torch.isfinite(value).all()


# What draws predict


def test_the_rate_and_dispersion_of_counts_are_found():
    """True spread 0.5 of the draws', variance three times the mean, each row with its own draws."""
    torch.manual_seed(1)
    log_rate = 2 + torch.linspace(-1, 1, 3000) + 0.8 * torch.randn(100, 3000)
    truth = log_rate.mean(0) + 0.5 * 0.8 * torch.randn(3000)
    y = OverdispersedPoisson(truth.exp(), 3.0).sample()
    found = Calibration.learn(Poisson(log_rate.exp()), y)
    # 3,000 variances have a relative standard error of some 3 %, the spread of some 5 %
    assert found.temperature == pytest.approx(3.0, rel=0.1)
    assert found.posterior_scale == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("rate", [0.5, 20.0, 5e3])
def test_poisson_counts_have_a_temperature_near_1(rate):
    torch.manual_seed(2)
    rates = rate * (0.3 * torch.randn(3000)).exp()
    y = torch.poisson(rates)
    found = Calibration.learn(Poisson(rates.expand(4, -1)), y)
    assert 1 <= found.temperature < 1.06  # sqrt(2 / 3000) is 0.026


def test_a_calibration_acts_on_log_rates():
    rate = torch.tensor([[1.0], [np.e**2]])
    corrected = Calibration(posterior_scale=0.5, temperature=3.0)(Poisson(rate))
    torch.testing.assert_close(corrected.rate.log(), torch.tensor([[0.5], [1.5]]))
    torch.testing.assert_close(corrected.variance, 3 * corrected.rate)
    same = Calibration()(Poisson(rate))
    torch.testing.assert_close(same.rate, rate)
    assert (same.dispersion == 1).all()
    with pytest.raises(ValueError, match=r"temperature is 0.5, expected at least 1 for Poisson"):
        Calibration(temperature=0.5)(Poisson(rate))


def test_a_mixture_of_counts_by_hand():
    """A Poisson member with weight 0.3 in one task, an over-dispersed one with the rest."""
    one, two = torch.rand(5, 2, 3) * 9 + 0.1, torch.rand(7, 2, 3) * 9 + 0.1
    weights = torch.tensor([[0.3, 0.7], [1.0, 0.0]])
    found = predictive_mixture([Poisson(one), OverdispersedPoisson(two, 2.5)], weights)
    y = torch.tensor([[0.0, 3.0, 12.0], [1.0, 2.0, 5.0]])
    p = stats.poisson(one).pmf(y).mean(0), stats.nbinom(two / 1.5, 1 / 2.5).pmf(y).mean(0)
    w = weights.numpy()[:, None]
    expected = np.log(w[..., 0] * p[0] + w[..., 1] * p[1])
    np.testing.assert_allclose(found.log_prob(y), expected, atol=2e-3)  # Poisson as 1.0001
    first = w[..., 0] * one.mean(0).numpy() + w[..., 1] * two.mean(0).numpy()
    np.testing.assert_allclose(found.mean, first, rtol=1e-5)
    square_one, square_two = (one + one**2).mean(0), (2.5 * two + two**2).mean(0)
    second = w[..., 0] * square_one.numpy() + w[..., 1] * square_two.numpy()
    np.testing.assert_allclose(found.variance, second - first**2, rtol=1e-4)


# Presets


@pytest.mark.parametrize("name", DEFAULT.members)
def test_every_member_fits_and_predicts(name):
    data, test = grouped(0, tasks=4)
    fitted = quick(presets("counts")["default"].many_features.members[name]).fit(data)
    assert torch.isfinite(fitted.result.history.loss).all()
    [draws] = fitted.draws(test, num_samples=30)
    assert isinstance(draws, Poisson) and draws.rate.shape == (30, 4, 100)
    predictive = fitted.predictive(test, num_samples=30)
    assert torch.isfinite(predictive.log_prob(test.y)).all()
    if name == "pooled":
        return
    settings = {"num_samples": 30, "seed": 0}
    program = (unwrap(fitted.model), unwrap(fitted.guide), test)
    mean, std = predict_moments(*program, **settings)
    torch.testing.assert_close(predictive.mean, mean)
    torch.testing.assert_close(predictive.variance.sqrt(), std, rtol=1e-4, atol=1e-4)
    density = log_predictive_density(*program, **settings)
    # Poisson is taken for a dispersion of 1.0001
    torch.testing.assert_close(predictive.log_prob(test.y), density, rtol=1e-3, atol=1e-3)


def test_a_task_without_rows_and_ragged_tasks_are_predicted():
    X = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    data = TaskData.regression(X, [0, 0, 0, 4, 9, 2, 1, 3, 7], list("aaabbbbcd")).with_intercept()
    stack = presets("counts")["default"].many_features
    two = {name: quick(stack.members[name]) for name in ("shared", "pooled")}
    stack = Stack(two, num_folds=2)
    predictive = stack.fit(data).predictive(data)
    low, high = quantiles(predictive, [0.05, 0.95])
    for value in (predictive.mean, predictive.log_prob(data.y), low, high):
        assert torch.isfinite(value[data.mask]).all()
    assert (low <= high).all()


def test_what_is_no_count_is_refused():
    shared = presets("counts")["shared"].many_features
    X, tasks = [[1.0], [2.0], [3.0]], ["Ada", "Bo", "Bo"]
    for y, shown in (([1, 2, -3], "-3"), ([1, 2, 0.5], "0.5")):
        with pytest.raises(ValueError, match=rf"y is {shown} in row 2, task 'Bo', expected counts"):
            shared.fit(TaskData.regression(X, y, tasks))
    with pytest.raises(ValueError, match=r"targets are classes, \['x', 'y'\], expected counts"):
        shared.fit(TaskData.classification(X, ["x", "y", "y"], tasks))
    with pytest.raises(ValueError, match="latent_size 3, expected None"):
        Preset(likelihood="Poisson", latent_size=3)


def test_multivariate_likelihoods_are_refused():
    def program(data):
        with pyro.plate("task", 1, dim=-2), pyro.plate("data", 2, dim=-1):
            pyro.sample("y", dist.Dirichlet(torch.ones(1, 2, 3)))

    with pytest.raises(ValueError, match="Site 'y' is Dirichlet, expected a univariate"):
        likelihood_draws(program, lambda data: None, None)


@pytest.mark.slow
def test_the_default_predicts_better_than_tasks_alone_and_its_intervals_hold():
    """Twelve tasks of ten rows in three groups, 1,200 rows to test."""
    data, test = grouped(1, noise=2.5)
    # 50 steps, after which a fit would be recorded, which takes longer than they do. The density is
    # that of a whole fit to 0.01, and both intervals hold 0.957.
    members = {
        name: replace(member, fitting={**member.fitting, "num_steps": 50})
        for name, member in presets("counts")["default"].many_features.members.items()
    }
    predictive = Stack(members).fit(data).predictive(test)
    density = predictive.log_prob(test.y)
    alone = []
    for t in range(data.num_tasks):
        x, y = data.x[t, :, :-1].numpy(), data.y[t].numpy()  # it has an intercept of its own
        rate = PoissonRegressor(alpha=0.1).fit(x, y).predict(test.x[t, :, :-1].numpy())
        alone.append(stats.poisson(rate).logpmf(test.y[t].numpy()))
    assert density.mean().item() > np.mean(alone) + 0.1
    low, high = quantiles(predictive, [0.05, 0.95])
    inside = ((test.y >= low) & (test.y <= high)).double().mean().item()
    assert 0.85 <= inside <= 0.97  # whole numbers hold a little more than 90 %


def test_gamma_poisson_counts_are_the_same_distribution():
    rate, excess = torch.tensor([0.5, 3.0, 20.0]), 1.5
    counts = GammaPoisson(rate / excess, torch.full((3,), 1 / excess))
    ours = OverdispersedPoisson(rate, 1 + excess)
    y = torch.tensor([0.0, 4.0, 31.0])
    torch.testing.assert_close(counts.log_prob(y), ours.log_prob(y))
    draws = counts.expand((5, 1, 3))
    found = predictive_mixture([draws])
    torch.testing.assert_close(found.log_prob(y[None]), ours.log_prob(y)[None])


def test_few_features_and_varying_counts_learn_their_dispersion():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 1, generator=generator)
    rate = (1.5 + 0.5 * x[:, 0]).exp()
    torch.manual_seed(0)
    y = OverdispersedPoisson(rate, 1 + 0.5 * rate).sample()
    data = TaskData.regression(x, y, [f"t{n % 20}" for n in range(600)]).with_intercept()
    fitted = presets("counts")["mixed-model"].fit(data)
    overdispersion = unwrap(fitted.guide).posterior("overdispersion")
    # 0.5, and its posterior's own width
    assert abs(overdispersion.mean.item() - 0.5) < 3 * overdispersion.stddev.item() + 0.05
    assert 0.02 < overdispersion.stddev.item() < 0.1
