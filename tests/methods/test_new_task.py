"""Tasks that were not in the fit: predicted without rows, and taken in by a few."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.distributions import LogNormal

from pyro_vmtl import Stack, TaskData, relatedness
from pyro_vmtl.estimators import VMTLClassifier, VMTLRegressor
from pyro_vmtl.methods.add_task import add_task
from pyro_vmtl.methods.new_task import (
    new_task_draws,
    new_task_log_density,
    new_task_member_weights,
)
from pyro_vmtl.methods.presets import ALONE, FEW_FEATURES, HIERARCHICAL, POOLED, SHARED, presets
from pyro_vmtl.models.task_noise import LogNormalNoise
from pyro_vmtl.sharing.sources import Sources

MEMBERS = {"shared": SHARED, "alone": ALONE, "hierarchical": HIERARCHICAL, "pooled": POOLED}

S = 40_000
"""Draws: the standard error of a mean is 0.005 standard deviations, that of a variance 0.7 %."""


def quick(preset, num_steps=50, **changes):
    preset = getattr(preset, "many_features", preset)
    return replace(preset, fitting={"num_steps": num_steps}, **changes)


def lines(slopes, num_rows, *, seed=0, noise=0.3):
    """Rows of tasks, each a line through 0 with a slope of its own."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [num_rows] * len(slopes) if isinstance(num_rows, int) else num_rows
    tasks = [t for t, n in enumerate(sizes) for _ in range(n)]
    X = torch.randn(len(tasks), 2, generator=generator)
    y = X[:, 0] * torch.tensor(slopes)[tasks] + noise * torch.randn(len(tasks), generator=generator)
    return TaskData.regression(X, y, tasks).with_intercept()


def targets_as(data, kind):
    if kind == "classification":
        return replace(data, y=(data.y > 0).long() * data.mask, classes=("no", "yes"))
    if kind == "counts":
        return replace(data, y=(data.y.clamp(-2, 2).exp() * 3).round() * data.mask)
    return data


def one_task(data, task, num_rows=None):
    rows = data.map_rows(lambda values: values[task : task + 1, :num_rows])
    return replace(rows, task_labels=("new",))


@pytest.fixture(scope="module")
def data():
    return lines([1.0, 1.2, 0.8, -1.0, -1.2], [20, 15, 10, 10, 5])


def moments(fitted, rows, **settings):
    draws = new_task_draws(fitted.member, rows, num_samples=S, seed=1, **settings)
    return draws.loc.mean(0)[0], draws.loc.var(0)[0] + (draws.scale**2).mean(0)[0]


def check(found, mean, var):
    """Four standard errors and more."""
    torch.testing.assert_close(found[0], mean, rtol=0, atol=0.03 * var.max().sqrt().item())
    torch.testing.assert_close(found[1], var, rtol=0.05, atol=0)


def posterior(fitted, site="w"):
    """Means and variances, without the dimension of rows."""
    found = _mean_field(fitted).posterior(site)
    return found.mean.detach().squeeze(1), found.variance.detach().squeeze(1)


def _mean_field(fitted):
    return next(module for module in fitted.guide.modules() if hasattr(module, "locs"))


def noise_var(fitted):
    """Expected variance of the noise of every task."""
    return _second_moment(_mean_field(fitted).posterior("noise_scale")).flatten()


def prior_noise_var(fitted):
    noise = next(m for m in fitted.model.modules() if isinstance(m, LogNormalNoise))
    return _second_moment(LogNormal(noise.loc, noise.raw_spread.exp()))


def _second_moment(distribution):
    return (distribution.mean**2 + distribution.variance).detach()


def prior_var(fitted):
    names = [n for n in fitted.model.state_dict() if n.endswith("raw_scale") and "mean" not in n]
    return fitted.model.state_dict()[names[0]].exp() ** 2


# Without rows


def test_alone_a_new_task_is_the_prior(data):
    fitted, rows = quick(ALONE).fit(data), one_task(data, 0)
    var = (rows.x[0] ** 2).sum(1) * prior_var(fitted) + prior_noise_var(fitted)
    check(moments(fitted, rows), torch.zeros_like(var), var)


