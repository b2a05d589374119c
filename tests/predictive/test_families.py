"""Families: whatever distribution a likelihood has, it can be mixed, inverted and calibrated."""

import numpy as np
import pytest
import torch
from pyro.distributions import OrderedLogistic, ZeroInflatedPoisson
from scipy import stats
from torch.distributions import (
    Bernoulli,
    Categorical,
    Gamma,
    Laplace,
    LogNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)

from pyro_vmtl import Calibration, Family, family_of, predictive_mixture, quantiles, register_family
from pyro_vmtl.predictive.families import _FAMILIES, concat_draws, family_named
from pyro_vmtl.predictive.mixtures import pit


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
    parts = [StudentT(4.0, torch.zeros(3, 1, 2)), Poisson(torch.ones(3, 1, 2))]
    for other in (parts[1], Categorical(logits=torch.zeros(3, 1, 2, 4))):
        with pytest.raises(
            ValueError, match=r"likelihoods are .*, StudentT, expected all of classe"
        ):
            predictive_mixture([parts[0], other])


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
    assert mixture.cdf(y).item() == pytest.approx(cdf(1.5), abs=0.02)
    assert pit(mixture, y, torch.Generator()).item() == mixture.cdf(y).item()


def test_different_families_of_real_targets_are_mixed():
    """Normal and Student's t, against SciPy; the t distribution by 4,000 draws."""
    parts = [Normal(torch.full((40, 2, 1), -1.0), 0.5), StudentT(4.0, torch.full((60, 2, 1), 2.0))]
    weights = torch.tensor([[0.3, 0.7], [0.9, 0.1]])
    mixture = predictive_mixture(parts, weights)
    known = stats.norm(-1, 0.5), stats.t(4, 2)
    for t, (a, b) in enumerate(weights.tolist()):
        y = torch.full((2, 1), 0.3)
        density = a * known[0].pdf(0.3) + b * known[1].pdf(0.3)
        assert mixture.log_prob(y)[t].exp().item() == pytest.approx(density, rel=1e-5)
        assert mixture.mean[t].item() == pytest.approx(-a + 2 * b, rel=1e-5)
        var = a * (0.25 + 1) + b * (2 + 4) - (2 * b - a) ** 2
        assert mixture.variance[t].item() == pytest.approx(var, rel=1e-5)
        # four standard errors of a probability by 4,000 draws
        cdf = [a * known[0].cdf(x) + b * known[1].cdf(x) for x in (-1.2, 0.3, 2.5)]
        for x, p in zip((-1.2, 0.3, 2.5), cdf, strict=True):
            assert mixture.cdf(torch.full((2, 1), x))[t].item() == pytest.approx(p, abs=0.03)
        for p, found in zip((0.1, 0.5, 0.9), quantiles(mixture, [0.1, 0.5, 0.9]), strict=True):
            at = found[t].item()
            assert a * known[0].cdf(at) + b * known[1].cdf(at) == pytest.approx(p, abs=0.03)
    torch.manual_seed(0)
    drawn = mixture.sample((4000,))
    assert drawn.shape == (4000, 2, 1)
    error = (mixture.variance / 4000).sqrt()
    assert ((drawn.mean(0) - mixture.mean).abs() < 4 * error).all()


def test_counts_have_a_distribution_function():
    draws = Poisson(torch.tensor([[[2.0]], [[5.0]]]))
    mixture = predictive_mixture([draws])
    y = torch.tensor([[3.0]])
    below, up_to = (np.mean([stats.poisson.cdf(k, rate) for rate in (2, 5)]) for k in (2, 3))
    assert mixture.cdf(y).item() == pytest.approx(up_to, rel=1e-5)
    assert mixture.cdf(torch.tensor([[-1.0]])).item() == 0
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([pit(mixture, y, generator) for _ in range(200)])
    assert drawn.min() >= below - 1e-6 and drawn.max() <= up_to + 1e-6
    assert drawn.mean().item() == pytest.approx((below + up_to) / 2, abs=0.01)


def test_zero_inflated_counts_are_predicted():
    draws = ZeroInflatedPoisson(torch.full((50, 1, 2), 3.0), gate=torch.full((50, 1, 2), 0.4))
    assert family_of(draws).parameters in (("rate", "gate_logits"), ("gate_logits", "rate"))
    mixture = predictive_mixture([concat_draws([draws, draws])])
    assert mixture.batch_shape == (1, 2)
    torch.testing.assert_close(mixture.mean, torch.full((1, 2), 0.6 * 3))
    for k in (0.0, 2.0):  # by 4,000 draws, four standard errors
        expected = 0.4 + 0.6 * stats.poisson.cdf(k, 3)
        assert mixture.cdf(torch.full((1, 2), k))[0, 0].item() == pytest.approx(expected, abs=0.03)
    # P(0) = 0.43, P(at most 3) = 0.79
    assert quantiles(mixture, [0.3, 0.75])[:, 0, 0].tolist() == [0, 3]
    other = predictive_mixture([draws, Poisson(torch.full((20, 1, 2), 3.0))])
    assert other.mean[0, 0].item() == pytest.approx((0.6 * 3 + 3) / 2, rel=1e-5)


def test_ordered_classes_have_quantiles():
    level = torch.tensor([0.0, 1.0]).reshape(2, 1, 1)
    draws = OrderedLogistic(level, torch.tensor([-1.0, 1.0]))
    mixture = predictive_mixture([concat_draws([draws])])
    logistic = stats.logistic.cdf
    known_cdf = [np.mean([logistic(cut - x) for x in (0, 1)]) for cut in (-1, 1)]
    probs = np.diff([0, *known_cdf, 1])
    np.testing.assert_allclose(mixture.probs[0, 0], probs, rtol=1e-5)
    assert mixture.mean.item() == pytest.approx(probs @ [0, 1, 2], rel=1e-5)
    assert mixture.variance.item() == pytest.approx(probs @ [0, 1, 4] - (probs @ [0, 1, 2]) ** 2)
    assert mixture.cdf(torch.tensor([[1.0]])).item() == pytest.approx(known_cdf[1], rel=1e-5)
    low, high = known_cdf[0] - 0.01, known_cdf[1] + 0.01
    found = quantiles(mixture, [low, known_cdf[0] + 0.01, known_cdf[1] - 0.01, high])
    assert found.flatten().tolist() == [0, 1, 1, 2]
    assert 0 <= pit(mixture, torch.tensor([[0.0]]), torch.Generator()).item() <= known_cdf[0]
    with pytest.raises(ValueError, match="has no linear model"):
        family_of(draws).linear_model(None, None)
    assert family_named("Categorical").ordered is False


def test_the_transform_is_exact_where_there_is_a_distribution_function():
    draws = Gamma(torch.full((10, 1, 1), 2.0), 3.0)
    found = pit(predictive_mixture([draws]), torch.tensor([[0.4]]), None)
    assert found.item() == pytest.approx(stats.gamma.cdf(0.4, 2, scale=1 / 3), rel=1e-5)


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
