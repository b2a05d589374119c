"""A replayed step is the traced one, and a fit chooses rightly when to replay."""

import shutil
from dataclasses import replace
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from problems import F64, classifier, random_normal, random_weights
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from single_presets import single_presets
from torch import nn

from pyro_vmtl import (
    LogarithmicPool,
    MeanFieldELBO,
    RandomRows,
    TaskBlocks,
    attend,
    fit,
    share,
    temper,
)
from pyro_vmtl.handlers.isolation import isolated, validation
from pyro_vmtl.handlers.tracing import trace_guide_and_model
from pyro_vmtl.inference import course, recorder
from pyro_vmtl.inference.lbfgs import NotFactorizedError
from pyro_vmtl.inference.step import Step, can_be_recorded
from pyro_vmtl.methods.presets import presets
from pyro_vmtl.models import LinearClassifier
from pyro_vmtl.sharing.sources import MAX_ROUNDING

CLASSES, REAL = (single_presets(kind) for kind in ("classification", "regression"))


def make_step(preset, data, **settings):
    """A step of a preset, small and after its first run."""
    size = None if preset.latent_size is None else 3
    preset = replace(preset, latent_size=size, hidden=tuple(4 for _ in preset.hidden))
    data = attend(data) if "z" in preset.shared else data
    with isolated(0):
        model, guide = preset.programs(data)
        loss_of = MeanFieldELBO(preset.num_particles, num_draws=preset.num_draws)(model, guide)
        loss_of.train()
        loss_of(data)
    return Step(loss_of, (data,), preset.fitting.get("batches"), **settings)


def outcome(step, *, recording):
    step.recording = recording
    with isolated(3), validation(False):
        loss, terms = step()
    return loss, terms, [p.grad for p in step.parameters]


@pytest.fixture(params=["python", "torchscript"], autouse=True)
def interpreted(request, monkeypatch):
    """Run recordings by Python, or by TorchScript from the first run on, where one cannot do it."""
    chosen = 1 if request.param == "torchscript" else 10**9
    monkeypatch.setattr(recorder, "INTERPRETED_FROM", chosen)
    monkeypatch.setattr(recorder, "CANNOT_INTERPRET", ())


