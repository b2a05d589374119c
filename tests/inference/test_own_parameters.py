"""Programs own their parameters: nothing that ran before, or between, changes their numbers."""

import os
import random
import subprocess
import sys
from functools import cache
from pathlib import Path

import own_programs
import pyro
import pytest
import torch
from own_programs import KINDS, STEPS, Course, bare, line, made, rows
from pyro.infer.autoguide import AutoNormal

from pyro_vmtl import (
    Programs,
    as_module,
    fit,
    load_program,
    predict_moments,
    relatedness,
    save_program,
    share,
    temper,
)
from pyro_vmtl.analysis import from_pyro_svi
from pyro_vmtl.methods.saving import from_state, to_state

SCRIPT = Path(own_programs.__file__)


@pytest.fixture(scope="module")
def in_own_process(tmp_path_factory):
    """Return the folder of a fit in a process of its own."""

    @cache
    def run(kind, seed):
        folder = tmp_path_factory.mktemp(f"{kind}-{seed}-")
        command = [sys.executable, str(SCRIPT), kind, str(seed), str(folder)]
        subprocess.run(command, check=True, cwd=Path.cwd(), env=environment())
        return folder

    return run


def environment():
    return {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_interleaved_fits_are_those_of_separate_processes(in_own_process):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for seed in range(20):
        chance = random.Random(seed)
        kinds = [chance.choice(list(KINDS)) for _ in range(2)]
        courses = [Course(kind, each) for each, kind in enumerate(kinds)]
        turns = [0] * len(STEPS) + [1] * len(STEPS)
        chance.shuffle(turns)
        steps = [iter(STEPS), iter(STEPS)]
        for turn in turns:
            courses[turn].do(next(steps[turn]))
        for course in courses:
            expected = torch.load(in_own_process(course.kind, course.seed) / "predicted.pt")
            assert torch.equal(torch.stack(course.predicted), expected), (seed, kinds, turns)
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_process_without_rows_predicts_the_same(in_own_process, kind):
    folder = in_own_process(kind, 0)
    command = [sys.executable, str(SCRIPT), "load", "0", str(folder)]
    subprocess.run(command, check=True, cwd=Path.cwd(), env=environment())
    loaded = torch.load(folder / "loaded.pt")
    assert torch.equal(loaded, torch.load(folder / "saved.pt"))


@pytest.mark.parametrize("kind", KINDS)
def test_two_guides_that_ran_before_share_nothing(kind):
    """What Pyro's store gave to both is copied by `share`."""
    courses = [Course(kind, seed) for seed in range(2)]
    for step in ("make", "call", "share", "fit"):
        for course in courses:
            course.do(step)
    parameters = [dict(guide.named_parameters()) for _, guide in (c.pair for c in courses)]
    assert parameters[0].keys() == parameters[1].keys() and len(parameters[0]) >= 2
    for name, parameter in parameters[0].items():
        assert parameter is not parameters[1][name]
        assert not torch.equal(parameter, parameters[1][name])


def test_guides_of_different_shapes_run_one_after_the_other():
    """The entry of the first is gone from Pyro's store when the second is made."""
    guide = AutoNormal(line)
    guide(rows(0))
    shared = share(line, guide, sites=["w"])
    pyro.get_param_store().clear()
    assert fit(*shared, rows(0), num_steps=2).history.loss.shape == (2,)
    guide = AutoNormal(line)
    guide(rows(0))
    fit(line_pair := as_module(line), guide, rows(0), num_steps=2)
    assert not any("AutoNormal" in name for name in pyro.get_param_store())
    assert predict_moments(line_pair, guide, rows(0))[0].shape == (3, 4)


def test_a_loaded_state_is_that_of_one_guide_only():
    pairs = []
    for seed in range(2):
        guide = AutoNormal(line)
        guide(rows(seed))
        pairs.append((share(line, guide, sites=["w"]), guide))
    fit(*pairs[0][0], rows(0), num_steps=10)
    before = predict_moments(*pairs[0][0], rows(0))[0]
    state = {name: value + 1 for name, value in pairs[0][1].state_dict().items()}
    pairs[1][1].load_state_dict(state)
    assert torch.equal(predict_moments(*pairs[0][0], rows(0))[0], before)
    pairs[1][1](rows(1))
    fit(*pairs[1][0], rows(1), num_steps=10)
    assert torch.equal(predict_moments(*pairs[0][0], rows(0))[0], before)


def test_bare_parameters_are_fitted_predicted_exported_and_saved(tmp_path):
    data = rows(0)
    model, guide = as_module(line), as_module(bare)
    fit(model, guide, data, num_steps=400)
    assert len(pyro.get_param_store()) == 0
    assert [name for name, _ in guide.named_parameters()] == ["own.loc", "own.scale"]
    # conjugate given the noise: the posterior of a line's two coefficients
    noise = model.own.noise.exp().item()
    x = torch.stack([torch.ones(4), data.x[1, :, 0]], dim=1) * data.mask[1][:, None]
    mean = torch.linalg.solve(x.T @ x + noise**2 * torch.eye(2), x.T @ data.y[1])
    torch.testing.assert_close(guide.own.loc[1, 0].detach(), mean, atol=0.15, rtol=0.1)
    tree = from_pyro_svi(model, guide, data, num_samples=200)
    found = torch.as_tensor(tree["posterior"]["w"].mean(("chain", "draw")).values)[1].flatten()
    # standard errors of 200 draws
    assert ((found - guide.own.loc[1, 0].detach()).abs() < 4 * noise / 200**0.5).all()
    save_program(tmp_path / "fit.safetensors", model, guide, data)
    again = as_module(line), as_module(bare)
    like = load_program(tmp_path / "fit.safetensors", *again)
    assert like.num_rows == 0 and like.task_labels == ("a", "b", "c")
    assert torch.equal(predict_moments(*again, data)[0], predict_moments(model, guide, data)[0])


def test_each_sharing_of_a_function_learns_its_own_numbers():
    pairs = [temper(*share(line, bare, sites=["w"]), kl_weights={"w": 0.5}) for _ in range(2)]
    fit(*pairs[0], rows(0), num_steps=20)
    before = predict_moments(*pairs[0], rows(0))[0]
    fit(*pairs[1], rows(1), num_steps=20)
    assert torch.equal(predict_moments(*pairs[0], rows(0))[0], before)
    assert relatedness(pairs[0][1], "w", num_samples=2).shape == (2, 3, 4)


@pytest.mark.parametrize("kind", ["bare", "module", "alone"])
def test_methods_of_such_programs_are_saved(kind):
    method = Programs(lambda data: made(kind, KINDS[kind]()), {"num_steps": 20})
    fitted = method.fit(rows(0))
    again = from_state(*to_state(fitted), rows(0), method)
    assert torch.equal(again.predictive(rows(0)).mean, fitted.predictive(rows(0)).mean)


def test_files_of_other_programs_are_refused(tmp_path):
    file = tmp_path / "fit.safetensors"
    model, guide = share(line, bare, sites=["w"])
    fit(model, guide, rows(0), num_steps=1)
    save_program(file, model, guide, rows(0))
    with pytest.raises(ValueError, match=r"parameters of other programs.*own\.loc"):
        load_program(file, *share(line, AutoNormal(line), sites=["w"]))
    with pytest.raises(ValueError, match="expected TaskData, tensors"):
        save_program(file, model, guide, object())
    (tmp_path / "broken").write_bytes(b"no")
    with pytest.raises(ValueError, match="was not written by `save_program`"):
        load_program(tmp_path / "broken", model, guide)
