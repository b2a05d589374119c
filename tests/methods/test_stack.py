"""Stacks: weights, calibrations, folds, and what they are made of."""

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.distributions import Categorical, Normal

from pyro_vmtl import (
    Calibration,
    Stack,
    TaskData,
    folds,
    likelihood_draws,
    log_predictive_density,
    predict_moments,
    predict_proba,
    predictive_mixture,
)
from pyro_vmtl.handlers.program_handler import unwrap
from pyro_vmtl.inference.joint import CannotJoinError
from pyro_vmtl.methods import out_of_fold
from pyro_vmtl.methods import stacking_weights as module
from pyro_vmtl.methods.out_of_fold import OutOfFold
from pyro_vmtl.methods.presets import ALONE, DEFAULT, POOLED, SHARED, presets
from pyro_vmtl.methods.stacking_weights import draw_stacking_weights, stacking_weights


@pytest.fixture
def rows():
    """Real targets of four tasks with 9, 6, 4 and 1 rows."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(20, 2, generator=generator)
    tasks = ["a"] * 9 + ["b"] * 6 + ["c"] * 4 + ["d"]
    y = X.sum(1) + 0.3 * torch.randn(20, generator=generator)
    return TaskData.regression(X, y, tasks).with_intercept()


def classes_of(rows):
    return replace(rows, y=(rows.y > 0).long() * rows.mask, classes=("no", "yes"))


def quick(preset, **changes):
    fitting = {**preset.fitting, "num_steps": 40}
    return replace(preset, fitting=fitting, **changes)


def quick_stack(**changes):
    members = {"shared": quick(SHARED), "alone": quick(ALONE), "pooled": quick(POOLED)}
    return Stack(members, **{"num_folds": 3, **changes})


# Folds


def test_every_row_is_held_out_once(rows):
    held = []
    for train, test in folds(rows, 4, seed=1):
        assert train.task_labels == test.task_labels == rows.task_labels
        assert (train.x[~train.mask] == 0).all() and (test.y[~test.mask] == 0).all()
        for t in range(4):
            one, other, every = (
                {(*x, y) for x, y in zip(d.x[t][m].tolist(), d.y[t][m].tolist(), strict=True)}
                for d, m in ((train, train.mask[t]), (test, test.mask[t]), (rows, rows.mask[t]))
            )
            assert one | other == every and not one & other
            held += other
        for part in (train, test):
            assert sorted(part.row[part.mask].tolist()) == list(range(int(part.mask.sum())))
    assert len(held) == len(set(held)) == 20


def test_tasks_and_classes_are_dealt_out_evenly(rows):
    data = classes_of(rows)
    for _, test in folds(data, 3):
        for t, n in enumerate((9, 6, 4, 1)):
            assert math.floor(n / 3) <= test.mask[t].sum() <= math.ceil(n / 3)
            for c in range(2):
                n_class = ((data.y[t] == c) & data.mask[t]).sum() / 3
                count = ((test.y[t] == c) & test.mask[t]).sum()
                assert n_class - 1 <= count <= n_class + 1


def test_a_class_is_not_held_out_of_all_tasks_at_once():
    """One row of each of ten classes in each of four tasks."""
    X = torch.arange(40.0)[:, None]
    data = TaskData.classification(X, list(range(10)) * 4, [t for t in range(4) for _ in range(10)])
    for train, _ in folds(data, 5):
        assert set(train.y[train.mask].tolist()) == set(range(10))


def test_there_are_no_more_folds_than_rows(rows):
    assert len(list(folds(rows, 50))) == 20


# Weights


def test_weights_maximise_the_penalised_density():
    """Against scipy, on the softmax scale; EM has converged to 1e-4 of the mode."""
    rng = np.random.RandomState(0)
    log_density, task = rng.randn(60, 3) - [0.0, 0.5, 1.0], rng.randint(0, 2, 60)
    found = stacking_weights(torch.tensor(log_density), torch.tensor(task), 2).numpy()
    mean = found.mean(0)  # the prior's mean at the fixed point

    def loss(free):
        w = np.exp(free.reshape(2, 3))
        w /= w.sum(1, keepdims=True)
        fit = np.log((np.exp(log_density) * w[task]).sum(1)).sum()
        return -fit - module.PRIOR_ROWS * (mean * np.log(w)).sum()

    best = np.exp(minimize(loss, np.zeros(6), method="BFGS").x.reshape(2, 3))
    np.testing.assert_allclose(found, best / best.sum(1, keepdims=True), atol=1e-3)


def test_each_task_has_its_own_weights_drawn_to_the_mean():
    task = torch.arange(2).repeat_interleave(200)
    better = torch.where(task == 0, 1.0, -1.0)
    weights = stacking_weights(torch.stack([better, -better], 1), task, 3)
    assert weights[0, 0] > 0.8 and weights[1, 0] < 0.2
    torch.testing.assert_close(weights[2], weights.mean(0))  # no rows
    few = stacking_weights(torch.stack([better, -better], 1)[195:205], task[195:205], 2)
    assert weights[0, 0] > few[0, 0] > 0.5


def test_densities_that_underflow_are_no_trouble():
    log_density = torch.tensor([[-1e4, -2e4], [-5e3, -math.inf]])
    weights = stacking_weights(log_density, torch.zeros(2, dtype=int), 1)
    assert torch.isfinite(weights).all() and weights[0, 0] > 0.5


# Calibration


def test_the_temperature_of_logits_is_found():
    """Labels from softmax(logits / 2); 4,000 rows give log T a standard error of about 0.03."""
    torch.manual_seed(0)
    logits = 3 * torch.randn(4000, 4)
    y = Categorical(logits=logits / 2).sample()
    found = Calibration.learn(Categorical(logits=logits.expand(2, -1, -1)), y)
    assert found.temperature == pytest.approx(2.0, rel=0.08)


def test_the_spread_and_noise_of_real_targets_are_found():
    """True spread 0.5 of the draws', true noise twice theirs, each row with its own draws."""
    torch.manual_seed(1)
    width = 3.0
    loc = width * torch.randn(400, 5000)
    truth = loc.mean(0) + 0.5 * width * torch.randn(5000)
    sizes = torch.linspace(0.5, 3.0, 5000)  # unequal, else noise and spread are one number
    y = truth + 2 * sizes * torch.randn(5000)
    found = Calibration.learn(Normal(loc, sizes.expand_as(loc)), y)
    assert found.temperature == pytest.approx(2.0, rel=0.1)
    assert found.posterior_scale == pytest.approx(0.5, abs=0.1)


