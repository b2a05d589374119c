"""Sharing: structure, bridges, ELBOs, and errors."""

import copy
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from problems import F64, classifier, many_draws, normal_kl, random_weights, randomize_sources
from pyro import poutine
from pyro.infer import Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoMultivariateNormal, AutoNormal
from torch import nn

from pyro_vmtl import (
    GaussianSumPool,
    LinearPool,
    LogarithmicPool,
    MeanFieldELBO,
    TaskData,
    fit,
    relatedness,
    share,
    temper,
    trace_guide_and_model,
    unwrap,
)
from pyro_vmtl.handlers.isolation import validation
from pyro_vmtl.inference.elbo import evaluate
from pyro_vmtl.models import LinearClassifier, ZeroMeanNormal
from pyro_vmtl.sharing.messengers import recorded_sources
from pyro_vmtl.sharing.sources import Sources

POOLS = [LinearPool, LogarithmicPool, GaussianSumPool]


def shared(data, seed=0, **settings):
    """A sharing classifier in which every learned number is random."""
    model, guide = share(*classifier(data, seed=seed), sites=["w"], **settings)
    guide(data)
    randomize_sources(guide)
    return model, guide


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("transfer", [None, "source", "dimension"])
@pytest.mark.parametrize("weights_prior", [True, False])
def test_both_elbos_agree_in_expectation(ragged, pool, transfer, weights_prior):
    model, guide = shared(
        ragged, pool=pool, transfer=transfer, weights_prior=weights_prior, temperature=1.0
    )
    num, batches = 3000, 30
    means, errors = [], []
    for elbo_class in (Trace_ELBO, TraceMeanField_ELBO):
        torch.manual_seed(0)
        elbo = elbo_class(
            num_particles=num // batches, vectorize_particles=True, max_plate_nesting=2
        )
        traces = evaluate(elbo, model, guide, ragged).traces
        assert traces[0].model.nodes["w"]["fn"].batch_shape[0] == num // batches
        with validation(False):  # its checks are done, and take most of the time
            losses = [elbo.loss(model, guide, ragged) for _ in range(batches)]
        losses = torch.tensor(losses, dtype=F64)
        means.append(losses.mean())
        errors.append(losses.std() / batches**0.5)
    # 5 standard errors of the difference of two means over 3000 draws
    assert abs(means[0] - means[1]) < 5 * (errors[0] ** 2 + errors[1] ** 2).sqrt()


@pytest.mark.parametrize("pool", [LogarithmicPool, GaussianSumPool])
def test_the_closed_form_kl_is_used(ragged, pool):
    model, guide = shared(ragged, pool=pool, weights_prior=False)
    elbo = TraceMeanField_ELBO()
    loss, _, [(model_trace, guide_trace)] = evaluate(elbo, model, guide, ragged)
    weights = model_trace.nodes["w"]["fn"].weights
    sources = next(m for m in guide.modules() if isinstance(m, Sources))
    prior = model_trace.nodes["w"]["fn"]
    loc, var = (
        getattr(guide_trace.nodes["w"]["fn"], m).reshape(3, 9) for m in ("mean", "variance")
    )
    base_var = model.program.prior().variance.reshape(9).detach()
    kl = torch.zeros((), dtype=F64)
    for t in range(3):
        if pool is GaussianSumPool:
            other = prior.normal
            kl += normal_kl(
                loc[t], var[t], other.mean.reshape(3, 9)[t], other.variance.reshape(3, 9)[t]
            )
            continue
        for i in range(3):
            s = sources.transfer_var.reshape(3)[i]
            kl += weights[t, i] * normal_kl(loc[t], var[t], loc[i], var[i] + s)
        kl += weights[t, 3] * normal_kl(loc[t], var[t], torch.zeros(9, dtype=F64), base_var)
    log_likelihood = model_trace.nodes["y"]["log_prob"].sum()
    # A sampled KL would differ by several nats; float64 sums agree to 1e-9.
    assert loss.item() == pytest.approx((kl - log_likelihood).item(), abs=1e-9)


