"""Fits at once, beside the same fits one by one."""

from dataclasses import replace

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_vmtl import MeanFieldELBO, TaskData, share
from pyro_vmtl.data.folds import folds
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.inference import checkpoint, joint
from pyro_vmtl.inference.joint import CannotJoinError, fit_jointly
from pyro_vmtl.methods.presets import ALONE, HIERARCHICAL, POOLED, SHARED
from pyro_vmtl.models import LinearRegressor, LogNormalNoise, ZeroMeanNormal


@pytest.fixture(scope="module")
def parts():
    """Rows without each of three folds, of three classes in tasks of 13, 8 and 9 rows."""
    torch.manual_seed(0)
    x, tasks = torch.randn(30, 4), ["a"] * 13 + ["b"] * 8 + ["c"] * 9
    y = (x @ torch.randn(4, 3) + torch.randn(30, 3)).argmax(1)
    weight = torch.rand(30) + 0.5
    data = TaskData.classification(x, y.tolist(), tasks, sample_weight=weight)
    return [train for train, _ in folds(data, 3)]


def fit_at_once(preset, parts, monkeypatch, **settings):
    """Fit, and fail where that is one by one."""
    with monkeypatch.context() as patched:
        patched.setattr("pyro_vmtl.methods.method.fit", None)
        return preset.fit_each(parts, **settings)


ALONE_FIRST = replace(SHARED, sharing={})  # tasks are alone, then weights start at the nearest


@pytest.mark.parametrize(
    "preset",
    [SHARED, ALONE_FIRST, HIERARCHICAL, POOLED],
    ids=["shared", "alone", "hierarchical", "pooled"],
)
def test_fits_are_the_same_as_one_by_one(preset, parts, monkeypatch):
    preset = replace(preset, fitting={"num_steps": 60})
    together = fit_at_once(preset, parts, monkeypatch, seed=4)
    for fitted, data in zip(together, parts, strict=True):
        single = preset.fit(data, seed=4)
        ours, theirs = fitted.result.history, single.result.history
        # Rounding differs, and steps of Adam are as long whatever the gradient: 1e-3 after 60.
        torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-3, atol=0)
        assert ours.kl.keys() == theirs.kl.keys()
        for one, other in zip(fitted.guide.parameters(), single.guide.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0.02)
        assert fitted.result.stopped == single.result.stopped
        assert fitted.guide.state_dict().keys() == single.guide.state_dict().keys()


def test_each_fit_has_an_end_of_its_own(parts, monkeypatch):
    few = parts[0].take(torch.arange(2).expand(3, 2), torch.ones(3, 2, dtype=torch.bool))
    preset = replace(ALONE, fitting={"num_steps": 900})
    fits = fit_at_once(preset, [few, *parts], monkeypatch, seed=1)
    together = [len(fitted.result.history.loss) for fitted in fits]
    single = [len(preset.fit(data, seed=1).result.history.loss) for data in (few, *parts)]
    # a fit may settle ten steps earlier or later by rounding
    assert all(abs(one - other) <= 10 for one, other in zip(together, single, strict=True))
    assert len(set(together)) > 1


