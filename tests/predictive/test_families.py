"""Families: whatever distribution a likelihood has, it can be mixed, inverted and calibrated."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Bernoulli, Gamma, Laplace, LogNormal, NegativeBinomial, StudentT

from pyro_vmtl import Calibration, Family, family_of, predictive_mixture, quantiles, register_family
from pyro_vmtl.predictive.families import _FAMILIES, family_named


def test_any_univariate_distribution_has_a_family():
    draws = StudentT(torch.full((3, 2, 4), 5.0), torch.randn(3, 2, 4), 2.0)
    family = family_of(draws)
    assert family.parameters == ("df", "loc", "scale")
    first = family.map(lambda values: values[0][:1], draws)
    assert torch.equal(first.loc, draws.loc[:1]) and first.batch_shape == (1, 2, 4)
    counts = NegativeBinomial(torch.ones(3), logits=torch.zeros(3))
    assert family_of(counts).parameters == ("total_count", "logits")
    with pytest.raises(ValueError, match="Site 'y' is MultivariateNormal, expected a univariate"):
        family_of(torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2)), "Site 'y'")


def test_parameters_that_torch_makes_of_others_do_not_matter():
    draws = Bernoulli(logits=torch.zeros(4, 1, 2))
    assert draws.mean.shape == (4, 1, 2)  # torch now keeps `probs`, too
    mixture = predictive_mixture([draws])
    assert mixture.mean.shape == (1, 2)
    assert quantiles(mixture, [0.2, 0.8]).flatten().tolist() == [0, 0, 1, 1]
    assert family_of(LogNormal(torch.zeros(3), 1.0)).parameters == ("loc", "scale")


def test_families_are_not_mixed():
    parts = [StudentT(4.0, torch.zeros(3, 1, 2)), Laplace(torch.zeros(3, 1, 2), 1.0)]
    with pytest.raises(ValueError, match="likelihoods are Laplace, StudentT, expected one family"):
        predictive_mixture(parts)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.9, 0.1)])
def test_mixtures_and_quantiles_are_those_of_scipy(weights):
    """Student's t has no distribution function in torch: 4,000 draws, error of p below 0.01."""
    parts = [StudentT(torch.full((50, 1, 1), 4.0), loc, 1.0) for loc in (-2.0, 3.0)]
    mixture = predictive_mixture(parts, torch.tensor([weights]))

    def cdf(x):
        return sum(w * stats.t.cdf(x, 4, m) for w, m in zip(weights, (-2, 3), strict=True))

    y = torch.tensor([[1.5]])
    density = sum(w * stats.t.pdf(1.5, 4, m) for w, m in zip(weights, (-2, 3), strict=True))
    assert mixture.log_prob(y).exp().item() == pytest.approx(density, rel=1e-5)
    for p, found in zip((0.05, 0.5, 0.95), quantiles(mixture, [0.05, 0.5, 0.95]), strict=True):
        # three standard errors of a probability, from 4,000 draws
        assert cdf(found.item()) == pytest.approx(p, abs=3 * np.sqrt(p * (1 - p) / 4000))
    pit = family_of(parts[0]).pit(mixture, y, torch.Generator()).item()
    assert pit == pytest.approx(cdf(1.5), abs=0.02)


def test_the_transform_is_exact_where_there_is_a_distribution_function():
    draws = Gamma(torch.full((10, 1, 1), 2.0), 3.0)
    pit = family_of(draws).pit(predictive_mixture([draws]), torch.tensor([[0.4]]), None)
    assert pit.item() == pytest.approx(stats.gamma.cdf(0.4, 2, scale=1 / 3), rel=1e-5)


def test_a_family_of_ones_own_is_calibrated(monkeypatch):
    class LaplaceFamily(Family):
        min_temperature = 0.0

        def calibrate(self, draws, posterior_scale, temperature):
            mean = draws.loc.mean(0, keepdim=True)
            loc = mean + posterior_scale * (draws.loc - mean)
            return Laplace(loc, draws.scale * temperature, validate_args=False)

    monkeypatch.setitem(_FAMILIES, Laplace, None)  # taken out again afterwards
    torch.manual_seed(0)
    draws = Laplace(torch.zeros(2, 3000), torch.ones(2, 3000))
    assert Calibration.learn(StudentT(4.0, torch.zeros(2, 5)), torch.zeros(5)) == Calibration()
    register_family(LaplaceFamily(Laplace, ["loc", "scale"]))
    assert family_named("Laplace") is family_of(draws)
    y = Laplace(0.0, 2.5).sample((3000,))
    # the mean absolute deviation of 3,000 draws has a relative standard error of 1.8 %
    assert Calibration.learn(draws, y).temperature == pytest.approx(2.5, rel=0.06)
    with pytest.raises(ValueError, match="likelihood is 'Lapace', expected one of Categorical"):
        family_named("Lapace")
