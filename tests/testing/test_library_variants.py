"""All models and guides of the library pass the checks that they are asked to pass."""

import pytest
import torch
from single_presets import single_presets

from pyro_vmtl import TaskData
from pyro_vmtl.methods.presets import presets
from pyro_vmtl.testing import CHECKS, NotApplicable, Variant

TASKS = ["a"] * 12 + ["b"] * 15 + ["c"] * 13 + ["d"] * 19


def rows(kind):
    """A small problem of each kind, whose tasks have different numbers of rows."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(len(TASKS), 3, generator=generator)
    total = X.sum(1)
    if kind == "classification":
        data = TaskData.classification(X, ["xyz"[i % 3] for i in range(len(TASKS))], TASKS)
    elif kind == "regression":
        noise = 0.3 * torch.randn(len(TASKS), generator=generator)
        data = TaskData.regression(X, total + noise, TASKS)
    else:
        counts = torch.poisson((0.5 * total).exp(), generator=generator)
        data = TaskData.regression(X, counts, TASKS)
    return data.with_intercept()


def library():
    """Every preset and what replaces it where there are few features, one after the other."""
    for kind in ("classification", "regression", "counts"):
        for name, preset in single_presets(kind, few=True).items():
            yield pytest.param(preset, kind, id=f"{kind}-{name}")


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "kind"), library())
def test_presets_pass(preset, kind):
    data = preset.prepare(rows(kind))
    variant = Variant(preset.programs, data)
    refused = []
    for name, check in CHECKS.items():
        if name == "check_reload":  # takes seconds for each; one suffices, below
            continue
        try:
            check(variant)
        except NotApplicable:
            refused.append(name)
    detached = getattr(preset, "sharing", {}).get("detach_sources")
    assert refused == (["check_gradients"] if detached else [])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classification", "regression", "counts"])
def test_presets_are_read_in_a_fresh_process(kind):
    shared = presets(kind)["shared"].many_features
    CHECKS["check_reload"](Variant(shared.programs, rows(kind)))