def test_pooled_a_new_task_is_like_all(data):
    fitted, rows = quick(POOLED).fit(data), one_task(data, 0)
    loc, var = posterior(fitted)
    x = rows.x[0]
    check(moments(fitted, rows), x @ loc[0], x**2 @ var[0] + noise_var(fitted))
    own = fitted.predictive(data, tasks=torch.tensor([0]), num_samples=S)
    check(moments(fitted, rows), own.mean[0], own.variance[0])


def test_hierarchical_a_new_task_is_about_the_common_mean(data):
    fitted, rows = quick(HIERARCHICAL).fit(data), one_task(data, 0)
    found = _mean_field(fitted).posterior("w_mean")
    x, var = rows.x[0], found.variance.detach() + prior_var(fitted)
    expected = x**2 @ var + prior_noise_var(fitted)
    check(moments(fitted, rows), x @ found.mean.detach(), expected)


@pytest.mark.parametrize("anchor", [True, False])
def test_shared_a_new_task_is_one_of_the_others_or_the_base(data, anchor):
    """A mixture of the widened posteriors and the prior, each with the noise of its task."""
    fitted = quick(
        SHARED, sharing={**SHARED.sharing, "min_base_weight": None if anchor else 0.0}
    ).fit(data)
    rows = one_task(data, 0)
    base = 1 / 6 + (1 - 1 / 6) / 6 if anchor else 1 / 6
    sources = next(module for module in fitted.guide.modules() if isinstance(module, Sources))
    loc, var = posterior(fitted)
    widened = var + sources.transfer_scale.detach().squeeze(1) ** 2
    x, noise = rows.x[0], noise_var(fitted)
    means = [x @ loc[t] for t in range(5)] + [torch.zeros(len(x))]
    variances = [x**2 @ widened[t] + noise[t] for t in range(5)]
    variances.append((x**2).sum(1) * prior_var(fitted) + prior_noise_var(fitted))
    weights = [(1 - base) / 5] * 5 + [base]
    mean = sum(w * m for w, m in zip(weights, means, strict=True))
    second = sum(w * (v + m**2) for w, v, m in zip(weights, variances, means, strict=True))
    check(moments(fitted, rows), mean, second - mean**2)


@pytest.mark.parametrize("anchor", [True, False])
def test_a_task_that_is_new_is_no_source(data, anchor):
    """Densities of rows are those of a mixture without the posterior of their own task."""
    least = None if anchor else 0.0
    fitted = quick(SHARED, sharing={**SHARED.sharing, "min_base_weight": least}).fit(data)
    task, place = torch.tensor([3, 0, 3]), torch.tensor([0, 2, 5])
    found = new_task_log_density(fitted.member, data, task, place, num_samples=S)
    sources = next(module for module in fitted.guide.modules() if isinstance(module, Sources))
    loc, var = posterior(fitted)
    scale = (var + sources.transfer_scale.detach().squeeze(1) ** 2).sqrt()
    noises = _mean_field(fitted).posterior("noise_scale")
    of_prior = next(m for m in fitted.model.modules() if isinstance(m, LogNormalNoise))
    base = 1 / 5 + (1 - 1 / 5) / 5 if anchor else 1 / 5
    torch.manual_seed(0)
    for t, n, value in zip(task, place, found, strict=True):
        x, y = data.x[t, n], data.y[t, n]
        likelihood = base * normal_density(
            y, x, 0.0, prior_var(fitted).sqrt(), LogNormal(of_prior.loc, of_prior.raw_spread.exp())
        )
        for other in {0, 1, 2, 3, 4} - {t.item()}:
            noise = LogNormal(noises.base_dist.loc[other], noises.base_dist.scale[other])
            density = normal_density(y, x, loc[other], scale[other], noise)
            likelihood = likelihood + (1 - base) / 4 * density
        # 40,000 draws of densities that vary by less than three times their mean
        torch.testing.assert_close(value, likelihood.log().squeeze(), rtol=0, atol=0.06)


@torch.no_grad()
def normal_density(y, x, loc, scale, noise):
    """Average the density of a target over draws of coefficients and noise."""
    w = loc + scale * torch.randn(S, len(x))
    return torch.distributions.Normal(w @ x, noise.sample((S,)).reshape(S)).log_prob(y).exp().mean()


