"""Presets: every one runs, on awkward data, with the gradient of its loss."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from problems import F64
from single_presets import single_presets

from pyro_vmtl import MeanFieldELBO, TaskData, attend, log_predictive_density, predict_proba
from pyro_vmtl.guides import LinearEncoder
from pyro_vmtl.handlers.program_handler import ProgramWithHandler
from pyro_vmtl.methods.gaussian_process import GaussianProcess
from pyro_vmtl.methods.preset import Preset
from pyro_vmtl.methods.presets import BASELINES, PAPER, SHARED, presets
from pyro_vmtl.models.task_noise import TaskNoise


@pytest.fixture
def awkward():
    """Two tasks of 5 and 2 rows; one lacks a class, and a class has one row."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(7, 3, generator=generator, dtype=F64)
    return TaskData.classification(X, [0, 0, 1, 2, 2, 0, 1], ["a"] * 5 + ["b"] * 2)


def small(preset, **fitting):
    """The preset with few numbers and few steps."""
    if isinstance(preset, GaussianProcess):
        return replace(preset, num_steps=5)
    hidden = tuple(min(width, 4) for width in preset.hidden)
    size = None if preset.latent_size is None else 3
    fitting = {**preset.fitting, "num_steps": 8, **fitting}
    return replace(preset, latent_size=size, hidden=hidden, fitting=fitting)


def real(data):
    return replace(data, y=data.x.sum(-1), classes=None)


CLASSES = single_presets("classification")
REAL = single_presets("regression")


@pytest.mark.parametrize("name", CLASSES)
def test_every_preset_fits_and_predicts_classes(awkward, name):
    data = replace(awkward, x=awkward.x.float())
    fitted = small(CLASSES[name]).fit(data, seed=0)
    assert torch.isfinite(fitted.result.history.loss).all()
    proba = predict_proba(fitted.model, fitted.guide, data, num_samples=5)
    assert proba.shape == (2, 5, 3)
    torch.testing.assert_close(proba.sum(-1), torch.ones(2, 5))
    # without the counterparts and labels of training rows, as for rows to predict
    new = data.new_rows(torch.randn(4, 3), ["b", "a", "b", "b"])
    assert torch.isfinite(predict_proba(fitted.model, fitted.guide, new, num_samples=5)).all()


@pytest.mark.parametrize("name", REAL)
def test_every_preset_fits_and_predicts_real_targets(awkward, name):
    data = real(replace(awkward, x=awkward.x.float()))
    fitted = small(REAL[name]).fit(data, seed=0)
    density = log_predictive_density(fitted.model, fitted.guide, data, num_samples=5)
    assert torch.isfinite(density).all() and (density[~data.mask] == 0).all()


@pytest.mark.parametrize("name", [n for n in CLASSES if not CLASSES[n].sharing.get("weights")])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_the_gradient_of_the_loss_is_right(awkward, name, kind):
    data = awkward if kind == "classification" else real(awkward)
    table = CLASSES if kind == "classification" else REAL
    if name not in table:
        pytest.skip("for classes only")
    preset = small(table[name])
    # sources that are cut off are not moved with the parameters; test the same sum attached
    preset = replace(preset, sharing={**preset.sharing, "detach_sources": False})
    torch.manual_seed(0)
    model, guide = (p.double() for p in preset.programs(data))
    for module in model.modules():
        if isinstance(module, TaskNoise):
            module.few_rows = None  # the lower bound of small tasks is cut off, too
    data = attend(data)
    elbo = MeanFieldELBO(preset.num_particles, num_draws=preset.num_draws)
    loss_of = elbo(model, guide)
    loss_of(data)
    loss_of.double()
    parameters = [p for p in loss_of.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1 * torch.randn_like(parameter))

    def loss():
        torch.manual_seed(3)
        return loss_of(data)

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    directions = [torch.randn_like(p) for p in parameters]
    for parameter, gradient, direction in zip(parameters, gradients, directions, strict=True):
        step = 1e-6
        with torch.no_grad():
            parameter.add_(direction, alpha=step)
            above = loss()
            parameter.sub_(direction, alpha=2 * step)
            below = loss()
            parameter.add_(direction, alpha=step)
        numeric = ((above - below) / (2 * step)).item()
        exact = 0.0 if gradient is None else (gradient * direction).sum().item()
        # central differences: error of order step^2, and rounding of 1e-16 * loss / step
        assert exact == pytest.approx(numeric, rel=1e-4, abs=1e-5)


def test_a_preset_can_be_printed_copied_and_changed():
    other = replace(SHARED, kl_weights=0.5)
    assert other != SHARED and replace(other, kl_weights=0.2) == SHARED
    assert copy.deepcopy(PAPER) == PAPER and pickle.loads(pickle.dumps(PAPER)) == PAPER
    for part in (
        "latent_size=32",
        "LinearPool",
        "'detach_sources': True",
        "RandomRows(num_rows=32",
    ):
        assert part in repr(PAPER)


def test_changing_a_copy_leaves_the_presets_alone():
    copied = replace(presets("classification")["vmtl"], latent_size=8)
    copied.fitting["num_steps"] = 3
    presets("classification")["stl"].kl_weights["w"] = 99.0
    assert presets("classification")["vmtl"].fitting["num_steps"] == 600
    assert presets("classification")["stl"].kl_weights["w"] == 1.0
    with pytest.raises(ValueError, match="kind is 'clasification'"):
        presets("clasification")


def test_the_paper_s_methods_differ_as_it_says(awkward):
    def parts(name):
        model, guide = BASELINES[name].programs(awkward)
        shared = [m for m in guide.modules() if isinstance(m, ProgramWithHandler)]
        encoders = [m for m in guide.modules() if isinstance(m, LinearEncoder)]
        return model, guide, shared, encoders

    assert parts("stl")[3][0].loc.shape == parts("vstl")[3][0].loc.shape == (2, 3, 32)
    for name in ("bmtl", "vbmtl", "vmtl"):
        assert parts(name)[3][0].loc.shape == (3, 32)
    for name, sites in {"stl": (), "vstl": (), "bmtl": (), "vbmtl": (), "vmtl": ("w", "z")}.items():
        assert BASELINES[name].shared == sites
    for name in ("stl", "bmtl"):
        data = attend(awkward)
        _, guide, _, _ = parts(name)
        guide = guide.float()
        data = replace(data, x=data.x.float())
        first, second = ([v.clone() for v in draw(guide, data)] for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def draw(guide, data):
    import pyro

    guide.eval()
    nodes = pyro.poutine.trace(guide).get_trace(data).nodes
    return [nodes["w"]["value"], nodes["z"]["value"]]


def test_the_same_seed_gives_the_same_fit(awkward):
    data = replace(awkward, x=awkward.x.float())
    preset = small(BASELINES["vmtl"])
    one, two, other = (preset.fit(data, seed=s).result.history.loss for s in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_settings_that_contradict_are_refused(awkward):
    with pytest.raises(ValueError, match="Set hidden"):
        Preset(latent_size=2, hidden=(3,), encoder_per_task=True).programs(awkward)
