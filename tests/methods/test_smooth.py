"""Smooth functions in linear predictors: against plain torch, and as members of a stack."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import Linear
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_vmtl import MeanFieldELBO, Preset, Stack, TaskData, VMTLClassifier, add_task
from pyro_vmtl.data import limits
from pyro_vmtl.data.limits import LimitError
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.handlers.linear_predictor import linear_predictor, predict_linearly
from pyro_vmtl.handlers.smooth_term import expand_rows
from pyro_vmtl.methods import challengers
from pyro_vmtl.methods.presets import FEW_FEATURES, SHARED, presets
from pyro_vmtl.methods.smooth_features import COPIES
from pyro_vmtl.models import KernelFeatures, PrincipalFeatures

F64 = torch.float64
LINEAR = FEW_FEATURES["classification"]["mixed-model"]
COMMON = replace(presets("classification")["gaussian-process"].few_features, num_landmarks=30)
OWN = replace(SHARED, smooth="own", num_landmarks=30)


def rings(seed: int = 0, num_tasks: int = 6, each: int = 40, *, opposite: bool = False) -> TaskData:
    """Draw points of a disc, and whether they are in its middle; in half of the tasks outside."""
    rng = np.random.RandomState(seed)
    X = rng.randn(num_tasks, each, 2)
    t = np.arange(num_tasks)[:, None]
    inside = (X**2).sum(-1) + 0.3 * rng.randn(num_tasks, each) < 1.4
    y = inside ^ (t % 2 == 1) if opposite else inside
    tasks = np.repeat(np.arange(num_tasks), each).tolist()
    return TaskData.classification(X.reshape(-1, 2), y.ravel().tolist(), tasks).with_intercept()


def counts(seed: int = 0) -> TaskData:
    """Draw counts with a wave in their log rate."""
    rng = np.random.RandomState(seed)
    x = rng.uniform(-2, 2, 240)
    y = rng.poisson(np.exp(1 + np.sin(2 * x)))
    return TaskData.regression(x[:, None], y, rng.randint(0, 4, 240).tolist()).with_intercept()


def accuracy(method, train: TaskData, test: TaskData) -> float:
    """Return the share of rows whose class has the largest probability."""
    probs = method.fit(train).predictive(test.without_targets()).probs
    return float((probs.argmax(-1) == test.y)[test.mask].double().mean())


@pytest.mark.parametrize("event_dim", [1, 2])
def test_predictors_of_draws_are_products(event_dim):
    with isolated(0):
        x, phi = torch.randn(3, 5, 2), torch.randn(3, 5, 4)
        tail = (6,) if event_dim == 2 else ()
        w, u = torch.randn(7, 3, 1, *tail, 2), torch.randn(7, 1, 1, *tail, 4)
    found = linear_predictor(x, w, event_dim, more=[(phi, u)])
    for s in range(7):
        for t in range(3):
            each = x[t] @ w[s, t, 0].t() + phi[t] @ u[s, 0, 0].t()
            assert torch.allclose(found[s, t], each, atol=1e-5)
    alone = linear_predictor(x, w[0], event_dim, more=[(phi, u[0, 0, 0])])
    assert torch.allclose(alone, found[0], atol=1e-5)
    assert torch.allclose(predict_linearly(phi, u[0, 0, 0], event_dim), phi @ u[0, 0, 0].t())


@pytest.mark.parametrize("event_dim", [1, 2])
def test_coefficients_in_common_keep_the_dimensions_of_their_draws(event_dim):
    with isolated(0):
        tail = (6,) if event_dim == 2 else ()
        phi, u = torch.randn(3, 5, 4), torch.randn(7, 2, 1, 1, *tail, 4)
    found = predict_linearly(phi, u, event_dim)
    assert found.shape == (7, 2, 3, 5, *tail)
    for place in ((0, 0), (6, 1)):
        product = phi @ u[place].reshape(-1, 4).mT
        assert torch.allclose(found[place].reshape(3, 5, -1), product, atol=1e-5)


def test_a_challenger_that_all_rows_are_too_many_for_is_left_out(monkeypatch):
    data = rings(each=400)
    quick = replace(LINEAR, fitting={**LINEAR.fitting, "num_steps": 5})
    monkeypatch.setattr(challengers, "MOST_ROWS", 600)
    monkeypatch.setitem(limits.LIMITS, "NUMBERS", (COPIES * 1_200 * 33, "numbers"))
    fitted = Stack({"mixed-model": quick}, 2, challengers={"smooth": COMMON}).fit(data)
    assert [*fitted.members] == ["mixed-model"]


def test_principal_features_have_the_same_kernel_and_uncorrelated_coefficients():
    with isolated(0):
        x, at = torch.randn(40, 3, dtype=F64), torch.randn(8, 3, dtype=F64)
    plain = KernelFeatures(at, torch.zeros(3, dtype=F64))
    principal = PrincipalFeatures(at, torch.zeros(3, dtype=F64), x, 2.0)
    found = principal(x)
    assert torch.allclose(found @ found.mT, 4 * plain(x) @ plain(x).mT)
    moments = found.mT @ found
    assert (moments - moments.diagonal().diag()).abs().max() < 1e-8 * moments.max()


def test_the_loss_at_fixed_points_is_that_by_quadrature():
    data = rings(num_tasks=3, each=8)
    preset = Preset(shared=(), smooth="common", num_landmarks=6, num_points=64)
    model, guide = preset.initial_programs(data)
    term, linear = guide.program.state, guide.program.program
    with isolated(0), torch.no_grad():
        for loc, raw in (
            (term.loc, term.raw_spread),
            (linear.locs["w"], linear.raw_scales["w"]),
        ):
            loc.copy_(torch.randn(loc.shape))
            raw.copy_((0.5 + torch.rand(raw.shape)).log())
        linear.raw_common_scales["w"].zero_()
        term.raw_scale.fill_(0.3)
        loss = MeanFieldELBO(num_points=64).loss(model, guide, data)
        prior = model.program.program.prior().base_dist.scale
        w, s = linear.locs["w"].squeeze(1), linear.raw_scales["w"].exp().squeeze(1)
        u, r, c = term.loc, term.raw_spread.exp(), term.raw_scale.exp()
        phi = term.features(data.x)
    # the difference of two logits is normal; Gauss and Hermite's rule is exact to rounding
    mean, var = data.x @ w.mT + phi @ u.mT, data.x**2 @ (s**2).mT + phi**2 @ (r**2).mT
    sign = torch.tensor([-1.0, 1.0])[data.y]
    mean, std = sign * (mean[..., 1] - mean[..., 0]), var.sum(-1).sqrt()
    nodes, weights = (torch.tensor(v) for v in np.polynomial.hermite_e.hermegauss(40))
    logit = mean[..., None] + std[..., None] * nodes
    expected = (torch.nn.functional.logsigmoid(logit) @ weights / math.sqrt(2 * math.pi)).sum()

    def kl(loc, scale, prior):
        ratio = (scale / prior) ** 2
        return 0.5 * ((loc / prior) ** 2 + ratio - 1 - ratio.log()).sum()

    exact = float(-expected + kl(w, s, prior) + kl(u, r, c))
    # points of two logits with a column each; were those of terms the same, they would cancel
    assert loss == pytest.approx(exact, rel=0.02)


def test_curves_are_found_that_lines_cannot_follow():
    train, test = rings(0), rings(1)
    assert accuracy(LINEAR, train, test) < 0.7
    assert accuracy(COMMON, train, test) > 0.85
    assert accuracy(OWN, train, test) > 0.8


def test_tasks_have_functions_of_their_own():
    train, test = rings(0, each=60, opposite=True), rings(1, opposite=True)
    assert accuracy(COMMON, train, test) < 0.7
    assert accuracy(OWN, train, test) > 0.8


def test_counts_have_a_smooth_log_rate():
    data = counts()
    method = presets("counts")["gaussian-process"].few_features
    wave = method.fit(data).predictive(data).mean
    x = data.x[..., 0]
    assert ((wave.log() - 1 - (2 * x).sin())[data.mask].abs() < 0.5).double().mean() > 0.95
    many = replace(presets("counts")["gaussian-process"].many_features, num_landmarks=10)
    few_steps = replace(many, fitting={"num_steps": 20})
    assert few_steps.fit(data).predictive(data).mean[data.mask].isfinite().all()


@pytest.mark.parametrize("method", [COMMON, replace(OWN, fitting={"num_steps": 30})])
def test_folds_at_once_are_those_one_by_one(method):
    method = replace(method, num_landmarks=15)
    parts = [rings(seed) for seed in (0, 1)]
    both = method.fit_each(parts, seed=0)
    for part, together in zip(parts, both, strict=True):
        alone = method.fit(part, seed=0)
        probs, other = (f.predictive(part, num_samples=50).probs for f in (alone, together))
        assert (probs - other).abs().mean() < 0.02  # L-BFGS diverges


def test_folds_have_the_features_of_the_fit_that_they_start_at():
    whole = COMMON.fit(rings(0))
    features = whole.guide.program.state.features
    for fold in COMMON.fit_each([rings(1), rings(2)], start=whole.member):
        found = fold.guide.program.state.features
        assert all(map(torch.equal, found.state_dict().values(), features.state_dict().values()))


@pytest.mark.parametrize("method", [COMMON, OWN])
def test_a_new_task_is_learned_and_others_stay(method):
    whole = rings(num_tasks=7, each=60)
    task = whole.mask.nonzero()[:, 0]
    X, y = whole.x[whole.mask][:, :2], whole.y[whole.mask].bool().tolist()
    some = (task < 6).tolist()
    old = [i for i, known in enumerate(some) if known]
    new = [i for i, known in enumerate(some) if not known]
    data = TaskData.classification(X[old], [y[i] for i in old], task[old].tolist())
    data = data.with_intercept()
    rows = TaskData.classification(X[new], [y[i] for i in new], ["new"] * 60, classes=data.classes)
    fitted = method.fit(data)
    grown = add_task(fitted, rows.with_intercept())
    before, after = fitted.predictive(data).probs, grown.predictive(whole).probs
    assert torch.allclose(after[:6], before, atol=0.1)  # other draws
    right = after[6].argmax(-1) == whole.y[6]
    assert right.double().mean() > 0.8
    unseen = fitted.new_task_predictive(replace(rows.with_intercept(), y=None)).probs
    assert (unseen[0].argmax(-1) == whole.y[6]).double().mean() > 0.75


def test_settings_are_checked():
    with pytest.raises(LimitError, match="150 features, expected at most 101"):
        OWN.fit(TaskData.classification(np.eye(150), [0, 1] * 75, [0, 1] * 75))
    with pytest.raises(ValueError, match="smooth is 'rough'"):
        replace(OWN, smooth="rough")
    with pytest.raises(ValueError, match="num_landmarks 0, expected"):
        replace(OWN, num_landmarks=0)
    with pytest.raises(ValueError, match="smooth is 'own', expected None"):
        replace(OWN, latent_size=3)


def test_a_trial_takes_few_landmarks_and_evaluations():
    trial = COMMON.for_trial()
    assert (trial.num_landmarks, trial.fitting["num_steps"]) == (15, 75)
    assert LINEAR.for_trial() is LINEAR


def test_rows_have_the_features_of_linear_predictors():
    data = TaskData.classification([[0.0], [1.0], [2.0]], [0, 1, 1], ["a", "a", "b"])
    model, _ = replace(OWN, num_landmarks=2).initial_programs(data)
    x = expand_rows(model, data.x)
    assert x.shape == (2, 2, 3) and (x[data.mask][:, 1:] != 0).any()
    assert torch.equal(x[..., :1], data.x) and torch.equal(expand_rows(Linear(1, 1), x), x)


def test_rows_in_float64_are_fitted():
    data = rings(each=10)
    data = replace(data, x=data.x.double())
    torch.set_default_dtype(F64)
    try:
        for method in (COMMON, OWN):
            short = replace(method, num_landmarks=5, fitting={**method.fitting, "num_steps": 10})
            probs = short.fit(data).predictive(data).probs
            assert probs.dtype == F64 and probs.isfinite().all()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("method", [COMMON, OWN])
def test_draws_of_predictions_have_no_copies_of_the_features(method):
    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.untyped_storage().nbytes() > 8 * out.numel():
                return out  # a view of something that is expanded
            if isinstance(out, torch.Tensor):
                self.numbers = max(self.numbers, out.untyped_storage().nbytes() // 4)
            return out

    data = rings(each=200)
    short = replace(method, fitting={**method.fitting, "num_steps": 10})
    fitted = short.fit(data)
    with Largest() as largest:
        fitted.draws(data, num_samples=20)
    assert largest.numbers <= 2 * 20 * 6 * 200 * 2  # logits, in float64; features would be 30 times


@pytest.mark.slow
def test_a_stack_has_the_challenger_only_where_it_improves():
    rng = np.random.RandomState(0)
    X, tasks = rng.randn(300, 2), rng.randint(0, 5, 300).tolist()
    y = (rng.rand(300) < 1 / (1 + np.exp(-2 * X[:, 0]))).tolist()
    lines = TaskData.classification(X, y, tasks).with_intercept()
    for data, curved in ((rings(), True), (lines, False)):
        stack = Stack({"mixed-model": LINEAR}, challengers={"gaussian-process": COMMON})
        assert ("gaussian-process" in stack.fit(data).members) == curved


@pytest.mark.slow
@pytest.mark.parametrize("each", [6, 40])  # many features for so few rows, and few
def test_an_estimator_is_saved_with_it_and_predicts_the_same(tmp_path, each):
    data = rings(each=each)
    X, y = data.x[data.mask][:, :2].numpy(), data.y[data.mask].tolist()
    tasks = data.mask.nonzero()[:, 0].tolist()
    fitted = VMTLClassifier(method="gaussian-process").fit(X, y, tasks)
    fitted.save(tmp_path / "fit")
    again = VMTLClassifier.load(tmp_path / "fit")
    assert np.allclose(again.predict_proba(X, tasks), fitted.predict_proba(X, tasks), atol=1e-5)