@pytest.mark.parametrize("kind", ["classification", "counts"])
@pytest.mark.parametrize("name", MEMBERS)
def test_classes_and_counts_of_new_tasks_are_predicted(data, kind, name):
    """Pooled ones as by the fit; any other between that of one task and none."""
    data = targets_as(data, kind)
    preset = quick(MEMBERS[name], likelihood="Poisson" if kind == "counts" else None)
    fitted = preset.fit(data)
    rows = one_task(data, 0)
    found = fitted.new_task_predictive(rows, num_samples=2000)
    value = found.probs if kind == "classification" else found.mean
    assert torch.isfinite(value).all() and (value > 0).all()
    if name == "pooled":
        own = fitted.predictive(data, tasks=torch.tensor([0]), num_samples=2000)
        expected = own.probs if kind == "classification" else own.mean
        torch.testing.assert_close(value, expected, rtol=0.05, atol=0.02)
    if name == "alone" and kind == "classification":
        # the prior is even; 2000 probabilities of standard deviation 0.4 have an error of 0.01
        torch.testing.assert_close(value, torch.full_like(value, 0.5), rtol=0, atol=0.05)


def test_latent_presets_say_that_they_need_rows(data):
    fitted = quick(presets("regression")["bmtl"], 3).fit(data)
    with pytest.raises(ValueError, match="A new task needs a linear preset"):
        fitted.new_task_predictive(one_task(data, 0))
    with pytest.raises(ValueError, match="A new task needs a linear preset"):
        add_task(fitted, one_task(data, 0))


def test_new_tasks_weigh_the_member_that_suits_the_data():
    """Copies are predicted by all rows, strangers by the prior."""
    members = {"alone": ALONE, "pooled": POOLED}
    for slopes, best in ([1.0] * 48, "pooled"), ([3.0, -3.0] * 24, "alone"):
        data = lines(slopes, 8)
        fits = {name: quick(preset).fit(data).member for name, preset in members.items()}
        weights = new_task_member_weights(fits, data)
        assert weights.sum() == pytest.approx(1)
        # 48 tasks for it at most, and half of the 20 rows of the prior
        assert 0.55 < weights[list(members).index(best)] <= (48 + 10) / (48 + 20) + 1e-6


def test_few_tasks_say_little_about_new_ones():
    """The pooled fit has seen the rows: with 3 strangers it looks better than it is."""
    members = {"alone": ALONE, "pooled": POOLED}
    data = lines([3.0, -3.0, 0.0], 8)
    fits = {name: quick(preset).fit(data).member for name, preset in members.items()}
    weights = new_task_member_weights(fits, data)
    assert (weights - 0.5).abs().max() <= 3 / (2 * 23) + 1e-6  # three rows against 20


def test_of_a_single_task_nothing_is_learned_about_new_ones(data):
    one = one_task(data, 0)
    weights = new_task_member_weights({n: quick(MEMBERS[n]).fit(one).member for n in MEMBERS}, one)
    assert weights.tolist() == [0.25] * 4


# With a few rows

VARIANTS = {
    **{name: quick(preset) for name, preset in MEMBERS.items()},
    "even": quick(SHARED, sharing={"weights": "even", "start": "even"}),
    "softmax": quick(SHARED, sharing={"weights": "softmax", "base": False, "min_base_weight": 0.0}),
    "categorical": quick(SHARED, sharing={}),
    "points": quick(ALONE, deterministic=True, learned_prior=False),
    "weight decay": replace(SHARED, fitting={"num_steps": 50, "weight_decay": 0.1}),
    "points in place of draws": FEW_FEATURES["regression"]["shared"],
}


def learned(fitted):
    return {**fitted.model.state_dict(prefix="model."), **fitted.guide.state_dict(prefix="guide.")}