def test_modules_have_tensors_of_their_own_afterwards(parts):
    first, second, _ = replace(SHARED, fitting={"num_steps": 20}).fit_each(parts)
    before = [parameter.clone() for parameter in second.guide.parameters()]
    with torch.no_grad():
        for parameter in first.guide.parameters():
            parameter.add_(1.0)
            assert parameter.untyped_storage().nbytes() == parameter.nbytes
    for parameter, value in zip(second.guide.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


class Branching(nn.Module):
    """A prior that reads a value, which vectorized programs cannot."""

    fixed_graph = True

    def __init__(self):
        super().__init__()
        self.raw_scale = nn.Parameter(torch.zeros(()))

    def forward(self):
        scale = 1.0 if float(self.raw_scale) > 5 else self.raw_scale.exp()
        return dist.Normal(torch.zeros(2), scale).to_event(1)


class Remembering(Branching):
    """A prior that does not keep its promise: what it computes is not of its parameters."""

    fixed_graph = True

    def forward(self):
        scale = self.__dict__.setdefault("first", self.raw_scale.detach().clone() + 1)
        return dist.Normal(torch.zeros(2), self.raw_scale.exp() + scale).to_event(1)


class Silent(Branching):
    """A prior that promises nothing."""

    def forward(self):
        return dist.Normal(torch.zeros(2), self.raw_scale.exp()).to_event(1)


def problems_with(prior):
    data = [TaskData.regression(x := torch.randn(8, 2), x.sum(1), ["a", "b"] * 4) for _ in range(2)]
    found = []
    for place, rows in enumerate(data):
        own = prior()
        nn.init.constant_(own.raw_scale, 0.3 * place) if own.raw_scale is not None else None
        model = LinearRegressor(own, LogNormalNoise())
        found.append((*share(model, MeanFieldNormal.for_model(model, rows), sites=["w"]), rows))
    return found


@pytest.mark.parametrize("prior", [Branching, Remembering, Silent])
def test_what_cannot_be_vectorized_is_left_as_it_was(prior):
    problems = problems_with(prior)
    before = [[p.clone() for p in model.parameters()] for model, _, _ in problems]
    with pytest.raises(CannotJoinError):
        fit_jointly(problems, elbo=MeanFieldELBO(), num_steps=30)
    for (model, _, _), values in zip(problems, before, strict=True):
        assert all(map(torch.equal, model.parameters(), values))


def test_a_method_of_such_programs_fits_one_by_one(parts, monkeypatch):
    monkeypatch.setattr(joint, "MOST_NUMBERS", 10)
    preset = replace(ALONE, fitting={"num_steps": 20})
    fits = preset.fit_each(parts, seed=2)
    for fitted, data in zip(fits, parts, strict=True):
        single = preset.fit(data, seed=2)
        for one, other in zip(fitted.guide.parameters(), single.guide.parameters(), strict=True):
            assert torch.equal(one, other)


def test_programs_with_other_shapes_cannot_be_joined():
    one, other = (
        (
            model := LinearRegressor(ZeroMeanNormal((size,)), LogNormalNoise()),
            MeanFieldNormal.for_model(model, rows),
            rows,
        )
        for size in (2, 3)
        for rows in [TaskData.regression(torch.randn(6, size), torch.randn(6), list("aabbcc"))]
    )
    with pytest.raises(CannotJoinError, match="shapes"), isolated(0):
        fit_jointly([one, other], elbo=MeanFieldELBO(), num_steps=20)


def test_checkpoints_are_read_if_all_fits_are_over(parts, tmp_path, monkeypatch):
    preset = replace(SHARED, fitting={"num_steps": 20})
    folders = [tmp_path / str(place) for place in range(3)]
    fits = fit_at_once(preset, parts, monkeypatch, seed=3, checkpoints=folders)
    read = fit_at_once(preset, parts, monkeypatch, seed=3, checkpoints=folders)
    (folders[1] / "joint-fit.pt").unlink()  # all start again, so that all end the same
    again = fit_at_once(preset, parts, monkeypatch, seed=3, checkpoints=folders)
    for fit, *others in zip(fits, read, again, strict=True):
        for other in others:
            assert torch.equal(fit.result.history.loss, other.result.history.loss)
            pairs = zip(fit.guide.parameters(), other.guide.parameters(), strict=True)
            assert all(torch.equal(one, two) for one, two in pairs)


def test_fits_at_once_have_no_checkpoints_on_the_way(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    preset = replace(SHARED, fitting={"num_steps": 20})
    folders = [tmp_path / str(place) for place in range(3)]
    written = []
    monkeypatch.setattr(
        checkpoint.Checkpoint, "write", lambda self, progress: written.append(progress.over)
    )
    fit_at_once(preset, parts, monkeypatch, seed=3, checkpoints=folders)
    assert written == [True] * 3  # they could not go on from different steps