def assert_replays(step):
    """Traced and replayed: the same loss, terms and gradients, to the last bit."""
    traced, replayed = (outcome(step, recording=recording) for recording in (False, True))
    assert torch.equal(traced[0], replayed[0])
    for kind in ("log_likelihood", "kl"):
        terms = [getattr(terms, kind) for _, terms, _ in (traced, replayed)]
        assert terms[0].keys() == terms[1].keys()
        assert all(torch.equal(terms[0][site], terms[1][site]) for site in terms[0])
    for one, other, parameter in zip(traced[2], replayed[2], step.parameters, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert torch.equal(one, other)
            assert one.stride() == parameter.stride()  # fused optimisers read memory in order


@pytest.mark.parametrize(
    ("name", "real", "tasks"),
    [
        *((name, False, None) for name in CLASSES),
        *((name, True, None) for name in ("shared", "vmtl", "hierarchical")),
        *((name, False, TaskBlocks(2)) for name in ("shared", "vmtl-ac", "hierarchical")),
        ("vmtl", True, TaskBlocks(2)),
    ],
)
def test_presets_are_replayed_exactly(ragged, name, real, tasks):
    data = replace(ragged, x=ragged.x.float())
    if real:
        data = replace(data, y=data.x.sum(-1), classes=None)
    step = make_step((REAL if real else CLASSES)[name], data, tasks=tasks)
    assert can_be_recorded(step.loss_of)
    step.at_step(0)
    assert_replays(step)
    # other values of parameters and schedules; at step 0 some KL weights are 0 and left out
    with torch.no_grad():
        for parameter in step.parameters:
            parameter.add_(0.1 * torch.randn_like(parameter))
    step.at_step(700)
    assert_replays(step)


@pytest.mark.parametrize("tasks", [None, TaskBlocks(2)])
def test_counts_are_replayed_exactly(ragged, tasks):
    data = replace(ragged, x=ragged.x.float(), y=ragged.y.float(), classes=None)
    step = make_step(presets("counts")["shared"].many_features, data, tasks=tasks)
    assert can_be_recorded(step.loss_of)
    step.at_step(0)
    assert_replays(step)


def test_a_fit_is_the_same_with_and_without_replay(ragged, monkeypatch):
    def history():
        model, guide = classifier(ragged)
        pair = temper(*share(model, guide, sites=["w"]), kl_weights={"w": lambda step: step / 200})
        return fit(*pair, ragged, num_steps=200).history  # of which tasks are alone in 40

    replayed = history()
    monkeypatch.setattr("pyro_vmtl.inference.course.RECORD_AFTER", 1000)
    traced = history()
    assert torch.equal(replayed.loss, traced.loss)
    assert torch.equal(replayed.kl["w"], traced.kl["w"])


def test_only_programs_that_declare_a_fixed_graph_are_replayed(ragged):
    def loss_of(model, guide, elbo=MeanFieldELBO):
        return elbo()(*share(model, guide, sites=["w"]))

    model, guide = classifier(ragged)
    assert can_be_recorded(loss_of(model, guide))
    assert not can_be_recorded(loss_of(lambda data: model(data), guide))
    assert not can_be_recorded(loss_of(model, AutoNormal(model)))
    assert not can_be_recorded(loss_of(model, guide, Trace_ELBO))

    class Own(LinearClassifier):
        pass

    assert not can_be_recorded(loss_of(Own(model.prior), guide))
    Own.fixed_graph = True
    assert can_be_recorded(loss_of(Own(model.prior), guide))
    normal = dist.Normal(torch.zeros(3, 3, dtype=F64), 1.0).to_event(2)

    def prior():
        return normal

    assert not can_be_recorded(loss_of(LinearClassifier(prior), guide))
    prior.fixed_graph = True
    assert can_be_recorded(loss_of(LinearClassifier(prior), guide))
    assert not can_be_recorded(loss_of(model, nn.Sequential(guide, nn.BatchNorm1d(2))))


class OwnPool(LogarithmicPool):
    pass


class OwnELBO(MeanFieldELBO):
    pass


def test_whatever_else_does_not_declare_it_is_not_replayed(ragged):
    model, guide = classifier(ragged)
    shared_pair = share(model, guide, sites=["w"])
    elbo = MeanFieldELBO()
    assert can_be_recorded(elbo(*shared_pair), RandomRows(2))
    assert not can_be_recorded(elbo(*shared_pair), lambda data: (data, None))
    assert not can_be_recorded(elbo(*share(model, guide, sites=["w"], pool=OwnPool)))
    assert not can_be_recorded(OwnELBO()(*shared_pair))
    prior = partial(lambda normal: normal, model.prior())
    assert not can_be_recorded(elbo(*share(LinearClassifier(prior), guide, sites=["w"])))
    handle = model.register_forward_pre_hook(lambda module, args: None)
    assert not can_be_recorded(elbo(*shared_pair))
    handle.remove()
    assert can_be_recorded(elbo(*shared_pair))


@pytest.mark.parametrize("name", ["shared", "vmtl"])
def test_a_fit_of_the_library_s_programs_is_replayed(ragged, name, monkeypatch):
    traced = []
    evaluate = Step.evaluate
    monkeypatch.setattr(Step, "evaluate", lambda *args: [traced.append(1), evaluate(*args)][1])
    fitting_of = {**CLASSES[name].fitting, "num_steps": course.RECORD_AFTER + 20}
    preset = replace(CLASSES[name], fitting=fitting_of)
    preset.fit(replace(ragged, x=ragged.x.float()))
    assert len(traced) == course.RECORD_AFTER + 1  # and the one that is recorded


def test_a_model_never_uses_an_older_run_of_its_guide(ragged):
    pair = share(*classifier(ragged), sites=["w"])
    fit(*pair, ragged, num_steps=course.RECORD_AFTER + 5)
    assert pair[1].state["w"].use_float64
    pair[1](ragged)
    with pytest.raises(RuntimeError, match="replayed on a trace of the guide"):
        pair[0](ragged)
    trace_guide_and_model(*pair, ragged)


def test_pyros_own_elbos_are_not_compiled(ragged):
    with pytest.raises(ValueError, match="compile is True with Trace_ELBO"):
        fit(*share(*classifier(ragged), sites=["w"]), ragged, elbo=Trace_ELBO(), compile=True)


def test_a_program_that_counts_its_steps_is_traced_at_every_step(ragged):
    steps = []
    model, guide = classifier(ragged)

    def counting(data):
        steps.append(len(steps))
        model(data)

    fit(*share(counting, guide, sites=["w"]), ragged, num_steps=course.RECORD_AFTER + 20)
    assert len(steps) == course.RECORD_AFTER + 20 + 2  # and two looks before the first


def make_pool(distance, *, use_float64, dtype=torch.float32):
    """Two groups of two tasks, whose means are a number of widths apart."""
    near = random_normal(4, 1, 200, event_dim=1, seed=0)
    group = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=F64)[:, None, None]
    loc, scale = near.mean + distance * group, near.stddev
    posterior = dist.Normal(loc.to(dtype), scale.to(dtype)).to_event(1)
    base = dist.Normal(torch.zeros(200, dtype=dtype), torch.ones((), dtype=dtype)).to_event(1)
    weights = random_weights(4).to(dtype)
    return LogarithmicPool(weights, posterior, base, 0.0, use_float64=use_float64), posterior


