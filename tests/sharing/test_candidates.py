"""A few sources for each task: the dense pool where these are all, and the nearest otherwise."""

from dataclasses import replace

import pytest
import torch
from problems import F64, classifier, randomize_sources

from pyro_vmtl import (
    GaussianSumPool,
    LinearPool,
    LogarithmicPool,
    MeanFieldELBO,
    TaskBlocks,
    TaskData,
    attend,
    relatedness,
    share,
)
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.inference.step import Step
from pyro_vmtl.methods.presets import presets


def evaluate(ragged, **settings):
    model, guide = share(*classifier(ragged), sites=["w"], **settings)
    guide(ragged)
    randomize_sources(guide)
    step = Step(MeanFieldELBO()(model, guide), (ragged,))
    with isolated(0):
        loss, _ = step()
    return loss, [p.grad for p in step.parameters], relatedness(guide, num_samples=50)


@pytest.mark.parametrize("pool", [LinearPool, LogarithmicPool, GaussianSumPool])
@pytest.mark.parametrize("base", [True, False])
@pytest.mark.parametrize("transfer", [None, "source", "dimension"])
def test_all_others_as_candidates_are_the_dense_pool(ragged, pool, base, transfer):
    settings = {"pool": pool, "base": base, "transfer": transfer}
    dense = evaluate(ragged, **settings)
    for num_sources in (2, 7):  # there are three tasks
        sparse = evaluate(ragged, num_sources=num_sources, **settings)
        torch.testing.assert_close(sparse[0], dense[0], rtol=1e-12, atol=0)
        for one, other in zip(sparse[1], dense[1], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(sparse[2], dense[2])


def test_candidates_are_the_nearest_and_keep_their_weights():
    torch.manual_seed(0)
    group = torch.arange(12) % 3  # three groups of four tasks
    X = torch.randn(12 * 30, 4)
    tasks = torch.arange(12).repeat_interleave(30)
    y = (X * 3 * torch.randn(3, 4)[group[tasks]]).sum(1)
    data = TaskData.regression(X, y / y.std(), tasks.tolist())
    preset = presets("regression")["shared"]
    for blocks in (5, 512):
        fitting = {**preset.fitting, "num_steps": 300, "tasks": TaskBlocks(blocks)}
        sharing = {**preset.sharing, "num_sources": 3}
        fitted = replace(preset, sharing=sharing, fitting=fitting).fit(data)
        drawn = relatedness(fitted.guide)
        assert drawn.shape == (1000, 12, 13)
        torch.testing.assert_close(drawn.sum(-1), torch.ones(1000, 12))
        strangers = group[:, None] != group
        assert (drawn[..., :-1][:, strangers] == 0).all()
        assert (drawn[..., :-1].diagonal(dim1=1, dim2=2) == 0).all()


def test_a_look_up_keeps_the_weight_of_those_who_stay(ragged):
    model, guide = share(*classifier(ragged), sites=["w"], num_sources=1)
    guide(ragged)
    (sources,) = guide.state.sources.values()
    with torch.no_grad():
        guide.program.locs["w"].copy_(
            torch.tensor([0.0, 5.0, 0.1], dtype=F64)[:, None, None, None].expand(3, 1, 3, 3)
        )
        guide.program.raw_scales["w"].fill_(-1.0)
        sources.candidates.copy_(torch.tensor([[1], [0], [0]]))
        sources.logits[:, 0] = torch.tensor([3.0, 4.0, 5.0])
    guide(ragged)
    model(ragged)
    moments = torch.ones_like(sources.logits)
    sources.look_up([moments])
    assert sources.candidates.tolist() == [[2], [2], [0]]
    assert sources.logits[:, 0].tolist() == [3.0, 4.0, 5.0]  # one source: its own mean
    assert moments[:, 0].tolist() == [0.0, 0.0, 1.0]  # an optimiser starts anew with a new source


def test_a_single_task_has_no_candidates(ragged):
    data = TaskData.regression([[1.0], [2.0]], [0.0, 1.0], ["a", "a"])
    preset = presets("regression")["shared"]
    preset = replace(preset, sharing={"num_sources": 2}, fitting={"num_steps": 20})
    assert relatedness(preset.fit(data).guide).shape == (1000, 1, 2)


def test_candidates_are_looked_up_at_doubling_steps(ragged):
    _, guide = share(*classifier(ragged), sites=["w"], num_sources=1)
    guide(ragged)
    (sources,) = guide.state.sources.values()
    due = []
    for step in range(400):
        sources.at_step(step)
        due += [step] if sources.due else []
    assert due == [10, 20, 40, 80, 160, 320]


def test_sources_of_cells_have_no_candidates(ragged):
    preset = presets("classification")["vmtl"]
    preset = replace(preset, latent_size=2, sharing={"num_sources": 1})
    data = replace(ragged, x=ragged.x.float())
    with pytest.raises(ValueError, match="site 'z' has sources of its own"):
        preset.fit(attend(data))
    with pytest.raises(ValueError, match="num_sources is 0"):
        share(*classifier(ragged), sites=["w"], num_sources=0)