def test_the_linear_pool_has_no_closed_form(ragged):
    model, guide = shared(ragged, pool=LinearPool)
    model_trace, guide_trace = trace_guide_and_model(model, guide, ragged)
    with pytest.raises(NotImplementedError):
        torch.distributions.kl_divergence(
            guide_trace.nodes["w"]["fn"], model_trace.nodes["w"]["fn"]
        )


@pytest.mark.parametrize(
    ("pool", "detach"), [*[(pool, False) for pool in POOLS], (LogarithmicPool, True)]
)
def test_loss_gradient_against_finite_differences(ragged, pool, detach, monkeypatch):
    model, guide = shared(ragged, pool=pool, transfer="dimension", detach_sources=detach)
    loss_of = TraceMeanField_ELBO()(model, guide)

    def loss():
        torch.manual_seed(3)
        return loss_of(ragged)

    parameters = list(loss_of.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    if detach:  # the sources stay where they are while the parameters are moved
        posterior = guide.program.posterior("w")
        frozen = dist.Normal(posterior.mean.clone(), posterior.stddev.clone()).to_event(2)
        monkeypatch.setattr("pyro_vmtl.sharing.messengers.detached_sources", lambda sources: frozen)
    torch.manual_seed(4)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn_like(parameter)
        step = 1e-5
        with torch.no_grad():
            parameter += step * direction
            up = loss().item()
            parameter -= 2 * step * direction
            down = loss().item()
            parameter += step * direction
        slope = (up - down) / (2 * step)
        # central differences of float64: errors of about step^2 and 1e-13 / step
        assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_padding_changes_nothing(ragged):
    from dataclasses import replace

    junk = torch.full((3, 2, 3), 77.0, dtype=F64)
    padded = replace(
        ragged,
        x=torch.cat([ragged.x, junk], dim=1),
        y=torch.cat([ragged.y, torch.ones(3, 2, dtype=torch.int64)], dim=1),
        mask=torch.cat([ragged.mask, torch.zeros(3, 2, dtype=torch.bool)], dim=1),
    )
    model, guide = shared(ragged)
    losses = []
    for data in (ragged, padded):
        torch.manual_seed(0)
        losses.append(TraceMeanField_ELBO().loss(model, guide, data))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_permuting_tasks_permutes_the_terms(ragged):
    order = [2, 0, 1]
    source_of = [1, 2, 0]  # each task borrows from one other, so that no draw matters

    def terms(order):
        model, guide = classifier(ragged)
        with torch.no_grad():
            for numbers in (guide.locs["w"], guide.raw_scales["w"]):
                numbers.copy_(numbers[order].clone())
        model, guide = share(model, guide, sites=["w"], weights_prior=False)
        data = TaskData(
            ragged.x[order], ragged.y[order], ragged.mask[order], ragged.row[order], ("p",) * 3
        )
        guide(data)
        sources = guide.state["w"]
        with torch.no_grad():
            for t in range(3):
                others = [i for i in range(3) if i != t]
                chosen = order.index(source_of[order[t]])
                sources.logits[t, others.index(chosen)] = 1e4
            sources.raw_transfer_scale.copy_(
                torch.tensor([0.1, 0.2, 0.3], dtype=F64)[order].reshape(3, 1, 1, 1).log()
            )
        elbo = TraceMeanField_ELBO()
        return evaluate(elbo, model, guide, data).terms

    plain, permuted = terms([0, 1, 2]), terms(order)
    torch.testing.assert_close(permuted.kl["w"], plain.kl["w"][order], rtol=1e-10, atol=1e-10)


def test_autonormal_gives_the_loss_of_the_mean_field_guide(ragged):
    model, guide = classifier(ragged)
    auto = AutoNormal(model)
    losses = []
    for program in (guide, auto):
        shared_model, shared_guide = share(model, program, sites=["w"])
        shared_guide(ragged)
        if program is auto:
            with torch.no_grad():
                auto.locs.w = guide.locs["w"].clone()
                auto.scales.w = guide.raw_scales["w"].exp().clone()
        randomize_sources(shared_guide)
        elbo = many_draws(2000)
        torch.manual_seed(1)
        loss, terms, traces = evaluate(elbo, shared_model, shared_guide, ragged)
        losses.append(loss.item())
        site = traces[0][1].nodes["w"]
        assert isinstance(site["fn"].base_dist, torch.distributions.Normal)
        assert site["fn"].batch_shape == (2000, 3, 1)
        if program is auto:
            assert "w_unconstrained" not in terms.kl  # it has no density of its own any more
        kl = terms.kl["w"]
        losses.append(kl)
    # the KLs differ by their draws of the weights alone, the losses also by those of w
    torch.testing.assert_close(losses[1], losses[3], rtol=0.02, atol=0.0)
    assert losses[0] == pytest.approx(losses[2], rel=0.02)


@pytest.mark.slow
def test_autonormal_and_the_mean_field_guide_reach_the_same_elbo(ragged):
    values = []
    settings = {"weights": "concrete", "start": "even"}  # with others there are several optima
    for use_auto in (False, True):
        torch.manual_seed(0)
        model, guide = classifier(ragged)
        if use_auto:
            guide = AutoNormal(model)
        model, guide = share(model, guide, sites=["w"], **settings)
        fit(model, guide, ragged, num_steps=700, learning_rate=0.02)
        torch.manual_seed(0)
        elbo = many_draws(4000)
        values.append(elbo.loss(model, guide, ragged))
    # two runs of stochastic optimisation on losses of about 15 nats
    assert values[0] == pytest.approx(values[1], abs=0.3)


def test_a_class_plate_pools_class_by_class(ragged):
    event_model, event_guide = classifier(ragged)
    prior_scale = event_model.prior.raw_scale.exp().detach()

    def model(data):
        with pyro.plate("task", 3, dim=-2):
            with pyro.plate("class", 3, dim=-1):
                zero = torch.zeros(3, dtype=F64)
                w = pyro.sample("w", dist.Normal(zero, prior_scale).to_event(1))  # (T, C, F)
            with pyro.plate("data", data.x.shape[1], dim=-1), poutine.mask(mask=data.mask):
                pyro.sample("y", dist.Categorical(logits=data.x @ w.mT), obs=data.y)

    loc, scale = event_guide.locs["w"].squeeze(1), event_guide.raw_scales["w"].exp().squeeze(1)

    def guide(data):
        with pyro.plate("task", 3, dim=-2), pyro.plate("class", 3, dim=-1):
            return pyro.sample("w", dist.Normal(loc, scale).to_event(1))

    shared_model, shared_guide = share(model, guide, sites=["w"], weights_prior=False)
    shared_guide(ragged)
    weights = poutine.trace(shared_guide).get_trace(ragged).nodes["w_sources"]["value"]
    assert weights.shape == (3, 1, 3)  # one row a task, whatever its classes
    # With the logarithmic pool it does not matter whether classes are a plate or an event.
    torch.manual_seed(0)
    in_plate = TraceMeanField_ELBO().loss(shared_model, shared_guide, ragged)
    by_event = share(*classifier(ragged), sites=["w"], weights_prior=False)
    by_event[1](ragged)
    torch.manual_seed(0)
    assert in_plate == pytest.approx(TraceMeanField_ELBO().loss(*by_event, ragged), rel=1e-9)


@pytest.mark.parametrize("handler", ["mask", "scale"])
def test_masks_of_cells_do_not_count_the_source_weights_more_than_once(handler):
    def program(factor):
        plates = pyro.plate("task", 3, dim=-2), pyro.plate("class", 4, dim=-1)
        with plates[0], plates[1], getattr(poutine, handler)(**{handler: factor}):
            return pyro.sample("w", dist.Normal(torch.zeros(3, 4), 1.0))

    kls = []
    ones = torch.ones(3, 4, dtype=torch.bool if handler == "mask" else torch.float32)
    for factor in (ones, ones[:, :1], ones[0], ones[0, 0]):
        model, guide = share(program, program, sites=["w"])
        guide(factor)
        with torch.no_grad():
            guide.state["w"].logits.copy_(torch.arange(9.0).reshape(3, 3))
        elbo = TraceMeanField_ELBO()
        torch.manual_seed(0)
        kls.append(evaluate(elbo, model, guide, factor).terms.kl["w_sources"])
    for kl in kls[1:]:
        torch.testing.assert_close(kl, kls[0])


def test_pyros_own_utilities_run_the_unwrapped_programs(ragged):
    model, guide = shared(ragged)
    predictive = Predictive(unwrap(model), guide=unwrap(guide), num_samples=5)
    assert predictive(ragged.without_targets())["w"].shape == (5, 3, 1, 3, 3)
    with pytest.raises(RuntimeError, match=r"for the plain prior use `unwrap\(model\)`"):
        Predictive(model, guide=guide, num_samples=5)(ragged)


def test_a_model_finds_the_posteriors_of_the_guide_that_it_is_replayed_on(ragged):
    model, guide = shared(ragged, weights_prior=False)
    first = poutine.trace(guide).get_trace(ragged)
    with torch.no_grad():
        guide.program.locs["w"].add_(1.0)
    trace_guide_and_model(model, guide, ragged)  # another run does not matter
    replayed = poutine.trace(poutine.replay(model, trace=first)).get_trace(ragged)
    sources = replayed.nodes["w"]["fn"].sources
    assert sources is first.nodes["w"]["fn"]
    assert sources is recorded_sources(first, "w")


def test_two_sites_are_shared_each_with_its_own_weights():
    def model(y):
        with pyro.plate("task", 3):
            a = pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))
            b = pyro.sample("b", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("y", dist.Normal(a + b, 1.0), obs=y)

    shared_model, shared_guide = share(model, AutoNormal(model), sites=["a", "b"])
    y = torch.tensor([1.0, 1.2, -3.0])
    result = fit(shared_model, shared_guide, y, num_steps=50)
    assert set(result.history.kl) >= {"a", "b", "a_sources", "b_sources"}
    assert relatedness(shared_guide, "b", num_samples=7).shape == (7, 3, 4)


def test_the_temperature_follows_its_schedule(ragged):
    model, guide = share(
        *classifier(ragged), sites=["w"], temperature=lambda step: 2.0 if step < 5 else 0.25
    )
    fit(model, guide, ragged, num_steps=4)
    assert guide.state["w"].temperature == 2.0
    fit(model, guide, ragged, num_steps=6)
    assert guide.state["w"].temperature == 0.25


def test_temper_scales_every_form_of_a_site(ragged):
    for program in (classifier(ragged)[1], AutoNormal(classifier(ragged)[0])):
        plain = share(classifier(ragged)[0], program, sites=["w"])
        orders = [
            temper(*plain, kl_weights={"w": 0.25, "w_sources": 0.5}),
            share(
                *temper(classifier(ragged)[0], program, kl_weights={"w": 0.25, "w_sources": 0.5}),
                sites=["w"],
            ),
        ]
        for elbo in (TraceMeanField_ELBO(), Trace_ELBO()):
            split = []
            for pair in (plain, *orders):
                pair[1](ragged)
                torch.manual_seed(0)
                loss, terms, _ = evaluate(elbo, *pair, ragged)
                assert loss.item() == pytest.approx(terms.loss.item(), abs=1e-8)
                split.append(terms)
            for tempered in split[1:]:
                for site, weight in (("w", 0.25), ("w_sources", 0.5)):
                    torch.testing.assert_close(tempered.kl[site], weight * split[0].kl[site])
                torch.testing.assert_close(
                    tempered.log_likelihood["y"], split[0].log_likelihood["y"]
                )


def test_a_scheduled_weight_moves_during_a_fit(ragged):
    pair = temper(*shared(ragged), kl_weights={"w": lambda step: float(step > 10)})
    history = fit(*pair, ragged, num_steps=25).history
    assert (history.kl["w"][:2] == 0).all() and (history.kl["w"][2:] > 0).all()


def test_a_joint_autoguide_cannot_be_tempered(ragged):
    model, _ = classifier(ragged)
    pair = temper(model, AutoDiagonalNormal(model), kl_weights={"w": 0.5})
    with pytest.raises(ValueError, match="draws all sites at once"):
        pair[1](ragged)


@pytest.mark.parametrize("kind", [AutoNormal, AutoDiagonalNormal, AutoMultivariateNormal])
def test_one_number_tempers_all_latent_sites_of_any_guide(kind):
    def model(y):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
        with pyro.plate("row", 3):
            mean = pyro.sample("mean", dist.Normal(0.0, scale))
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    guide, y = kind(model), torch.tensor([1.0, 2.0, 4.0])
    guide(y)
    losses = []
    for pair in ((model, guide), temper(model, guide, kl_weights=0.25)):
        torch.manual_seed(0)
        loss, _, [(model_trace, _)] = evaluate(Trace_ELBO(), *pair, y)
        losses.append(loss.item())
    misfit = -dist.Normal(model_trace.nodes["mean"]["value"], 1.0).log_prob(y).sum().item()
    assert losses[1] == pytest.approx(misfit + 0.25 * (losses[0] - misfit))
    with pytest.raises(ValueError, match="kl_weights is -1"):
        temper(model, guide, kl_weights=-1)


def test_temper_without_share_and_weight_zero(ragged):
    model, _ = classifier(ragged)
    guide = AutoNormal(model)
    guide(ragged)
    elbo = Trace_ELBO()
    torch.manual_seed(0)
    pair = temper(model, guide, kl_weights={"w": 0})
    loss, _, [(model_trace, _)] = evaluate(elbo, *pair, ragged)
    assert loss.item() == pytest.approx(-model_trace.nodes["y"]["log_prob"].sum().item())
    with pytest.raises(ValueError, match=r"kl_weights\['w'\] is -1"):
        temper(model, guide, kl_weights={"w": -1})


def test_errors_say_what_to_do(ragged):
    model, guide = classifier(ragged)
    shared_model, shared_guide = share(model, guide, sites=["w"])
    with pytest.raises(RuntimeError, match="replayed on a trace of the guide"):
        shared_model(ragged)
    with pytest.raises(KeyError, match="No shared site 'v', found"):
        relatedness(shared_guide, "v")

    def no_plate(data):
        pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    with pytest.raises(ValueError, match="expected 'task' as the outermost"):
        share(no_plate, no_plate, sites=["w"])[1](ragged)

    def not_normal(data):
        with pyro.plate("task", 3):
            pyro.sample("w", dist.Gamma(torch.ones(3), 1.0))

    with pytest.raises(ValueError, match="Gamma in the guide, expected Normal"):
        share(not_normal, not_normal, sites=["w"])[1](ragged)

    one_task = TaskData.classification([[1.0], [2.0]], [0, 1], ["a", "a"])
    pair = (LinearClassifier(ZeroMeanNormal([2, 1])), None)
    guide = AutoNormal(pair[0])
    with pytest.raises(ValueError, match="found 1 task, expected at least 2"):
        share(pair[0], guide, sites=["w"], base=False)[1](one_task)


def test_misspelt_sites_and_settings_are_named(ragged):
    model, guide = classifier(ragged)
    with pytest.raises(ValueError, match=r"no site 'v', found \['w'\]"):
        share(model, guide, sites=["v"])[1](ragged)
    with pytest.raises(ValueError, match=r"no site 'v', found \['w'\]"):
        temper(model, guide, kl_weights={"v": 0.5})[1](ragged)
    with pytest.raises(ValueError, match="observed site 'y'"):
        temper(model, guide, kl_weights={"y": 0.5})[0](ragged)
    with pytest.raises(ValueError, match=r"no site 'w_unconstrained', found \['w'\]"):
        temper(model, AutoNormal(model), kl_weights={"w_unconstrained": 0.5})[1](ragged)
    with pytest.raises(ValueError, match="sites is empty"):
        share(model, guide, sites=[])
    with pytest.raises(ValueError, match="temperature is 0"):
        share(model, guide, sites=["w"], temperature=0)[1](ragged)
    with pytest.raises(ValueError, match="prior_temperature is 0"):
        share(model, guide, sites=["w"], prior_temperature=0)[1](ragged)
    with pytest.raises(ValueError, match="num_samples is 0"):
        relatedness(shared(ragged)[1], "w", num_samples=0)
    with pytest.raises(ValueError, match="transfer is 'sources', expected"):
        share(model, guide, sites=["w"], transfer="sources")
    with pytest.raises(TypeError, match="pool is 'linear', expected a class"):
        share(model, guide, sites=["w"], pool="linear")


def test_other_numbers_of_tasks_are_named(ragged):
    model, _ = shared(ragged)
    other = TaskData.classification(ragged.x[0], [0, 1, 2, 0, 1], ["a", "b", "c", "d", "a"])
    with pytest.raises(ValueError, match=r"has 4 tasks, expected 3 as when its guide"):
        model(other)

    def subsampled(y):
        with pyro.plate("task", 3, subsample_size=2):
            pyro.sample("w", dist.Normal(torch.zeros(2), 1.0))

    with pytest.raises(ValueError, match="has 2 of 3 tasks at site"):
        share(subsampled, subsampled, sites=["w"])[1](None)


def test_copies_and_pickles_give_the_same_loss(ragged):
    pair = nn.ModuleList(temper(*shared(ragged), kl_weights={"w": 0.5}))
    TraceMeanField_ELBO()(*pair)(ragged)  # leaves nothing behind of its autograd graph
    for copied in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))):
        losses = []
        for model, guide in (pair, copied):
            torch.manual_seed(0)
            losses.append(TraceMeanField_ELBO().loss(model, guide, ragged))
        assert losses[0] == losses[1]
        shared_state = {id(m.program.state) for m in copied}
        assert len(shared_state) == 1  # model and guide still know one set of sources
        with torch.no_grad():
            copied[1].program.program.locs["w"].add_(1.0)
        torch.manual_seed(0)
        assert TraceMeanField_ELBO().loss(*pair, ragged) == losses[0]


