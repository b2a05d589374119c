"""Snapshots of the source weights during a fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pyro_vmtl import RandomTasks, TaskBlocks, TaskData
from pyro_vmtl.inference import snapshots as module
from pyro_vmtl.inference.snapshots import Snapshots
from pyro_vmtl.methods.presets import HIERARCHICAL, SHARED, presets
from pyro_vmtl.sharing.sources import Sources


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(60, 3, generator=generator)
    y = (X.sum(1) + torch.randn(60, generator=generator) > 0).tolist()
    return TaskData.classification(X, y, [i % 4 for i in range(60)]).with_intercept()


def by_hand(fitted, site=0):
    """Pool weights at the softmax of the logits, with a loop instead of padding."""
    sources = [m for m in fitted.guide.modules() if isinstance(m, Sources)][site]
    num_tasks = sources.num_tasks
    weights = np.zeros((num_tasks, num_tasks + 1))
    logits = sources.logits.detach().double().numpy()
    for task in range(num_tasks):
        shares = np.exp(logits[task]) / np.exp(logits[task]).sum()
        names = [other for other in range(num_tasks) if other != task]
        for name, share in zip([*names, num_tasks], shares, strict=True):
            weights[task, name] += share
    anchored = (1 - 1 / num_tasks) * weights
    anchored[:, -1] += 1 / num_tasks
    return anchored


EVEN = replace(SHARED, sharing={**SHARED.sharing, "start": "even"})


@pytest.mark.parametrize(
    ("method", "fitting"),
    [
        (EVEN, {}),  # recorded from step 50 on
        (EVEN, {"tasks": RandomTasks(2)}),
        (EVEN, {"tasks": TaskBlocks(3)}),
    ],
    ids=["recorded", "tasks", "blocks"],
)
def test_snapshots_go_from_even_weights_to_those_of_the_fit(method, fitting, data):
    fitted = replace(method, fitting={"num_steps": 70, **fitting}).fit(data)
    history = fitted.result.history
    assert history.snapshot_step.tolist() == list(range(0, 71, 10))
    weights = history.relatedness["w"]
    assert weights.shape == (8, 4, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(8, 4))  # float32
    assert not weights.diagonal(dim1=1, dim2=2).any()
    # sources and base have even parts in what the anchor, 1/4, leaves
    borrowed = 0.75 * 3 / 4
    torch.testing.assert_close(weights[0, :, :-1].sum(1), torch.full((4,), borrowed))
    np.testing.assert_allclose(weights[-1], by_hand(fitted), atol=1e-6)  # float32
    assert (weights[-1] - weights[0]).abs().max() > 0.01


def test_every_shared_site_has_snapshots(data):
    method = presets("classification")["vmtl"]
    fitted = replace(method, latent_size=2, fitting={"num_steps": 12}).fit(data)
    weights = fitted.result.history.relatedness
    assert weights.keys() == {"w", "z"} and fitted.result.history.snapshot_step.tolist() == [
        0,
        10,
        12,
    ]
    for site, values in enumerate(weights.values()):
        final = [m for m in fitted.guide.modules() if isinstance(m, Sources)][site].location
        torch.testing.assert_close(values[-1], final)


def test_without_sharing_there_are_none(data):
    history = replace(HIERARCHICAL, fitting={"num_steps": 12}).fit(data).result.history
    assert history.relatedness == {} and len(history.snapshot_step) == 0


class Counted(Snapshots):
    """Snapshots of one site of T tasks, without a fit."""

    def __init__(self, num_tasks):
        super().__init__(torch.nn.Module(), 10)
        self.most = min(
            module.MAX_SNAPSHOTS, module.MAX_NUMBERS // (num_tasks * (num_tasks + 1)) - 1
        )

    def _now(self):
        return {}


def steps(num_tasks, num_steps, resume=0):
    snapshots, kept = Counted(num_tasks), {}
    for step in range(0, num_steps, 10):
        if step == resume:  # nothing but what was kept is known
            snapshots = Counted(num_tasks)
        snapshots.take(step, kept)
    snapshots.end(num_steps, kept)
    return list(kept)


@pytest.mark.parametrize("num_tasks", [4, 139, 250, 353])
@pytest.mark.parametrize("num_steps", [1, 95, 2000, 12345])
def test_snapshots_are_bounded_and_evenly_spaced(num_tasks, num_steps):
    kept = steps(num_tasks, num_steps)
    assert kept[0] == 0 and kept[-1] == num_steps
    assert len(kept) <= 31
    assert len(kept) * num_tasks * (num_tasks + 1) <= 250_000
    assert len(set(np.diff(kept[:-1]))) <= 1  # all but the last are as far apart
    most = min(30, 250_000 // (num_tasks * (num_tasks + 1)) - 1)
    if num_steps > 10 * most:
        assert len(kept) - 1 >= most / 2  # not thinner than it must be
    assert steps(num_tasks, num_steps, resume=num_steps // 20 * 10) == kept


def test_too_many_tasks_have_no_snapshots(data, monkeypatch):
    assert steps(354, 100) == []
    monkeypatch.setattr(module, "MAX_NUMBERS", 39)  # 2 would be 40
    fitted = replace(SHARED, fitting={"num_steps": 12}).fit(data)
    assert fitted.result.history.relatedness == {}
