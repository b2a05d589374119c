"""Prediction against plain averages and closed forms."""

import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from problems import F64, classifier
from pyro import poutine

from pyro_vmtl import (
    TaskData,
    likelihood_draws,
    log_predictive_density,
    predict_moments,
    predict_proba,
    predictive_mixture,
    share,
)
from pyro_vmtl.guides import EncodedNormal, LinearEncoder, MeanFieldNormal
from pyro_vmtl.models import LinearRegressor, TaskNoise, ZeroMeanNormal


def regressor():
    torch.manual_seed(0)
    X = torch.randn(7, 2, dtype=F64)
    data = TaskData.regression(X, torch.randn(7, dtype=F64), list("abababa"))
    model = LinearRegressor(ZeroMeanNormal([2]), TaskNoise(2, 0.5)).double()
    guide = MeanFieldNormal({"w": [2]}, 2, init_scale=0.3).double()
    with torch.no_grad():
        guide.locs["w"].normal_()
    return model, guide, data


def test_probabilities_are_the_mean_of_the_likelihood(ragged):
    model, guide = classifier(ragged)
    proba = predict_proba(model, guide, ragged.without_targets(), num_samples=20_000)
    assert proba.shape == (3, 5, 3) and not proba.requires_grad
    torch.testing.assert_close(proba.sum(-1), torch.ones(3, 5, dtype=F64))
    torch.manual_seed(1)
    w = guide.posterior("w").sample([20_000]).squeeze(2)
    expected = torch.einsum("tnf,stcf->stnc", ragged.x, w).softmax(-1).mean(0)
    # two Monte Carlo means of numbers in [0, 1]: 5 * sqrt(2) * 0.5 / sqrt(20000)
    torch.testing.assert_close(proba, expected, rtol=0, atol=0.025)


def test_targets_sharing_and_batches_do_not_change_a_prediction(ragged, monkeypatch):
    model, guide = classifier(ragged)
    one = predict_proba(model, guide, ragged, num_samples=50)
    assert torch.equal(one, predict_proba(model, guide, ragged, num_samples=50))
    shared_pair = share(model, guide, sites=["w"])
    close = predict_proba(*shared_pair, ragged, num_samples=20_000)
    plain = predict_proba(model, guide, ragged, num_samples=20_000)
    torch.testing.assert_close(close, plain, rtol=0, atol=0.025)
    monkeypatch.setattr("pyro_vmtl.predictive.posterior_predictive.MOST_NUMBERS", 10_000)
    batched = predict_proba(model, guide, ragged, num_samples=20_001)
    torch.testing.assert_close(batched, plain, rtol=0, atol=0.025)
    density = log_predictive_density(model, guide, ragged, num_samples=20_001)
    truth = plain.gather(-1, ragged.y[..., None]).squeeze(-1)
    torch.testing.assert_close(density.exp()[ragged.mask], truth[ragged.mask], rtol=0, atol=0.025)
    torch.testing.assert_close(batched.sum(-1), torch.ones(3, 5, dtype=F64))


@pytest.mark.parametrize("most_numbers", [20_000_000, 50_000])
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_moments_against_the_closed_form(shift, most_numbers, monkeypatch):
    monkeypatch.setattr("pyro_vmtl.predictive.posterior_predictive.MOST_NUMBERS", most_numbers)
    model, guide, data = regressor()
    if shift:
        data = data.with_intercept()
        guide = MeanFieldNormal({"w": [3]}, 2, init_scale=0.3).double()
        with torch.no_grad():
            guide.locs["w"][..., -1] = shift
    mean, std = predict_moments(model, guide, data, num_samples=20_000)
    loc = guide.posterior("w").mean
    expected_mean = (data.x @ loc.mT).squeeze(-1)
    expected_var = 0.3**2 * (data.x**2).sum(-1) + 0.5**2
    error = (expected_var / 20_000).sqrt()
    assert ((mean - expected_mean).abs() < 5 * error + 1e-9).all()
    # a sample variance has a relative error of sqrt(2 / 20000) = 1 %
    torch.testing.assert_close(std**2, expected_var, rtol=0.05, atol=0)


def test_log_density_against_the_closed_form():
    model, guide, data = regressor()
    mean = (data.x @ guide.posterior("w").mean.mT).squeeze(-1).detach()
    data = replace(data, y=mean + 0.5)
    density = log_predictive_density(model, guide, data, num_samples=20_000)
    var = 0.3**2 * (data.x**2).sum(-1) + 0.5**2
    expected = dist.Normal(mean, var.sqrt()).log_prob(data.y).where(data.mask, 0.0)
    # near the middle a mean of 20,000 likelihoods has a relative error below 1 %
    torch.testing.assert_close(density, expected, rtol=0.0, atol=0.03)


