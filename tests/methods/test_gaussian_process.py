"""Gaussian processes of many tasks: against dense covariances, and as members of a stack."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

import pyro_vmtl.methods.gaussian_process as module
from pyro_vmtl import LinearResponse, Stack, TaskData, VMTLRegressor, add_task
from pyro_vmtl.data.limits import LimitError
from pyro_vmtl.guides import CoregionalizedNormal
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.handlers.tracing import trace_guide_and_model
from pyro_vmtl.inference.elbo import MeanFieldELBO
from pyro_vmtl.methods.challengers import predicted_gain
from pyro_vmtl.methods.gaussian_process import GaussianProcess
from pyro_vmtl.methods.length_scales import evidence_gain, learn_length_scales
from pyro_vmtl.methods.out_of_fold import OutOfFold
from pyro_vmtl.methods.presets import FEW_FEATURES, presets
from pyro_vmtl.models import CoregionalizedRegressor, KernelFeatures, LogNormalNoise

SMALL = GaussianProcess(num_landmarks=30, num_steps=40)
LINEAR = FEW_FEATURES["regression"]["mixed-model"]


def waves(seed: int = 0, num_tasks: int = 6, each: int = 25, curved: float = 1.0) -> TaskData:
    """Draw tasks of two shapes, sin(2x) and cos(2x), of own sizes, beside a slope."""
    rng = np.random.RandomState(seed)
    x = rng.uniform(-2, 2, (num_tasks, each))
    t = np.arange(num_tasks)[:, None]
    size = 1 + 0.3 * rng.randn(num_tasks, 1)
    shape = np.where(t % 2, np.sin(2 * x), np.cos(2 * x))
    y = curved * size * shape + (0.5 + 0.2 * rng.randn(num_tasks, 1)) * x
    y = y + 0.1 * rng.randn(num_tasks, each)
    tasks = np.repeat(np.arange(num_tasks), each).tolist()
    return TaskData.regression(x.reshape(-1, 1), y.ravel(), tasks).with_intercept()


def test_features_are_exact_at_the_landmarks_and_of_nystroem_elsewhere():
    generator = torch.Generator().manual_seed(0)
    at, x = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (8, 5))
    scale = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    features = KernelFeatures(at, scale.log())

    def kernel(a, b):
        return (-0.5 * (((a[:, None] - b) / scale) ** 2).sum(-1)).exp()

    assert torch.allclose(features(at) @ features(at).mT, kernel(at, at), atol=1e-5)  # the jitter
    nystroem = kernel(x, at) @ torch.linalg.solve(kernel(at, at), kernel(at, x))
    assert torch.allclose(features(x) @ features(x).mT, nystroem, atol=1e-5)


@pytest.fixture
def known() -> tuple[CoregionalizedRegressor, CoregionalizedNormal, TaskData]:
    """Return programs in float64 whose scales and loadings are as good as known."""
    data = waves(num_tasks=3, each=7)
    with isolated(0):
        features = KernelFeatures(torch.linspace(-2, 2, 5)[:, None].expand(-1, 2), torch.zeros(2))
        model = CoregionalizedRegressor(features, 2, 5, 2, LogNormalNoise())
        guide = CoregionalizedNormal(model, data)
    with torch.no_grad():
        for posterior in (guide.scale, guide.noise):
            posterior.raw_spread.fill_(-20.0)
        guide.noise.loc.copy_(torch.tensor([[0.3], [0.5], [0.2]]).log())
        guide.scale.loc.copy_(torch.tensor([0.4, 0.7]).log())
        guide.raw_loading_scale.fill_(-20.0)
    return model, guide, data


def _dense(model, guide, data):
    """Return the covariance of all targets without noise, and the noise, in float64."""
    x = data.x[data.mask].double()
    task = data.mask.nonzero()[:, 0]
    phi = torch.cat([x, model.features(x)], 1) * model.factor_scale.double()
    a = guide.loading_loc.double().squeeze(1)[task]
    own = x * guide.scale.loc.double().exp()
    same = task[:, None] == task
    covariance = (phi @ phi.mT) * (a @ a.mT) + (own @ own.mT) * same
    return covariance.detach(), guide.noise.loc.double().exp().squeeze(1)[task].detach()


def test_the_bound_is_the_exact_evidence_where_scales_and_loadings_are_known(known):
    model, guide, data = known
    own, root, _ = guide._integrated()
    loc, cov, kl = guide._factors(own)
    bound = (guide._expected(own, root, loc, cov).sum() - kl).detach()
    covariance, noise = _dense(model, guide, data)
    y = data.y[data.mask].double()
    exact = MultivariateNormal(torch.zeros_like(y), covariance + torch.diag(noise**2)).log_prob(y)
    assert float(bound) == pytest.approx(float(exact), rel=1e-6)  # features are in float32


def test_draws_have_the_exact_posterior_of_the_function(known):
    model, guide, data = known
    covariance, noise = _dense(model, guide, data)
    y = data.y[data.mask].double()
    gain = torch.linalg.solve(covariance + torch.diag(noise**2), covariance).mT
    mean, left = gain @ y, covariance - gain @ covariance
    with isolated(1), torch.no_grad():
        found = torch.stack(
            [
                trace_guide_and_model(model, guide, data.without_targets())
                .model.nodes["y"]["fn"]
                .mean[data.mask]
                for _ in range(3000)
            ]
        ).double()
    # five standard errors of a mean and of a standard deviation of 3,000 draws
    error = left.diagonal().sqrt() / math.sqrt(3000)
    assert ((found.mean(0) - mean).abs() < 5 * error + 1e-4).all()
    assert torch.allclose(found.std(0), left.diagonal().sqrt(), rtol=5 / math.sqrt(6000))


def test_the_bound_with_unknown_loadings_is_that_of_draws(known):
    model, guide, data = known
    with torch.no_grad():
        guide.raw_loading_scale.fill_(math.log(0.4))
    own, root, _ = guide._integrated()
    loc, cov, _ = guide._factors(own)
    expected = guide._expected(own, root, loc, cov).sum()
    generator = torch.Generator().manual_seed(0)
    num_draws = 20_000
    factors = MultivariateNormal(loc, cov)
    with isolated(0):
        u = factors.sample([num_draws]).unflatten(-1, (2, -1))
    noise = torch.randn(num_draws, *guide.loading_loc.shape, generator=generator).double()
    a = (guide.loading_loc + guide.raw_loading_scale.exp() * noise).squeeze(2)
    m = a @ u  # (S, T, P)
    phi = torch.cat([data.x, model.features(data.x)], -1).double()
    own_cov = (data.x.double() * guide.scale.loc.double().exp()) @ (
        data.x.double() * guide.scale.loc.double().exp()
    ).mT
    eye = torch.eye(data.num_rows, dtype=torch.float64)
    cov_t = own_cov + (2 * guide.noise.loc.double()).exp()[..., None] * eye
    mean = torch.einsum("tnp,stp->stn", phi, m)
    each = MultivariateNormal(mean, cov_t).log_prob(data.y.double()).sum(1)
    each, expected = each.detach(), expected.detach()
    error = float(each.std()) / math.sqrt(num_draws)
    assert abs(float(each.mean() - expected)) < 4 * error


def test_curves_are_found_that_lines_cannot_follow():
    whole = waves(each=45)
    parts = (whole.map_rows(lambda v: v[:, :25]), whole.map_rows(lambda v: v[:, 25:]))
    train, test = parts
    errors = []
    for method in (GaussianProcess(), LINEAR):
        predictive = method.fit(train).predictive(test.without_targets())
        errors.append(float((predictive.mean - test.y).square().mean()))
    assert errors[0] < 0.02  # the variance of the noise is 0.01
    assert errors[0] < 0.1 * errors[1]


def test_length_scales_of_features_without_effect_are_long():
    rng = np.random.RandomState(0)
    X = rng.randn(300, 3)
    y = np.sin(3 * X[:, 0]) + 0.1 * rng.randn(300)
    data = TaskData.regression(X, y, rng.randint(0, 5, 300).tolist()).with_intercept()
    scales = learn_length_scales(data)
    assert scales[0] < scales[1:3].min() - 0.7


def test_evidence_tells_smooth_from_linear_targets():
    curve, line = (evidence_gain(waves(each=20, curved=curved)) for curved in (1.0, 0.0))
    assert curve > 20 * abs(line)
    assert abs(line) < 2
    assert evidence_gain(waves().without_targets()) == 0


def test_rows_that_are_mostly_the_same_and_tasks_without_rows_leave_the_evidence():
    rng = np.random.RandomState(0)
    x = rng.uniform(-3, 3, 600) * (rng.rand(600) < 0.25)
    y = np.sin(2 * x) + 0.1 * rng.randn(600)
    data = TaskData.regression(x[:, None], y, np.arange(600) % 3).with_intercept()
    gain = evidence_gain(data)
    assert gain > 50
    wide = data.map_rows(lambda v: torch.cat([v, v.new_zeros(400, *v.shape[1:])]))
    assert evidence_gain(wide) > 50


def test_functions_that_tasks_have_with_opposite_signs_are_found():
    rng = np.random.RandomState(0)
    X, task = rng.randn(200, 3), rng.randint(0, 5, 200)
    y = np.sin(2 * X[:, 0]) * (1 - 2 * (task % 2)) + 0.1 * rng.randn(200)
    data = TaskData.regression(X, y, task.tolist()).with_intercept()
    assert evidence_gain(data) > 100
    scales = learn_length_scales(data)
    assert scales[0] < scales[1:3].min() - 0.7


def test_length_scales_of_groups_are_those_that_each_needs():
    rng = np.random.RandomState(0)
    X, task = rng.randn(600, 4), np.arange(600) % 12
    curve = np.sin(3 * X[np.arange(600), task % 2]) * np.where(task % 2, 1, -1)
    y = curve + 0.1 * rng.randn(600)
    data = TaskData.regression(X, y, task.tolist()).with_intercept()
    scales = learn_length_scales(data)
    assert scales[:2].max() < scales[2:4].min() - 0.7


def test_length_scales_of_columns_are_those_that_each_needs():
    rng = np.random.RandomState(0)
    X = rng.randn(300, 3)
    data = TaskData.regression(X, X[:, 0], [0] * 300)
    y = torch.from_numpy(np.sin(3 * X[:, :2])) + 0.1 * torch.from_numpy(rng.randn(300, 2))
    scales = learn_length_scales(replace(data, y=y[None]))
    assert scales[:2].max() < scales[2] - 0.7


def test_rows_that_say_nothing_leave_usual_length_scales():
    data = TaskData.regression(np.zeros((6, 2)), np.ones(6), list("aabbcc"))
    assert torch.allclose(learn_length_scales(data), torch.full((2,), math.log(1e-3)).double())


def test_folds_at_once_are_those_one_by_one():
    parts = [waves(seed) for seed in (0, 1)]
    both = SMALL.fit_each(parts, seed=0)
    for part, together in zip(parts, both, strict=True):
        alone = SMALL.fit(part, seed=0)
        mean, other = (f.predictive(part, num_samples=20).mean for f in (alone, together))
        assert torch.allclose(mean, other, atol=0.02)  # of targets of size 1: L-BFGS diverges


def test_a_new_task_is_learned_and_others_stay():
    whole = waves(num_tasks=7)
    some = whole.mask.nonzero()[:, 0] < 6
    x, y = whole.x[whole.mask][:, :1], whole.y[whole.mask]
    task = whole.mask.nonzero()[:, 0]
    data = TaskData.regression(x[some], y[some], task[some].tolist()).with_intercept()
    fitted = SMALL.fit(data)
    new = TaskData.regression(x[~some], y[~some], ["new"] * 25).with_intercept()
    grown = add_task(fitted, new)
    before = fitted.predictive(data, num_samples=200).mean
    wide = grown.predictive(whole, num_samples=200).mean
    assert torch.allclose(wide[:6], before, atol=0.05)  # other draws
    left = float((wide[6] - whole.y[6]).square().mean())
    line = add_task(LINEAR.fit(data), new).predictive(whole).mean[6]
    assert left < 0.2 * float((line - whole.y[6]).square().mean())


def test_many_features_and_classes_are_refused():
    with pytest.raises(LimitError, match="150 features, expected at most 101"):
        GaussianProcess().fit(TaskData.regression(np.eye(150), np.arange(150), [0, 1] * 75))
    classes = TaskData.classification([[0.0], [1.0]], ["a", "b"], [0, 0])
    with pytest.raises(ValueError, match="expected real targets"):
        GaussianProcess().fit(classes)
    with pytest.raises(ValueError, match="num_factors is 0"):
        GaussianProcess(num_factors=0)


def test_the_elbo_is_finite_and_rises():
    data = waves()
    fitted = SMALL.fit(data)
    assert fitted.result.history.loss[-1] < fitted.result.history.loss[0] - 50
    member = fitted.member
    with torch.no_grad():
        loss = MeanFieldELBO().loss(member.model, member.guide, data)
    assert math.isfinite(loss)


@pytest.mark.parametrize("seed", [2, 5, 8])
def test_targets_without_noise_are_fitted(seed):
    rng = np.random.RandomState(seed)
    x = rng.uniform(-2, 2, 240)
    data = TaskData.regression(x[:, None], np.sin(2 * x), rng.randint(0, 4, 240).tolist())
    assert learn_length_scales(data).abs().max() < 3
    data = data.with_intercept()
    fitted = SMALL.fit(data)
    assert (fitted.predictive(data).mean - data.y)[data.mask].abs().max() < 0.1


@pytest.mark.parametrize(("seed", "curved"), [(0, 0.0), (1, 1.0)])
def test_linear_response_of_coefficients_has_their_own_variance(seed, curved):
    data = waves(seed, each=40, curved=curved)
    fitted = GaussianProcess(num_landmarks=20, num_steps=200).fit(data)
    member = fitted.member
    response = LinearResponse(member.model, member.guide, data)

    def apart(draws):
        return draws["w"][0, 0] - draws["w"][1, 0]

    found = response.stddev(apart)
    with isolated(0), torch.no_grad():
        drawn = torch.stack([apart(member.guide(data)) for _ in range(500)]).std(0)
    assert torch.allclose(found.to(drawn), drawn, rtol=0.2)  # a tenth of it without their own


def test_rows_in_float64_are_fitted():
    data = waves(each=10)
    wide = replace(data, x=data.x.double(), y=data.y.double())
    assert GaussianProcess(num_landmarks=10, num_steps=5).fit(wide).num_tasks == 6


def improves(trial, held_out, calibrated) -> bool:
    """Whether the gain is more than a standard error."""
    gain, error = predicted_gain(trial, held_out, calibrated)
    return gain > error


def test_rows_of_weight_0_have_no_part_in_a_trial():
    rng = np.random.RandomState(0)
    y, task = torch.from_numpy(rng.randn(200)).float(), torch.zeros(200, dtype=torch.long)
    line, curve = torch.zeros(4, 200), y.expand(4, 200).clone()
    curve[:, :50] = 3.0  # wrong where it counts
    weight = (torch.arange(200) < 50).float()
    held_out = {
        name: OutOfFold({name: Normal(loc, 1.0)}, y, task, weight)
        for name, loc in (("line", line), ("curve", curve))
    }
    assert not improves(held_out["curve"], held_out["line"], [])
    even = [replace(each, weight=torch.ones(200)) for each in held_out.values()]
    assert improves(even[1], even[0], [])


def test_an_interrupted_trial_leaves_the_members(monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "learn_length_scales", interrupt)
    data = waves()
    fitted = Stack({"mixed-model": LINEAR}, challengers={"gp": SMALL}).fit(data)
    assert [*fitted.members] == ["mixed-model"]
    assert fitted.result.stopped == "interrupted"


def test_shares_of_tasks_are_those_of_their_targets_in_fitted_values(known):
    model, guide, data = known
    shares = guide.task_shares()

    def fitted(y):
        guide.take_rows(replace(data, y=y))
        own, root, s = guide._integrated()
        loc, _, _ = guide._factors(own)
        m = guide.loading_loc.double().squeeze(1) @ loc.unflatten(0, (2, -1))
        x = data.x.double()
        smooth = torch.cat([x, model.features(x)], -1) @ m[..., None]
        ridge = x.mT @ (y.double()[..., None] - smooth)
        precision = x.mT @ x + torch.diag_embed(1 / (s[..., None] * root**2)).squeeze(1)
        return smooth.squeeze(-1), (x @ torch.linalg.solve(precision, ridge)).squeeze(-1)

    smooth, own = fitted(data.y)
    total = smooth + own
    for source in range(3):
        only = torch.zeros_like(data.y)
        only[source] = data.y[source]
        part = sum(fitted(only))
        found = (total * part).sum(1) / (total**2).sum(1)
        others = torch.arange(3) != source
        assert torch.allclose(shares[others, source], found[others], atol=1e-6)


def test_tasks_with_rows_enough_for_their_slopes_borrow_nothing():
    rng = np.random.RandomState(0)
    x, task = rng.randn(500), np.arange(500) % 5
    y = (1 + 0.8 * rng.randn(5))[task] * x + 0.3 * rng.randn(500)
    data = TaskData.regression(x[:, None], y, task.tolist()).with_intercept()
    fitted = GaussianProcess(num_landmarks=10, num_steps=40).fit(data)
    assert fitted.borrowed().max() < 0.05


def test_relatedness_of_smooth_functions_tells_groups():
    fitted = SMALL.fit(waves(num_tasks=8))
    shares = fitted.relatedness(num_samples=2)[0][:, :-1]
    own_group = sum(shares[t, t % 2 :: 2].sum() for t in range(8)) / shares.sum()
    assert own_group > 0.9
    assert 0.3 < fitted.borrowed().mean() < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("curved", [1.0, 0.0])
def test_a_stack_has_the_challenger_only_where_it_improves(curved):
    for seed in range(3):
        stack = Stack({"mixed-model": LINEAR}, challengers={"gaussian-process": SMALL})
        data = waves(seed, each=40, curved=curved)
        fitted = stack.fit(data)
        assert ("gaussian-process" in fitted.members) == bool(curved)
        assert fitted.weights.shape == (6, 2 if curved else 1)
        if curved:
            assert fitted.weights[:, 1].min() > 0.5


def test_a_challenger_beyond_the_limits_is_left_out_in_silence(recwarn):
    rng = np.random.RandomState(0)
    data = TaskData.regression(rng.randn(60, 120), rng.randn(60), [0, 1] * 30)
    quick = presets("regression")["shared"].many_features
    quick = type(quick)(shared=(), fitting={"num_steps": 20})
    fitted = Stack({"alone": quick}, 2, challengers={"gp": GaussianProcess()}).fit(data)
    assert [*fitted.members] == ["alone"]
    assert not [w for w in recwarn if "left out" in str(w.message)]


@pytest.mark.slow
def test_an_estimator_is_saved_with_it_and_predicts_the_same(tmp_path):
    data = waves(each=40)
    X, y = data.x[data.mask][:, :1].numpy(), data.y[data.mask].numpy()
    tasks = data.mask.nonzero()[:, 0].tolist()
    fitted = VMTLRegressor().fit(X, y, tasks)
    assert "gaussian-process" in fitted.fitted_.members
    fitted.save(tmp_path / "fit")
    again = VMTLRegressor.load(tmp_path / "fit")
    assert np.allclose(again.predict(X, tasks), fitted.predict(X, tasks), atol=1e-5)