def test_what_rows_do_not_tell_stays_as_it_is():
    """Draws that agree have no spread to learn, and no rows leave both numbers at 1."""
    draws = Normal(torch.zeros(20, 500), torch.ones(20, 500))
    found = Calibration.learn(draws, torch.randn(500, generator=torch.Generator().manual_seed(0)))
    assert found.posterior_scale == pytest.approx(1.0)
    none = Calibration.learn(Normal(torch.randn(20, 1), 1.0), torch.zeros(1), weight=torch.zeros(1))
    assert (none.posterior_scale, none.temperature) == pytest.approx((1.0, 1.0))


def test_a_calibration_of_one_and_one_changes_nothing():
    draws = Normal(torch.randn(5, 2, 3), torch.rand(5, 2, 3))
    same = Calibration()(draws)
    torch.testing.assert_close(same.loc, draws.loc)
    torch.testing.assert_close(same.scale, draws.scale)
    with pytest.raises(ValueError, match="is MultivariateNormal, expected a univariate"):
        Calibration()(torch.distributions.MultivariateNormal(torch.ones(3), torch.eye(3)))


# Stacks


def test_a_predictive_is_what_the_functions_for_programs_give(rows):
    fitted = quick(SHARED).fit(rows)
    predictive = fitted.predictive(rows, num_samples=50, seed=3)
    program = (unwrap(fitted.model), unwrap(fitted.guide), rows)
    settings = {"num_samples": 50, "seed": 3}
    mean, std = predict_moments(*program, **settings)
    mask = rows.mask
    torch.testing.assert_close(predictive.mean[mask], mean[mask])
    torch.testing.assert_close(predictive.variance.sqrt()[mask], std[mask])
    density = log_predictive_density(*program, **settings)
    torch.testing.assert_close(predictive.log_prob(rows.y)[mask], density[mask])
    below = likelihood_draws(*program, **settings).cdf(rows.y).mean(0)
    torch.testing.assert_close(predictive.cdf(rows.y)[mask], below[mask])
    fitted = quick(SHARED).fit(classes_of(rows))
    predictive = fitted.predictive(rows, num_samples=50, seed=3)
    proba = predict_proba(unwrap(fitted.model), unwrap(fitted.guide), rows, **settings)
    torch.testing.assert_close(predictive.probs[mask], proba[mask])


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_stack_mixes_its_members(rows, kind):
    data = rows if kind == "regression" else classes_of(rows)
    fitted = quick_stack().fit(data, seed=2)
    assert fitted.result.stopped == "steps"  # 40 are too few
    torch.testing.assert_close(fitted.weights.sum(1), torch.ones(4))
    parts = [predictive_mixture([draws]) for draws in fitted.draws(data, num_samples=200)]
    values = torch.stack([p.mean if kind == "regression" else p.probs[..., 1] for p in parts])
    expected = torch.einsum("mtn,tm->tn", values, fitted.weights)
    predictive = fitted.predictive(data)
    found = predictive.mean if kind == "regression" else predictive.probs[..., 1]
    torch.testing.assert_close(found[data.mask], expected[data.mask])
    assert torch.isfinite(fitted.result.history.loss).all()


