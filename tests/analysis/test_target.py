"""The target of a shared and tempered fit, against the closed form of its posterior."""

import numpy as np
import pytest
import torch
from conjugate_programs import NOISE, PRIOR, F, problem, programs
from problems import randomize_sources
from scipy.stats import norm

from pyro_vmtl import relatedness, share, target_learning_rate, temper
from pyro_vmtl.analysis import from_pyro_svi, loo, nuts_reference, psis_khat

RATE = 2.0


def fixed_point(weights):
    """Shared programs whose guide is the exact posterior, its means, variances and priors."""
    data = problem(3)
    model, guide = programs(data)
    pair = share(model, guide, sites=["w"], weights=weights)
    pair[1](data)
    randomize_sources(pair[1])
    a = relatedness(pair[1], "w", num_samples=100_000).double().mean(0)
    transfer_var = pair[1].state["w"].transfer_var.detach().reshape(3, 1)
    loc, var = torch.zeros(3, F).double(), torch.ones(3, F).double()
    square = (data.x**2).sum(1)  # features are orthogonal
    product = (data.x * data.y[..., None]).sum(1)
    for _ in range(200):  # geometric means of normals: precisions, weighed, add up
        precision = 1 / (var + transfer_var)
        prior = a[:, :3] @ precision + a[:, 3:] / PRIOR**2
        pulled = a[:, :3] @ (loc * precision)
        var = 1 / (RATE * square / NOISE**2 + prior)
        loc = var * (RATE * product / NOISE**2 + pulled)
    guide.start_at("w", loc, var.sqrt())
    return *temper(*pair, kl_weights=1 / RATE), data, loc, var, prior, pulled


def log_ratios(tree):
    stats = tree["sample_stats"]
    return (stats["log_p_task"] - stats["log_q_task"]).values[0]


# The mean of 50,000 Concrete weights is off by some 0.002, by which differences of log densities of
# sources are weighed; drawn weights vary by 0.3.
@pytest.mark.parametrize(("weights", "most"), [("categorical", 1e-6), ("concrete", 0.05)])
def test_the_exact_posterior_of_the_target_has_constant_ratios(weights, most):
    *pair, data, _, _, _, _ = fixed_point(weights)
    assert target_learning_rate(*pair, data) == RATE
    tree = from_pyro_svi(*pair, data, num_samples=400)
    assert tree.attrs["learning_rate"] == RATE and "learning rate 2" in tree.attrs["target"]
    assert "given the posteriors of the sources" in tree.attrs["target"]
    assert (log_ratios(tree).std(0) < most).all()
    if weights == "categorical":
        khat = psis_khat(tree)
        assert khat["khat"] == -np.inf and (khat["khat_task"] == -np.inf).all()
    else:
        assert np.ptp(tree["posterior"]["w_sources"].values) > 0.5  # as drawn, for all that


def test_leave_one_out_is_that_of_the_generalised_posterior():
    *pair, data, _, _, prior, pulled = fixed_point("categorical")
    estimate = loo(from_pyro_svi(*pair, data, num_samples=8000))
    expected = []
    for t in range(3):
        for n in range(data.x.shape[1]):
            kept = np.arange(data.x.shape[1]) != n
            x, y = data.x[t, kept] / NOISE, data.y[t, kept] / NOISE
            covariance = torch.linalg.inv(RATE * x.T @ x + torch.diag(prior[t]))
            mean, row = covariance @ (RATE * x.T @ y + pulled[t]), data.x[t, n]
            scale = (NOISE**2 + row @ covariance @ row).sqrt()
            expected.append(norm.logpdf(data.y[t, n], row @ mean, scale))
    trusted = estimate.pareto_k.values < 0.5
    assert trusted.mean() > 0.6
    # of 8,000 draws: a log mean of weighted densities is a few percent off
    found, expected = estimate.elpd_i.values[trusted], np.array(expected)[trusted]
    np.testing.assert_allclose(found, expected, atol=0.06)
    assert found.sum() == pytest.approx(expected.sum(), abs=0.1)


@pytest.mark.slow
def test_nuts_has_the_moments_of_the_generalised_posterior():
    *pair, data, loc, var, _, _ = fixed_point("concrete")
    like = from_pyro_svi(*pair, data, num_samples=30)
    reference = nuts_reference(*pair, data, like=like, num_samples=300, warmup=120, num_chains=1)
    w = torch.as_tensor(reference["posterior"]["w"].values[0])
    # of 300 draws, hardly dependent ones: 4 standard errors
    assert ((w.mean(0) - loc).abs() < 4 * var.sqrt() / 220**0.5).all()
    assert ((w.std(0) / var.sqrt() - 1).abs() < 4 / 440**0.5).all()


@pytest.mark.parametrize("weights", [{"w": 0.5}, {"w": 0.5, "w_sources": 0.0}, 0.0])
def test_without_one_kl_weight_there_is_no_target(weights):
    data = problem(2)
    pair = share(*programs(data), sites=["w"])
    refused = temper(*pair, kl_weights=weights)
    with pytest.raises(ValueError, match="Use the same for all: temper"):
        target_learning_rate(*refused, data)
    with pytest.raises(ValueError, match="approximates no posterior"):
        nuts_reference(*refused, data, like=None)


def test_source_weights_without_a_prior_do_not_count():
    data = problem(2)
    pair = share(*programs(data), sites=["w"], weights_prior=False)
    assert target_learning_rate(*temper(*pair, kl_weights={"w": 0.5}), data) == 2.0
    assert target_learning_rate(*temper(*pair, kl_weights=0.5), data) == 2.0
    again = temper(*temper(*pair, kl_weights=0.5), kl_weights=0.5)
    assert target_learning_rate(*again, data) == 4.0


def test_programs_need_not_be_modules():
    data = problem(2)
    model, guide = temper(*programs(data), kl_weights=0.25)
    assert target_learning_rate(lambda rows: model(rows), lambda rows: guide(rows), data) == 4.0