@pytest.mark.parametrize("kind", ["regression", "classification", "counts"])
@pytest.mark.parametrize("name", VARIANTS)
def test_all_numbers_of_the_others_stay(data, name, kind):
    preset = VARIANTS[name]
    if kind == "counts":
        preset = replace(preset, likelihood="Poisson")
    data = targets_as(data, kind)
    new = one_task(targets_as(lines([1.0], 25, seed=5), kind), 0)
    fitted = preset.fit(data)
    before = {key: value.clone() for key, value in learned(fitted).items()}
    grown = add_task(fitted, new)
    assert grown.num_tasks == 6 and fitted.num_tasks == 5
    changed = 0
    for key, value in learned(grown).items():
        old = before[key]
        assert torch.equal(old, learned(fitted)[key]), key
        if value.shape == old.shape:
            assert torch.equal(value, old), key
        elif not key.endswith("logits"):
            assert torch.equal(value[:-1], old), key
            changed += 1
    assert changed or preset.pooled
    if "w" in preset.shared and name != "even":
        weights = grown.relatedness(num_samples=200)
        torch.testing.assert_close(weights.sum(-1), torch.ones(200, 6))
        # exp(-30) by the temperature of 1 and less
        assert weights[:, :5, 5].max() < 1e-6
        torch.testing.assert_close(
            weights[:, :5, :5].mean(0) / weights[:, :5, :5].sum(-1, keepdim=True).mean(0),
            _without_base(fitted.relatedness(num_samples=200)),
            atol=0.15,  # 200 draws of weights, of standard deviation 0.4
            rtol=0,
        )
    rows = data.map_rows(lambda v: torch.cat([v, torch.zeros_like(v[:1])]))
    rows = replace(rows, task_labels=tuple(range(6)))
    both = [
        f.predictive(r, num_samples=50, tasks=torch.arange(5))
        for f, r in ((fitted, data), (grown, rows))
    ]
    values = [p.probs if kind == "classification" else p.mean for p in both]
    if "w" in preset.shared:  # draws of other weights come before: 50 draws, of a few tenths
        torch.testing.assert_close(*values, rtol=0.3, atol=0.2)
    else:
        assert torch.equal(*values)


def _without_base(weights):
    sources = weights[..., :-1]
    return sources.mean(0) / sources.sum(-1, keepdim=True).mean(0)


def test_a_new_task_finds_its_group():
    """With 20 coefficients, as by a few a group saves too little to be found."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(2, 20, generator=generator)
    X = torch.randn(9 * 30, 20, generator=generator)
    group = torch.tensor([0] * 4 + [1] * 4 + [1]).repeat_interleave(30)
    y = (X * w[group]).sum(1) + 0.3 * torch.randn(270, generator=generator)
    every = TaskData.regression(X, y, [t for t in range(9) for _ in range(30)]).with_intercept()
    old = replace(every.map_rows(lambda v: v[:8]), task_labels=tuple(range(8)))
    fitted = quick(presets("regression")["shared"], 400).fit(old)
    grown = add_task(fitted, one_task(every, 8))
    weights = grown.relatedness(num_samples=500).mean(0)[-1]
    assert weights[4:8].sum() > 0.8 * weights[:8].sum()


@pytest.mark.slow
def test_the_error_falls_with_rows_to_that_of_a_whole_fit():
    """Slopes of the others are from 1 to 3, that of the new task is 5."""
    data, method = lines([1.0, 1.5, 2.0, 2.5, 3.0], 30), quick(SHARED, 300)
    fitted = method.fit(data)
    new, test = lines([5.0], 200, seed=3), lines([5.0], 500, seed=4)
    wide = test.map_rows(lambda v: torch.cat([v.new_zeros(5, *v.shape[1:]), v]))
    wide = replace(wide, task_labels=tuple(range(6)))
    errors = []
    for num_rows in (1, 5, 50, 200):
        grown = add_task(fitted, one_task(new, 0, num_rows))
        mean = grown.predictive(wide, tasks=torch.tensor([5])).mean[0]
        errors.append((mean - test.y[0]).square().mean().sqrt().item())
    assert errors[0] > errors[1] > errors[2] - 0.02
    # noise is 0.3, and 200 rows know 3 coefficients to 0.3 / sqrt(200) each
    assert errors[-1] < 0.33


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shared", "alone", "hierarchical"])
def test_a_task_that_was_added_is_predicted_as_by_a_whole_fit(name):
    """Both fits stop by about a tenth of the posterior's width from the optimum."""
    slopes, sizes = [1.0, 1.1, 0.9, 1.0, 1.2], [30, 30, 30, 30, 30]
    both = lines([*slopes, 1.0], [*sizes, 30], seed=2)
    method = quick(MEMBERS[name], 1000)
    part = replace(both.map_rows(lambda v: v[:5]), task_labels=tuple(range(5)))
    grown = add_task(method.fit(part), one_task(both, 5))
    whole = method.fit(both)
    found, expected = (f.predictive(both, tasks=torch.tensor([5])) for f in (grown, whole))
    std = expected.variance.sqrt()  # mostly noise, of 0.3
    assert ((found.mean - expected.mean).abs() < 0.3 * std).all()
    assert ((found.variance.sqrt() / std).log().abs() < math.log(1.25)).all()