def test_a_seed_makes_a_stack(rows):
    members = {
        name: replace(m, fitting={"num_steps": 5}) for name, m in quick_stack().members.items()
    }
    one, other = (Stack(members, num_folds=2).fit(rows, seed=2).weights for _ in range(2))
    assert torch.equal(one, other)


def test_the_pooled_member_is_one_fit_of_all_rows(rows):
    fitted = quick(POOLED).fit(rows)
    [draws] = fitted.draws(rows, num_samples=7)
    assert draws.loc.shape == (7, 4, 9)
    x = rows.x[1, 2]
    loc = next(m for m in fitted.guide.modules() if hasattr(m, "locs")).locs["w"][0, 0]
    many = fitted.draws(rows, num_samples=4000)[0].loc[:, 1, 2].mean()
    # the mean of 4,000 draws, whose deviation is below 1 here
    assert many.item() == pytest.approx((x @ loc).item(), abs=0.06)


def test_relatedness_of_fits_without_a_fold_has_drawn_weights(rows, monkeypatch):
    """Member by member, with weights that are known in place of drawn ones."""
    known = torch.rand(40, 4, 3, generator=torch.Generator().manual_seed(0))
    known = known / known.sum(-1, keepdim=True)
    drawn_from, of_folds, estimates, generators = [], [], [], set()

    def draw(density, task, start, *, num_draws, **settings):
        drawn_from.append((start, num_draws))
        return known[:num_draws]

    def keep(without, estimate, *, num_groups, num_draws, generator):
        assert (num_groups, num_draws) == (3, 5)
        of_folds.append(without)
        estimates.append(estimate)
        generators.add(generator)
        return without

    monkeypatch.setattr(out_of_fold, "draw_stacking_weights", draw)
    monkeypatch.setattr(out_of_fold, "jackknife_draws", keep)
    stack = quick_stack()
    fitted = stack.fit(rows, seed=2)
    assert drawn_from[0][1] == 40 and drawn_from[0][0] is fitted.weights
    assert len(generators) == 1  # or draws of different weights would be alike
    for fold, (train, _) in enumerate(folds(rows, 3, seed=2)):
        expected = torch.zeros(40, 4, 5)
        for m, method in enumerate(stack.members.values()):
            member = method.fit(train, seed=2).member
            shares = member.borrowing.draw(member.guide, num_samples=20_000, seed=2).mean(0)
            expected += known[..., m, None] * shares
        # rounding differs, as the stack fits its folds at once
        found = torch.stack(of_folds[:40])[:, fold]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    each = [m.borrowing.total(m.guide, seed=2) for m in fitted.members.values()]
    borrowed = torch.einsum("mt,dtm->dt", torch.stack(each), known)
    found = torch.stack(estimates[:40])
    torch.testing.assert_close(1 - found[..., -1], borrowed)
    of_each = torch.stack(of_folds[:40]).mean(1)[..., :-1]
    # from whom, as on average without a fold
    torch.testing.assert_close(
        found[..., :-1] / borrowed[..., None], of_each / of_each.sum(-1, keepdim=True)
    )


def test_mean_relatedness_of_a_stack_is_what_it_borrows(rows):
    fitted = quick_stack().fit(rows, seed=2)
    assert fitted.share_draws.shape == (200, 4, 5)
    drawn = fitted.relatedness(num_samples=1000)
    torch.testing.assert_close(drawn.sum(-1), torch.ones(1000, 4))
    assert (drawn.diagonal(dim1=1, dim2=2) == 0).all() and (drawn >= 0).all()
    borrowed = 1 - drawn.mean(0)[:, -1]
    torch.testing.assert_close(borrowed, fitted.borrowed(seed=2), rtol=0, atol=0.005)  # 20 rounds
    assert (drawn[..., 1, 0].quantile(0.95) - drawn[..., 1, 0].quantile(0.05)) > 0
    assert torch.equal(fitted.relatedness(num_samples=8), fitted.share_draws[::25])
    with pytest.raises(ValueError, match="num_samples is 0"):
        fitted.relatedness(num_samples=0)


