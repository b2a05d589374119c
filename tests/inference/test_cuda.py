"""On a GPU, where there is one: everything stays there, and gives what the CPU gives."""

from dataclasses import replace

import pytest
import torch
from problems import classifier, many_draws, randomize_sources
from pyro.infer.autoguide import AutoNormal
from single_presets import single_presets

from pyro_vmtl import (
    GaussianSumPool,
    LinearPool,
    LogarithmicPool,
    MeanFieldELBO,
    RandomTasks,
    TaskBlocks,
    attend,
    fit,
    log_predictive_density,
    predict_proba,
    relatedness,
    share,
    temper,
)
from pyro_vmtl.handlers.isolation import validation
from pyro_vmtl.inference.step import Step
from pyro_vmtl.methods.presets import presets

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("pool", [LinearPool, LogarithmicPool, GaussianSumPool])
@pytest.mark.parametrize("transfer", [None, "source", "dimension"])
@pytest.mark.parametrize("auto", [False, True])
def test_fit_and_predict_on_a_gpu(ragged, pool, transfer, auto):
    data = ragged.to("cuda")
    model, guide = classifier(ragged)
    model.cuda()
    guide = AutoNormal(model) if auto else guide.cuda()
    pair = temper(
        *share(model, guide, sites=["w"], pool=pool, transfer=transfer), kl_weights={"w": 0.5}
    )
    before = torch.cuda.get_rng_state()
    result = fit(*pair, data, num_steps=30)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert torch.isfinite(result.history.loss).all()
    assert {p.device.type for p in pair[1].parameters()} == {"cuda"}
    proba = predict_proba(*pair, data)
    assert proba.device.type == "cuda"
    torch.testing.assert_close(proba.sum(-1), torch.ones_like(proba[..., 0]))
    assert log_predictive_density(*pair, data).device.type == "cuda"
    assert relatedness(pair[1], "w", num_samples=5).shape == (5, 3, 4)


def test_the_loss_is_that_of_the_cpu(ragged):
    losses = []
    for device in ("cpu", "cuda"):
        model, guide = share(*(p.to(device) for p in classifier(ragged)), sites=["w"])
        data = ragged.to(device)
        guide(data)
        randomize_sources(guide.cpu())
        guide.to(device)
        elbo = many_draws(20_000)
        torch.manual_seed(0)
        losses.append(elbo.loss(model, guide, data))
    # two Monte Carlo means with different random numbers; one draw varies by about 3 %
    assert losses[0] == pytest.approx(losses[1], rel=0.005)


@pytest.mark.parametrize("name", single_presets("classification"))
def test_presets_fit_and_predict_on_a_gpu(ragged, name):
    preset = single_presets("classification")[name]
    preset = replace(preset, fitting={**preset.fitting, "num_steps": 10})
    data = replace(ragged, x=ragged.x.float()).to("cuda")
    fitted = preset.fit(data)
    assert torch.isfinite(fitted.result.history.loss).all()
    assert {p.device.type for p in fitted.guide.parameters()} == {"cuda"}
    new = data.new_rows(torch.zeros(2, 3), ["a", "c"])
    assert predict_proba(fitted.model, fitted.guide, new, num_samples=5).device.type == "cuda"


@pytest.mark.parametrize("name", ["shared", "vmtl", "official"])
def test_a_replayed_step_is_that_of_the_programs_and_does_not_wait(ragged, name):
    preset = replace(
        single_presets("classification")[name], latent_size=None if name == "shared" else 3
    )
    data = replace(ragged, x=ragged.x.float()).to("cuda")
    data = attend(data) if "z" in preset.shared else data
    model, guide = (program.cuda() for program in preset.programs(data))
    loss_of = MeanFieldELBO(preset.num_particles, num_draws=preset.num_draws)(model, guide)
    loss_of.train()
    loss_of(data)
    step = Step(loss_of, (data,), preset.fitting.get("batches"), preset.fitting.get("tasks"))
    optimizer = torch.optim.Adam(step.parameters, fused=True)
    with validation(False):
        losses = []
        for step.recording in (False, True):
            torch.manual_seed(0)
            losses.append(step()[0])
        torch.testing.assert_close(*losses)
        optimizer.step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for at in range(3):
                step.at_step(at)
                step()
                optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("tasks", [RandomTasks(2), TaskBlocks(2)])
def test_some_tasks_on_a_gpu(ragged, tasks):
    preset = presets("classification")["shared"].many_features
    fitting = {**preset.fitting, "tasks": tasks, "num_steps": 60}
    preset = replace(preset, fitting=fitting)
    fitted = preset.fit(replace(ragged, x=ragged.x.float()).to("cuda"))
    assert torch.isfinite(fitted.result.history.loss).all()
    assert len(fitted.result.history.loss) == 60


def test_a_loss_that_is_not_finite_is_found_on_a_gpu(ragged):
    model, guide = (program.cuda() for program in classifier(ragged))
    weights = {"w": lambda step: float("inf") if step == 13 else 1.0}
    pair = temper(*share(model, guide, sites=["w"]), kl_weights=weights)
    with pytest.raises(FloatingPointError, match="step 13: KL of site 'w'"):
        fit(*pair, ragged.to("cuda"), num_steps=30)