@pytest.mark.parametrize("distance", [0.0, 1.0, 10.0, 100.0, 1e3, 1e4])
def test_rounding_tells_what_float32_loses(distance):
    pool, posterior = make_pool(distance, use_float64=False)
    loc, var = (moment.transpose(0, 1) for moment in (posterior.mean, posterior.variance))
    rough = pool.components.log_probs(loc, var)[0].double()
    right, _ = make_pool(distance, use_float64=True)
    fine = right.components.log_probs(loc, var)[0].double()
    own = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]).bool()
    lost = (rough - fine)[own].abs().max().item()  # within a group; between, all is far anyway
    # Sums of 200 products are rounded some 200 times, mostly in different directions. Log densities
    # of about 100 nats are rounded on their own.
    assert lost <= 20 * pool.rounding.item() + 1e-4
    exact_distance = ((posterior.mean - posterior.mean.mean(0)) ** 2 / posterior.variance).sum(-1)
    assert pool.rounding.item() == pytest.approx(exact_distance.max().item() * 2**-23, rel=1e-3)


def test_a_fit_takes_float64_where_float32_would_lose_too_much(ragged):
    model, guide = classifier(ragged)
    shared = share(model.float(), guide.float(), sites=["w"])
    data = replace(ragged, x=ragged.x.float())
    shared[1](data)
    step = Step(MeanFieldELBO()(*shared), (data,))
    sources = step.sources["w"]
    assert sources.use_float64  # until it is known better
    with validation(False):
        step()
        step.choose_precision()
        assert not sources.use_float64
        step.recording = True
        with torch.no_grad():
            guide.locs["w"][0] += 1e4
        step()
        step.choose_precision()
        assert sources.use_float64
        step()
    assert len(step._recorded) == 2
    sources.choose_precision(0.9 * MAX_ROUNDING)
    assert sources.use_float64  # near the border it stays as it is
    sources.choose_precision(0.1 * MAX_ROUNDING)
    assert not sources.use_float64