def test_drawn_stacking_weights_have_their_posterior():
    """One task of two members, beside its posterior on a grid of weight and mean."""
    generator = torch.Generator().manual_seed(0)
    log_density = torch.randn(30, 2, generator=generator) + torch.tensor([0.7, 0.0])
    task = torch.zeros(30, dtype=torch.long)
    start = stacking_weights(log_density, task, 1)
    drawn = draw_stacking_weights(log_density, task, start, num_draws=2000)[:, 0, 0]
    logit = torch.linspace(-30, 30, 1501, dtype=torch.float64)  # densities have poles at 0 and 1
    grid, rest = logit.sigmoid(), (-logit).sigmoid()
    first, second = log_density.double().exp().T[..., None]
    of_rows = (grid * first + rest * second).log().sum(0) + (grid * rest).log()
    of_mean = 0.5 * (grid * rest).log()  # Beta(1/2, 1/2), by logit
    a, b = 20 * grid, 20 * rest
    given_mean = (a - 1) * grid.log()[:, None] + (b - 1) * rest.log()[:, None]
    given_mean = given_mean - a.lgamma() - b.lgamma()
    joint = of_rows[:, None] + given_mean + of_mean
    posterior = joint.flatten().softmax(0).reshape(joint.shape).sum(1)
    exact = (posterior * grid).sum()
    sd = (posterior * (grid - exact) ** 2).sum().sqrt()
    # four standard errors of 1,000 independent draws; those of the chain are every tenth state
    assert drawn.mean().item() == pytest.approx(exact.item(), abs=0.13 * sd.item())
    assert drawn.std().item() == pytest.approx(sd.item(), rel=0.13)


def test_relatedness_is_that_of_the_members(rows):
    fitted = quick_stack().fit(rows)
    each = [m.borrowing.draw(m.guide, num_samples=5, seed=1) for m in fitted.members.values()]
    for drawn in each:
        torch.testing.assert_close(drawn.sum(-1), torch.ones(5, 4))
        assert (drawn.diagonal(dim1=1, dim2=2) == 0).all() and (drawn >= 0).all()
    w = fitted.weights[:, :, None]
    expected = sum(w[:, m] * drawn for m, drawn in enumerate(each))
    single = replace(fitted, share_draws=None)
    torch.testing.assert_close(single.relatedness(num_samples=5, seed=1), expected)
    alone, pooled = each[1], each[2]
    assert (alone[..., :-1] == 0).all()
    # of a pooled posterior that has next to nothing of the prior: by numbers of rows
    of_rows = torch.tensor([9.0, 6.0, 4.0, 1.0]) / 20
    torch.testing.assert_close(
        pooled[0, :, :-1], of_rows.expand(4, 4) * (1 - torch.eye(4)), rtol=0, atol=0.02
    )


def test_an_interrupted_stack_keeps_the_members_that_are_done(rows, monkeypatch):
    fit_each, calls = type(SHARED).fit_each, []

    def interrupted(preset, parts, **settings):
        fits = fit_each(preset, parts, **settings)
        calls.append(preset)
        if len(calls) < 2:
            return fits
        return [replace(each, result=replace(each.result, stopped="interrupted")) for each in fits]

    monkeypatch.setattr(type(SHARED), "fit_each", interrupted)
    fitted = quick_stack().fit(rows)
    assert fitted.result.stopped == "interrupted" and set(fitted.members) == {"shared", "alone"}
    torch.testing.assert_close(fitted.weights, torch.full((4, 2), 1 / 2))
    assert torch.isfinite(fitted.predictive(rows).mean).all()


def refuse_to_join(*args, **kwargs):
    raise CannotJoinError