def estimators(kind):
    members = {name: presets(kind)[name] for name in ("shared", "hierarchical")}
    members = {name: quick(preset) for name, preset in members.items()}
    members["alone"] = replace(members["shared"], shared=())
    members["pooled"] = replace(members["shared"], pooled=True)
    if kind == "classification":
        return VMTLClassifier(Stack(members, num_folds=2), num_samples=50)
    likelihood = "poisson" if kind == "counts" else "normal"
    return VMTLRegressor(Stack(members, num_folds=2), likelihood=likelihood, num_samples=50)


def values(fitted, X, tasks):
    classes = isinstance(fitted, VMTLClassifier)
    return fitted.predict_proba(X, tasks) if classes else fitted.predict(X, tasks)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["regression", "classification", "counts"])
def test_tasks_are_added_to_an_estimator_one_by_one(kind, tmp_path):
    rng = np.random.default_rng(0)
    tasks = np.repeat(["a", "b", "c", "d", "e"], [20, 20, 20, 25, 3])
    X = rng.normal(size=(88, 2))
    y = 2 * X[:, 0] + 0.3 * rng.normal(size=88)
    y = {"regression": y, "classification": y > 0, "counts": rng.poisson(np.exp(0.5 * y))}[kind]
    old, d, e = (np.isin(tasks, list(names)) for names in ("abc", "d", "e"))
    fitted = estimators(kind).fit(X[old], y[old], tasks[old])
    before = values(fitted, X[old], tasks[old])
    fitted.add_task(X[d], y[d], task="d")
    # draws of the weights of more sources come before those of coefficients
    close = {"rtol": 0.05, "atol": 0.05}
    assert_allclose(values(fitted, X[old], tasks[old]), before, **close)
    first = values(fitted, X[d], tasks[d])
    assert fitted.score(X[d], y[d], tasks[d]) > (0.3 if kind == "counts" else 0.8)
    fitted.save(tmp_path / "fit")
    again = type(fitted).load(tmp_path / "fit")
    for estimator in (fitted, again):
        estimator.add_task(X[e], y[e], task="e")
        assert estimator.tasks_ == ("a", "b", "c", "d", "e")
        assert estimator.task_sizes_ == (20, 20, 20, 25, 3)
        assert_allclose(values(estimator, X[old], tasks[old]), before, **close)
        assert_allclose(values(estimator, X[d], tasks[d]), first, **close)
        assert estimator.relatedness_["mean"].shape == (5, 6)
        assert len(estimator.summary()) == 5
    assert_array_equal(values(again, X[e], tasks[e]), values(fitted, X[e], tasks[e]))
    with pytest.raises(ValueError, match="task 'd' is among the tasks of the fit"):
        fitted.add_task(X[d], y[d], task="d")


def test_members_of_a_new_task_are_weighed_by_its_rows_where_there_are_many(data):
    """A line of slope 30 is nothing that the pooled member could predict."""
    members = {"alone": quick(ALONE), "pooled": quick(POOLED)}
    fitted = Stack(members, num_folds=2).fit(data)
    few = add_task(fitted, one_task(lines([30.0], 5), 0))
    assert torch.equal(few.weights[-1], fitted.new_task_weights)
    many = add_task(fitted, one_task(lines([30.0], 60), 0))
    assert many.weights[-1, 0] > 0.7 and torch.equal(many.weights[:-1], fitted.weights)
    torch.testing.assert_close(many.weights.sum(1), torch.ones(6))


def test_adding_to_a_single_task(data):
    """Alone at first, it has a source then."""
    fitted = quick(SHARED).fit(one_task(data, 0))
    grown = add_task(fitted, one_task(data, 1))
    assert grown.relatedness().shape == (1000, 2, 3)
    assert relatedness(grown.guide, "w")[:, 1, 0].mean() > 0.1