@pytest.mark.parametrize("recording", [False, True])
@pytest.mark.parametrize("name", ["shared", "vmtl", "vmtl-ac"])
def test_only_products_are_rough_under_autocast(ragged, name, recording):
    data = replace(ragged, x=ragged.x.float())
    preset = replace(CLASSES[name], dropout=0.0, fitting={})
    fine = make_step(preset, data)
    with torch.no_grad():
        for parameter in fine.parameters:
            parameter.add_(0.3 * torch.randn_like(parameter))
    right, terms, _ = outcome(fine, recording=recording)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fine._recorded.clear()
        rough, rough_terms, gradients = outcome(fine, recording=recording)
    assert all(g is None or g.dtype == torch.float32 for g in gradients)
    # bfloat16 rounds by 2^-8, some hundred numbers in both directions
    torch.testing.assert_close(rough, right, rtol=0.02, atol=0)
    if name != "vmtl-ac":  # whose posteriors come out of products
        torch.testing.assert_close(rough_terms.kl["w"], terms.kl["w"])


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_rough_products_are_reckoned_with(precision):
    before = torch.get_float32_matmul_precision()
    pool, _ = make_pool(10.0, use_float64=False)
    fine = pool.rounding.item()
    try:
        torch.set_float32_matmul_precision(precision)
        assert pool.rounding.item() == fine * {"high": 2**13, "medium": 2**16}[precision]
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_step_is_the_traced_one(ragged):
    data = replace(ragged, x=ragged.x.float())
    traced, compiled = (make_step(CLASSES["shared"], data, compile=c) for c in (False, True))
    one, other = outcome(traced, recording=False), outcome(compiled, recording=True)
    torch.testing.assert_close(one[0], other[0])
    torch.testing.assert_close(one[2], other[2])


def test_a_replayed_loss_that_is_not_finite_stops_the_fit(ragged):
    model, guide = classifier(ragged)
    pair = temper(
        *share(model, guide, sites=["w"]),
        kl_weights={"w": lambda step: float("inf") if step == 70 else 1.0},
    )
    with pytest.raises(FloatingPointError, match=r"step 70: KL of site 'w' in task 'a'"):
        fit(*pair, ragged, num_steps=90)


def test_an_operation_that_fails_raises_its_own_error():
    """Such as that of a matrix which is not positive definite, by which L-BFGS knows too long a
    step."""
    matrix = torch.eye(2)
    with recorder.Recorder() as recording:
        lower = torch.linalg.cholesky(matrix)
    replay = recorder.Replay(recording.finish({"lower": lower, "size": 2}))
    assert replay()["size"] == 2
    matrix[1, 1] = 4.0
    assert torch.equal(replay()["lower"], torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    matrix[1, 1] = -1.0
    for _ in range(2):
        with pytest.raises(NotFactorizedError, match="positive-definite"):
            replay()


def test_a_factor_that_fails_is_told_whatever_would_be_drawn_next():
    torch.manual_seed(2)  # whose first draw is small enough to be recorded
    with recorder.Recorder() as recording:
        shift = torch.randn(()).square()
        outcome = torch.linalg.cholesky(torch.eye(2) - shift * torch.ones(2, 2)), shift
    replay, failed = recorder.Replay(recording.finish(outcome)), 0
    for _ in range(40):
        try:
            _, drawn = replay()
        except NotFactorizedError:
            failed += 1
        else:
            assert drawn < 0.5
    assert 10 < failed < 30  # half of all draws


def test_gradients_of_a_replay_are_plain_tensors(ragged):
    step = make_step(CLASSES["shared"], replace(ragged, x=ragged.x.float()))
    _, _, gradients = outcome(step, recording=True)
    assert not any(gradient.is_inference() for gradient in gradients if gradient is not None)


def test_what_cannot_be_interpreted_goes_on_in_python(monkeypatch):
    def refuse(*args, **settings):
        raise RuntimeError("no TorchScript here")

    monkeypatch.setattr(torch.jit, "trace", refuse)
    monkeypatch.setattr(recorder, "CANNOT_INTERPRET", (RuntimeError,))
    values = torch.arange(3.0)
    with recorder.Recorder() as recording:
        total = values.sum()
    replay = recorder.Replay(recording.finish(total))
    values.add_(1)
    assert replay().item() == replay().item() == 6