def test_random_weights_of_the_tests_are_on_the_simplex():
    weights = random_weights(4)
    torch.testing.assert_close(weights.sum(1), torch.ones(4, dtype=F64))
    assert (weights[:, :4].diagonal() == 0).all()


@pytest.mark.parametrize("weights", ["softmax", "even"])
def test_weights_that_are_points(ragged, weights):
    model, guide = shared(ragged, weights=weights, min_base_weight=0.0)
    sources = guide.state["w"]
    draws = relatedness(guide, num_samples=3)
    if weights == "even":
        assert not sources.logits.requires_grad
        with torch.no_grad():
            sources.logits.zero_()
        draws = relatedness(guide, num_samples=3)
        expected = torch.full((3, 3), 1 / 3, dtype=F64)
    else:
        expected = sources.logits.softmax(-1)
    for t in range(3):
        others = [i for i in range(4) if i != t]
        for draw in draws:
            torch.testing.assert_close(draw[t, others], expected[t])
    elbo = MeanFieldELBO()
    terms = evaluate(elbo, model, guide, ragged).terms
    assert terms.kl["w_sources"].sum() == 0  # points have no KL
    before = sources.logits.clone()
    fit(model, guide, ragged, num_steps=20)
    assert torch.equal(before, sources.logits) == (weights == "even")


def test_an_unknown_kind_of_weights_is_refused(ragged):
    with pytest.raises(ValueError, match="weights is 'uneven', expected one of"):
        share(*classifier(ragged), sites=["w"], weights="uneven")
