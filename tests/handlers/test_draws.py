"""Numbers of draws, and point estimates."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from problems import F64, classifier, many_draws
from pyro import poutine

from pyro_vmtl import MeanFieldELBO, fit, point_estimates, share, temper
from pyro_vmtl.handlers.isolation import validation
from pyro_vmtl.inference.elbo import evaluate


def two_sites():
    with pyro.plate("task", 2, dim=-2):
        pyro.sample("v", dist.Normal(torch.zeros(2, 1, dtype=F64), 1.0))
        with pyro.plate("data", 3, dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(2, 3, 4, dtype=F64), 1.0).to_event(1))


def drawn(num_particles, num_draws):
    elbo = MeanFieldELBO(num_particles, num_draws=num_draws)
    torch.manual_seed(0)
    [(model_trace, guide_trace)] = evaluate(elbo, two_sites, two_sites).traces
    for site in ("v", "z"):
        assert model_trace.nodes[site]["value"] is guide_trace.nodes[site]["value"]
    return (guide_trace.nodes[site]["value"] for site in ("v", "z"))


def test_every_draw_of_one_meets_every_draw_of_the_other():
    v, z = drawn(6, {"v": 2, "z": 3})
    assert v.shape == (6, 2, 1) and z.shape == (6, 2, 3, 4)
    pairs = {(v[p, 0, 0].item(), z[p, 0, 0, 0].item()) for p in range(6)}
    assert len(pairs) == 6
    assert len({a for a, _ in pairs}) == 2 and len({b for _, b in pairs}) == 3


def test_one_draw_stays_one_and_others_are_as_many_as_particles():
    v, z = drawn(4, {"v": 1})
    assert v.shape == (1, 2, 1)
    assert len(set(z[:, 0, 0, 0].tolist())) == 4


def test_equal_numbers_are_crossed_too():
    v, z = drawn(4, {"v": 2, "z": 2})
    pairs = {(v[p, 0, 0].item(), z[p, 0, 0, 0].item()) for p in range(4)}
    assert len(pairs) == 4 and len({a for a, _ in pairs}) == 2 == len({b for _, b in pairs})


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected at least 1"):
        MeanFieldELBO(4, num_draws={"v": 0})
    for particles, draws in ((4, {"v": 3}), (1, {"v": 2})):
        with pytest.raises(ValueError, match="does not divide num_particles"):
            MeanFieldELBO(particles, num_draws=draws)
    with pytest.raises(ValueError, match=r"'u'.* which the guide does not draw"):
        drawn(4, {"u": 2})


def test_crossed_weights_keep_their_density(ragged):
    # at this temperature weights underflow
    model, guide = share(*classifier(ragged), sites=["w"], temperature=0.05)
    guide(ragged)

    def kl(num_draws):
        elbo = MeanFieldELBO(400, num_draws=num_draws)
        torch.manual_seed(0)
        return evaluate(elbo, model, guide, ragged).terms.kl["w_sources"]

    torch.testing.assert_close(kl({"w_sources": 400}), kl({}))


def test_draws_without_a_gradient_are_refused_at_first():
    def guide():
        pyro.sample("b", dist.Bernoulli(logits=torch.tensor(0.0, requires_grad=True)))

    def model():
        pyro.sample("b", dist.Bernoulli(0.5))

    with pytest.raises(NotImplementedError, match="reparameterized"):
        MeanFieldELBO().loss(model, guide)


def test_a_kl_of_another_shape_is_refused():
    def guide():
        pyro.sample("v", dist.Normal(0.0, 1.0))

    def model():
        pyro.sample("v", dist.Normal(torch.zeros(3), 1.0))

    with pyro.validation_enabled(False), pytest.raises(ValueError, match="same event dimensions"):
        MeanFieldELBO().loss(model, guide)


def test_fewer_draws_leave_the_elbo_unbiased(ragged):
    model, guide = share(*classifier(ragged), sites=["w"], temperature=1.0)
    guide(ragged)
    exact = many_draws(20_000)
    torch.manual_seed(0)
    whole = exact.loss(model, guide, ragged)
    few = MeanFieldELBO(4, num_draws={"w": 2, "w_sources": 1})
    with validation(False):  # as in a fit, where its checks have been done
        losses = torch.tensor([few.loss(model, guide, ragged) for _ in range(800)])
    # 5 standard errors; those of 20,000 draws are small beside them
    assert abs(losses.mean() - whole) < 5 * losses.std() / 800**0.5


def test_the_fast_elbo_is_that_of_pyro(ragged):
    model, guide = share(*classifier(ragged), sites=["w"])
    guide(ragged)
    elbo = MeanFieldELBO(3)
    losses = []
    for checks in (True, False):
        with pyro.validation_enabled(checks):
            torch.manual_seed(1)
            losses.append(elbo.loss(model, guide, ragged))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_points_are_the_means_and_their_kl_is_the_prior_s_density(ragged):
    model, guide = classifier(ragged)
    points = point_estimates(guide)
    trace = poutine.trace(points).get_trace(ragged)
    torch.testing.assert_close(trace.nodes["w"]["value"], guide.locs["w"])
    loss = MeanFieldELBO().loss(model, points, ragged)
    log_joint = poutine.trace(poutine.condition(model, {"w": guide.locs["w"]})).get_trace(ragged)
    assert loss == pytest.approx(-log_joint.log_prob_sum().item(), rel=1e-12)


def test_points_without_a_prior_are_maximum_likelihood(ragged):
    model, guide = temper(*classifier(ragged), kl_weights={"w": 0.0})
    points = point_estimates(guide)
    before = [s.clone() for s in guide.program.raw_scales.values()]
    fit(model, points, ragged, num_steps=1500)
    logits = ragged.x @ guide.program.locs["w"].squeeze(1).mT
    log_prob = dist.Categorical(logits=logits).log_prob(ragged.y)[ragged.mask]
    # 11 rows in 3 dimensions can be separated task by task, and then nothing holds the weights
    assert log_prob.mean() > -0.02
    torch.testing.assert_close(list(guide.program.raw_scales.values()), before)
