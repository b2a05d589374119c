"""Fits against closed forms of linear regression."""

import pytest
import torch
from conjugate_programs import NOISE, PRIOR, F, problem, programs
from problems import F64, many_draws
from pyro.infer import Trace_ELBO

from pyro_vmtl import LogarithmicPool, TaskData, fit, share
from pyro_vmtl.sharing.components import other_tasks


def exact(x, y):
    """Posterior mean and standard deviations (F,) and log evidence of rows (N, F), (N,)."""
    precision = x.T @ x / NOISE**2 + torch.eye(F, dtype=F64) / PRIOR**2
    covariance = torch.linalg.inv(precision)
    mean = covariance @ x.T @ y / NOISE**2
    marginal = torch.distributions.MultivariateNormal(
        torch.zeros(len(y), dtype=F64),
        NOISE**2 * torch.eye(len(y), dtype=F64) + PRIOR**2 * x @ x.T,
    )
    return mean, covariance.diagonal().sqrt(), marginal.log_prob(y)


def set_posterior(guide, means, scales):
    with torch.no_grad():
        guide.locs["w"].copy_(means[:, None])
        guide.raw_scales["w"].copy_(scales[:, None].log())


def test_the_exact_posterior_has_the_evidence_as_elbo_in_every_draw():
    data = problem(3)
    model, guide = programs(data)
    means, scales, evidence = zip(*(exact(data.x[t], data.y[t]) for t in range(3)), strict=True)
    set_posterior(guide, torch.stack(means), torch.stack(scales))
    for seed in range(3):
        torch.manual_seed(seed)
        # log p(y, w) - log q(w) is log p(y) at any w; float64 leaves 1e-9
        assert -Trace_ELBO().loss(model, guide, data) == pytest.approx(
            sum(evidence).item(), abs=1e-9
        )


def test_fit_finds_posterior_mean_variance_and_evidence():
    data = problem(2)
    model, guide = programs(data)
    elbo = many_draws(20)
    fit(model, guide, data, elbo=elbo, learning_rate=0.02, num_steps=1500)
    total = 0.0
    for t in range(2):
        mean, scale, evidence = exact(data.x[t], data.y[t])
        # gradients of 20 draws are noisy: the posterior is met to some 5 % of its width
        torch.testing.assert_close(guide.locs["w"][t, 0], mean, rtol=0, atol=0.1 * scale.max())
        torch.testing.assert_close(guide.raw_scales["w"][t, 0].exp(), scale, rtol=0.1, atol=0)
        total += evidence.item()
    torch.manual_seed(0)
    check = many_draws(4000)
    # the ELBO is flat at its top: errors of 10 % of a width cost 6 * 0.1^2 nats
    assert -check.loss(model, guide, data) == pytest.approx(total, abs=0.1)


def anchored(data):
    """Sharing by the anchored logarithmic pool, the base by the anchor alone."""
    model, guide = programs(data)
    shared = share(
        model,
        guide,
        sites=["w"],
        pool=LogarithmicPool,
        base=False,
        transfer=None,
        weights_prior=False,
    )
    return guide, shared


@pytest.mark.parametrize("num_tasks", [2, 5])
def test_equal_tasks_pay_for_one_prior_as_the_pooled_model_does(num_tasks):
    data = problem(num_tasks, equal=True)
    mean, scale, evidence = exact(data.x.reshape(-1, F), data.y.reshape(-1))
    guide, (shared_model, shared_guide) = anchored(data)
    set_posterior(guide, mean.expand(num_tasks, F), scale.expand(num_tasks, F))
    shared_guide(data)
    for seed in range(3):
        torch.manual_seed(seed)
        assert -Trace_ELBO().loss(shared_model, shared_guide, data) == pytest.approx(
            evidence.item(), abs=1e-9
        )


def test_groups_of_equal_tasks_pay_for_one_prior_each():
    sizes = [2, 3]
    parts = [problem(size, equal=True) for size in sizes]
    labels = [(group, t) for group, size in enumerate(sizes) for t in range(size)]
    x, y = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "y"))
    x[2:], y[2:] = 0.5 * x[2:], -y[2:]  # another group
    rows = [label for label in labels for _ in range(x.shape[1])]
    data = TaskData.regression(x.reshape(-1, F), y.reshape(-1), rows)
    blocks = [slice(0, 2), slice(2, 5)]
    found = [exact(data.x[b].reshape(-1, F), data.y[b].reshape(-1)) for b in blocks]
    guide, (shared_model, shared_guide) = anchored(data)
    mean, scale = (
        torch.stack([found[group][k] for group, _ in labels]).reshape(5, F) for k in (0, 1)
    )
    set_posterior(guide, mean, scale)
    shared_guide(data)
    group = torch.tensor([group for group, _ in labels])
    others = other_tasks(5)
    with torch.no_grad():  # nothing from the other group
        same = group[others] == group[:, None]
        shared_guide.state["w"].logits.copy_(torch.where(same, 0.0, -80.0))
        shared_guide.state["w"].weights = "softmax"
    evidence = sum(each[2].item() for each in found)
    loss = Trace_ELBO().loss(shared_model, shared_guide, data)
    assert -loss == pytest.approx(evidence, abs=1e-9)


def test_fit_of_equal_tasks_finds_the_pooled_posterior():
    data = problem(3, equal=True)
    mean, scale, evidence = exact(data.x.reshape(-1, F), data.y.reshape(-1))
    guide, (shared_model, shared_guide) = anchored(data)
    elbo = many_draws(20)
    fit(shared_model, shared_guide, data, elbo=elbo, learning_rate=0.02, num_steps=1500)
    for t in range(3):
        torch.testing.assert_close(guide.locs["w"][t, 0], mean, rtol=0, atol=0.1 * scale.max())
        torch.testing.assert_close(guide.raw_scales["w"][t, 0].exp(), scale, rtol=0.1, atol=0)
    torch.manual_seed(0)
    check = many_draws(4000)
    value = -check.loss(shared_model, shared_guide, data)
    assert value == pytest.approx(evidence.item(), abs=0.1)


def test_strangers_on_the_base_pay_their_own_priors():
    data = problem(3)
    model, guide = programs(data)
    means, scales, evidence = zip(*(exact(data.x[t], data.y[t]) for t in range(3)), strict=True)
    set_posterior(guide, torch.stack(means), torch.stack(scales))
    shared_model, shared_guide = share(model, guide, sites=["w"], weights_prior=False)
    shared_guide(data)
    with torch.no_grad():
        shared_guide.state["w"].logits[:, -1] = 1e4  # all weight on the base
    loss = Trace_ELBO().loss(shared_model, shared_guide, data)
    assert -loss == pytest.approx(sum(evidence).item(), abs=1e-9)