def test_an_interrupted_stack_keeps_what_is_done(rows, monkeypatch):
    monkeypatch.setattr(type(SHARED), "starts_anew", lambda preset, data: False)
    monkeypatch.setattr("pyro_vmtl.methods.method.fit_jointly", refuse_to_join)
    fit, calls = type(SHARED)._fit, []

    def interrupted(preset, *args):
        fitted = fit(preset, *args)
        calls.append(preset)
        if len(calls) < 6:
            return fitted
        return replace(fitted, result=replace(fitted.result, stopped="interrupted"))

    monkeypatch.setattr(type(SHARED), "_fit", interrupted)
    fitted = quick_stack().fit(rows)
    assert fitted.result.stopped == "interrupted" and len(calls) == 6
    assert set(fitted.members) == {"shared", "alone", "pooled"}
    torch.testing.assert_close(fitted.weights, torch.full((4, 3), 1 / 3))  # no fold is complete
    assert torch.isfinite(fitted.predictive(rows).mean).all()


def test_fits_at_once_are_the_fits_one_by_one(rows, monkeypatch):
    together = quick_stack().fit(rows, seed=1)
    monkeypatch.setattr("pyro_vmtl.methods.method.fit_jointly", refuse_to_join)
    single = quick_stack().fit(rows, seed=1)
    for name, calibration in single.calibrations.items():
        # rounding moves the few steps of these fits, and more what was learned from them
        assert vars(together.calibrations[name]) == pytest.approx(vars(calibration), rel=0.02)
    torch.testing.assert_close(together.weights, single.weights, rtol=0, atol=0.01)
    torch.testing.assert_close(
        together.predictive(rows).mean, single.predictive(rows).mean, rtol=0, atol=0.01
    )


def test_without_calibration_there_is_none(rows):
    fitted = quick_stack(calibrated=False).fit(rows)
    assert not fitted.calibrations
    assert torch.isfinite(fitted.predictive(rows).mean).all()


def test_settings_of_stacks_are_checked():
    with pytest.raises(ValueError, match="members is empty"):
        Stack({})
    with pytest.raises(ValueError, match="num_folds is 1"):
        Stack({"alone": ALONE}, num_folds=1)


def test_the_default_is_one_object_for_each_kind():
    assert presets("classification")["default"].many_features.members == DEFAULT.members
    real = presets("regression")["default"].many_features.members
    assert [*real] == ["shared", "alone", "hierarchical", "pooled", "shared-kl-1"]
    assert {m.kl_weights for m in DEFAULT.members.values()} == {0.2}
    weights = {**dict.fromkeys(real, 0.5), "shared-kl-1": 1.0}
    assert {name: m.kl_weights for name, m in real.items()} == weights


def test_held_out_predictions_decide():
    """By hand: one member is right in task 0, the other in task 1."""
    y, task = torch.zeros(120), torch.arange(120) % 2
    near, far = torch.zeros(5, 120), torch.full((5, 120), 3.0)
    right = torch.where(task == 0, near, far)
    other = torch.where(task == 0, far, near)
    draws = {"one": Normal(right, 1.0), "two": Normal(other, 1.0)}
    held_out = OutOfFold(draws, y, task, torch.ones(120))
    weights = stacking_weights(held_out.log_density({}), held_out.task, 2)
    assert weights[0, 0] > 0.8 and weights[1, 1] > 0.8


def test_weights_are_of_rows_that_calibrations_have_not_seen():
    """Two equal members, one of them calibrated on pure noise: it gains nothing by that."""
    generator = torch.Generator().manual_seed(0)
    gain = {"same rows": [], "other rows": []}
    for _ in range(200):
        y = torch.randn(12, generator=generator)
        centers = 0.5 * torch.randn(30, 12, generator=generator)
        draws = {name: Normal(centers, 1.0) for name in ("plain", "calibrated")}
        held_out = OutOfFold(draws, y, torch.zeros(12, dtype=torch.long), torch.ones(12))
        calibrations = held_out.calibrations(["calibrated"])
        gain["same rows"].append(held_out.weights(held_out.log_density(calibrations), 1)[0, 1])
        density = held_out.cross_fitted_density(["calibrated"])
        gain["other rows"].append(held_out.weights(density, 1)[0, 1])
    same, other = (torch.stack(values) for values in gain.values())
    assert same.mean() > 0.5 + 4 * same.std() / math.sqrt(200)
    assert other.mean() < 0.5 + 2 * other.std() / math.sqrt(200)