def test_log_density_is_the_log_of_the_probability(ragged):
    model, guide = classifier(ragged)
    density = log_predictive_density(model, guide, ragged, num_samples=300)
    proba = predict_proba(model, guide, ragged, num_samples=300)
    expected = proba.gather(-1, ragged.y[..., None]).squeeze(-1).log().where(ragged.mask, 0.0)
    torch.testing.assert_close(density, expected)


def test_errors_name_the_way_out(ragged):
    model, guide = classifier(ragged)
    with pytest.raises(ValueError, match="no site 'z', found"):
        predict_proba(model, guide, ragged, site="z")
    with pytest.raises(ValueError, match="not observed"):
        log_predictive_density(model, guide, ragged.without_targets())
    with pytest.raises(ValueError, match="num_samples is 0"):
        predict_proba(model, guide, ragged, num_samples=0)
    with pytest.raises(ValueError, match="categorical and has no mean"):
        predict_moments(model, guide, ragged)
    regression = regressor()
    with pytest.raises(ValueError, match="is Normal, expected Categorical"):
        predict_proba(*regression)


def test_sequential_plates_and_plain_masks_are_legal():
    def model(y):
        scale = sum(pyro.sample(f"s{i}", dist.Gamma(9.0, 9.0)) for i in pyro.plate("part", 2))
        with pyro.plate("task", 3), poutine.mask(mask=True):
            pyro.sample("y", dist.Normal(torch.zeros(3), scale), obs=y)

    def guide(y):
        for i in pyro.plate("part", 2):
            pyro.sample(f"s{i}", dist.Gamma(9.0, 9.0))

    density = log_predictive_density(model, guide, torch.zeros(3), num_samples=50)
    assert density.shape == (3,)
    assert predict_moments(model, guide, None, num_samples=50)[1].shape == (3,)


def test_bare_parameters_are_not_forgotten_in_silence():
    def model(y):
        with pyro.plate("task", 3):
            w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0))
            pyro.sample("y", dist.Normal(w, 1.0), obs=y)

    def guide(y):
        with pyro.plate("task", 3):
            pyro.sample("w", dist.Normal(pyro.param("loc", torch.zeros(3)), 1.0))

    with pytest.raises(ValueError, match=r"pyro.param\('loc'\)"):
        predict_moments(model, guide, None)


def test_padding_and_other_tasks_rows_do_not_matter(ragged):
    model, guide = classifier(ragged)
    some = ragged.new_rows(ragged.x[1, :1], ["b"])
    assert some.x.shape == (3, 1, 3)
    proba = some.unpad(predict_proba(model, guide, some, num_samples=5000))
    all_rows = predict_proba(model, guide, ragged, num_samples=5000)[1, 0]
    torch.testing.assert_close(proba[0], all_rows, rtol=0, atol=5 / math.sqrt(5000))


def test_the_cdf_is_that_of_the_closed_form():
    model, guide, data = regressor()
    draws = likelihood_draws(model, guide, data, num_samples=20_000)
    u = predictive_mixture([draws]).cdf(data.y)
    loc, scale = guide.locs["w"], guide.raw_scales["w"].exp()
    mean = (data.x @ loc.mT).squeeze(-1)
    std = ((data.x**2 @ (scale**2).mT).squeeze(-1) + 0.5**2).sqrt()
    expected = dist.Normal(mean, std).cdf(data.y)
    # a Monte Carlo mean of numbers in [0, 1]: 5 * 0.5 / sqrt(20000)
    torch.testing.assert_close(u[data.mask], expected[data.mask], rtol=0, atol=0.018)


def test_a_prediction_has_no_dropout_and_leaves_the_mode_as_it_was(ragged):
    from pyro_vmtl.models import LatentClassifier, StandardNormal

    torch.manual_seed(0)
    encoder = LinearEncoder(3, 2, dropout=0.9, init_loc_scale=3.0).double()
    guide = EncodedNormal(encoder, MeanFieldNormal({"w": (3, 2)}, 3, init_loc_scale=3.0).double())
    model = LatentClassifier(StandardNormal([3, 2]).double(), 2)
    guide.others.eval()
    found = predict_proba(model, guide, ragged.without_targets(), num_samples=30)
    assert encoder.training and not guide.others.training
    guide.eval()
    assert torch.equal(found, predict_proba(model, guide, ragged.without_targets(), num_samples=30))
