"""Quantiles of mixtures against scipy, root finding, and samples."""

import numpy as np
import pytest
import torch
from problems import F64
from scipy import stats
from scipy.optimize import brentq
from torch.distributions import Categorical, Normal, Poisson

from pyro_vmtl import OverdispersedPoisson, predictive_mixture, quantiles

PROBABILITIES = [0.001, 0.05, 0.5, 0.9, 0.9999]


def draws(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_one_normal_and_one_kind_of_counts_are_those_of_scipy():
    loc = torch.tensor([[[0.0, -3.0, 1e6]]], dtype=F64)
    scale = torch.tensor([[[1.0, 1e-3, 5.0]]], dtype=F64)
    found = quantiles(predictive_mixture([Normal(loc, scale)]), PROBABILITIES)
    assert found.shape == (5, 1, 3)
    expected = stats.norm(loc[0], scale[0]).ppf(np.array(PROBABILITIES)[:, None, None])
    assert ((found - torch.tensor(expected)).abs() <= 1e-5 * scale[0]).all()
    rate = torch.tensor([[[1e-4, 0.3, 4.0, 250.0, 1e5]]], dtype=F64)
    p = np.array(PROBABILITIES)[:, None, None]
    poisson = quantiles(predictive_mixture([Poisson(rate)]), PROBABILITIES)
    np.testing.assert_array_equal(poisson, stats.poisson(rate[0]).ppf(p))
    for tau in (1.01, 3.0, 50.0):
        counts = quantiles(predictive_mixture([OverdispersedPoisson(rate, tau)]), PROBABILITIES)
        known = stats.nbinom(rate[0] / (tau - 1), 1 / tau)
        np.testing.assert_array_equal(counts, known.ppf(p))


def test_mixtures_of_normals_are_inverted(monkeypatch):
    monkeypatch.setattr("pyro_vmtl.predictive.quantiles.MAX_NUMBERS", 100)  # four rows at a time
    one = Normal(3 * draws(0, 20, 2, 5), draws(1, 20, 2, 5).exp())
    two = Normal(1 + draws(2, 5, 2, 5), 0.1)
    weights = torch.tensor([[0.2, 0.8], [0.9, 0.1]], dtype=F64)
    predictive = predictive_mixture([one, two], weights)
    found = quantiles(predictive, PROBABILITIES)
    for t in range(2):
        for n in range(5):
            loc = np.concatenate([one.loc[:, t, n], two.loc[:, t, n]])
            scale = np.concatenate([one.scale[:, t, n], two.scale[:, t, n]])
            weight = np.repeat(weights[t] / torch.tensor([20, 5]), [20, 5]).numpy()
            for p, value in zip(PROBABILITIES, found[:, t, n].tolist(), strict=True):

                def off(y, p=p, loc=loc, scale=scale, weight=weight):
                    return (weight * stats.norm(loc, scale).cdf(y)).sum() - p

                assert value == pytest.approx(brentq(off, -50, 50, xtol=1e-10), abs=1e-6)


def test_mixtures_of_counts_are_inverted():
    """Against sums of probabilities up to the 400th."""
    one = Poisson((1 + draws(0, 30, 2, 4)).exp())
    two = OverdispersedPoisson((2 + draws(1, 10, 2, 4)).exp(), 4.0)
    weights = torch.tensor([[0.5, 0.5], [0.0, 1.0]], dtype=F64)
    found = quantiles(predictive_mixture([one, two], weights), PROBABILITIES)
    y = np.arange(400)
    for t in range(2):
        for n in range(4):
            first = stats.poisson(one.rate.numpy()[:, t, n, None]).cdf(y).mean(0)
            second = stats.nbinom(two.rate.numpy()[:, t, n, None] / 3, 1 / 4).cdf(y).mean(0)
            below = weights[t, 0].item() * first + weights[t, 1].item() * second
            expected = [int(np.argmax(below >= p)) for p in PROBABILITIES]
            assert found[:, t, n].tolist() == expected


@pytest.mark.parametrize("kind", ["normal", "counts"])
def test_samples_are_at_most_the_quantile_as_often(kind):
    torch.manual_seed(0)
    values = torch.randn(50, 1, 2)
    parts = Normal(values, 0.5) if kind == "normal" else OverdispersedPoisson(values.exp(), 2.0)
    predictive = predictive_mixture([parts])
    p = torch.tensor([0.1, 0.5, 0.95])
    found = quantiles(predictive, p)
    sample = predictive.sample((20_000,))
    below = (sample <= found[:, None]).double().mean(1)
    less = (sample < found[:, None]).double().mean(1)
    error = 4 * np.sqrt(0.25 / 20_000)  # four standard errors
    assert (below >= p[:, None, None] - error).all()
    assert (less <= p[:, None, None] + error).all()


def test_large_values_in_float32_come_to_an_end():
    parts = Normal(torch.full((3, 1, 1), 1e7), torch.full((3, 1, 1), 1e-3))
    assert quantiles(predictive_mixture([parts]), [0.5]).item() == 1e7
    assert (
        quantiles(predictive_mixture([Poisson(torch.full((3, 1, 1), 1e9))]), [1 - 1e-15]).item()
        > 1e9
    )


def test_what_cannot_be_inverted_is_refused():
    normal = predictive_mixture([Normal(torch.zeros(2, 1, 1), 1.0)])
    for p in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="expected numbers between 0 and 1"):
            quantiles(normal, [0.5, p])
    with pytest.raises(ValueError, match="Classes without an order have no quantiles"):
        quantiles(predictive_mixture([Categorical(logits=torch.zeros(2, 1, 1, 3))]), [0.5])