def test_halves_that_calibrate_each_other_are_random():
    """Rows in turn of two classes: every second row would have one class only."""
    y = torch.arange(400) % 2
    logits = torch.tensor([0.7, 0.0]).expand(2, 400, 2)  # biased, equally for all rows
    draws = {"plain": Categorical(logits=logits), "calibrated": Categorical(logits=logits)}
    held_out = OutOfFold(draws, y, torch.zeros(400, dtype=torch.long), torch.ones(400))
    weights = held_out.weights(held_out.cross_fitted_density(["calibrated"]), 1)
    assert weights[0, 1] > 0.45  # a calibration of one class predicts the other worse by 0.1 nats
    real = Normal(torch.zeros(3, 400, dtype=torch.float64), 1.0)  # of a program of one's own
    held_out = replace(held_out, draws={"own": real}, y=y.float())
    density = held_out.cross_fitted_density(["own"])
    assert held_out.weights(density, 1).item() == pytest.approx(1.0)


def test_shared_representations_and_single_rows_can_be_stacked(rows):
    vmtl = presets("regression")["vmtl"]
    small = replace(vmtl, latent_size=2, fitting={"num_steps": 5})
    fitted = Stack({"vmtl": small, "alone": quick(ALONE)}, num_folds=2).fit(rows)
    assert torch.isfinite(fitted.predictive(rows).mean[rows.mask]).all()
    one = TaskData.regression([[1.0]], [2.0], ["a"]).with_intercept()
    fitted = Stack({"alone": quick(ALONE), "pooled": quick(POOLED)}).fit(one)
    torch.testing.assert_close(fitted.weights, torch.full((1, 2), 0.5))
    assert pickle.loads(pickle.dumps(fitted.calibrations)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["strangers", "copies"])
def test_the_right_prior_counts_most(kind):
    """Six tasks of 20 rows: strangers are not pooled, copies not left alone."""
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(6, 4, generator=generator)
    w = own if kind == "strangers" else own[:1].expand(6, 4)
    X = torch.randn(6, 20, 4, generator=generator)
    y = torch.einsum("tnf,tf->tn", X, w) + torch.randn(6, 20, generator=generator)
    tasks = [t for t in range(6) for _ in range(20)]
    data = TaskData.regression(X.reshape(-1, 4), y.flatten(), tasks).with_intercept()
    members = {
        "alone": quick(ALONE, kl_weights={"w": 1.0}),
        "pooled": quick(POOLED, kl_weights={"w": 1.0}),
    }
    fitted = Stack(members, num_folds=3).fit(data)
    counts = dict(zip(fitted.members, fitted.weights.mean(0).tolist(), strict=True))
    assert counts["pooled" if kind == "copies" else "alone"] > 0.75


@pytest.mark.parametrize(("num_features", "members"), [(2, 2), (7, 5)])
def test_data_of_few_features_have_other_members(num_features, members):
    x = torch.randn(30, num_features, generator=torch.Generator().manual_seed(0))
    data = TaskData.regression(x, x[:, 0], list("abc") * 10)
    stack = presets("regression")["default"].for_data(data)
    assert len(stack.members) == members
    assert ("mixed-model" in stack.members) == (members == 2)


@pytest.mark.slow
def test_folds_start_at_the_fit_of_all_rows():
    """In fewer evaluations they predict as fits from their own start do, groups included."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.tensor([[2.0, 0.0, 1.0], [0.0, -2.0, -1.0]])
    w = centers[torch.arange(6) % 2] + 0.1 * torch.randn(6, 3, generator=generator)
    x = torch.randn(6, 20, 3, generator=generator)
    y = torch.einsum("tnf,tf->tn", x, w) + torch.randn(6, 20, generator=generator)
    tasks = [t for t in range(6) for _ in range(20)]
    data = TaskData.regression(x.reshape(-1, 3), y.flatten(), tasks)
    stack = replace(presets("regression")["default"].for_data(data), num_folds=2)
    members = {name: method.fit(data).member for name, method in stack.members.items()}
    from_there, anew = (stack.out_of_fold(data, start)[0] for start in (members, None))
    difference = (from_there.log_density({}) - anew.log_density({})).mean(0)
    assert difference.abs().max() < 0.02  # nats a row
    train, _ = next(folds(data, 2))
    shared = stack.members["shared"]
    more, own = (shared.fit(train, start=start).result for start in (members["shared"], None))
    assert len(more.history.loss) < 0.6 * len(own.history.loss)


def test_adam_does_not_start_at_another_fit(rows):
    """It would keep some of what held-out rows said."""
    preset = quick(ALONE)
    member = preset.fit(rows).member
    train, _ = next(folds(rows, 3))
    losses = [preset.fit(train, start=start).result.history.loss for start in (member, None)]
    assert torch.equal(*losses)
