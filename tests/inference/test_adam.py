"""Adam, against torch's own."""

import subprocess
import sys

import torch

from pyro_vmtl.inference.adam import Adam


def parameters():
    torch.manual_seed(0)
    shapes = (3, 4), (), (5,)
    kinds = torch.float32, torch.float64, torch.float32
    return [torch.randn(s, dtype=k).requires_grad_() for s, k in zip(shapes, kinds, strict=True)]


def set_gradients(of, step):
    for place, parameter in enumerate(of):
        # the last has no gradient at first, as source weights where tasks are alone
        absent = place == 2 and step < 3
        parameter.grad = None if absent else (parameter.detach() - place) * (step + 1)


def test_steps_are_those_of_torch():
    ours, theirs = parameters(), parameters()
    adam = Adam(ours, weight_decay=0.1)
    reference = torch.optim.Adam(theirs, weight_decay=0.1, fused=True)
    for step in range(6):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        reference.param_groups[0]["lr"] = 0.1 / (step + 1)
        adam.step(0.1 / (step + 1))
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_restored_moments_go_on_in_the_same_way():
    whole, halves = parameters(), parameters()
    adam, first = Adam(whole), Adam(halves)
    for step in range(4):
        set_gradients(whole, step)
        adam.step(0.1)
    for step in range(2):
        set_gradients(halves, step)
        first.step(0.1)
    second = Adam(halves)
    second.load_state_dict(first.state_dict())
    for step in (2, 3):
        set_gradients(halves, step)
        second.step(0.1)
    for one, other in zip(whole, halves, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_default_does_not_import_a_compiler():
    # two seconds of processor time, as much as a small fit
    code = """
import sys
from dataclasses import replace
from pyro_vmtl import TaskData
from pyro_vmtl.methods.presets import FEW_FEATURES, SHARED

data = TaskData.regression([[0.0], [1.0]] * 2, [1.0, 1.2, -0.9, -1.0], list("aabb"))
for preset in (SHARED, *FEW_FEATURES["regression"].values()):
    replace(preset, fitting={**preset.fitting, "num_steps": 30}).fit(data).predictive(data)
print(sorted({"torch._dynamo", "torch._inductor"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
