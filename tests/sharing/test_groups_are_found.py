"""One line, `share(model, AutoNormal(model), sites=["w"])`, finds the groups that there are."""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

from benchmarks.known_groups import own_group_share
from pyro_vmtl import MeanFieldELBO, TaskData, fit, log_predictive_density, relatedness, share
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.inference import course


def regression(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1))
        mean = (data.x @ w.mT).squeeze(-1)
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=data.y)


def counts(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1))
        rate = (data.x @ w.mT).squeeze(-1).exp()
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Poisson(rate), obs=data.y)


def classes(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(3, data.num_features), 1.0).to_event(2))
        logits = torch.einsum("tnf,...tucf->...tnc", data.x, w)
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Categorical(logits=logits), obs=data.y)


def rows(model, w, sizes, rng):
    """Rows of tasks with these coefficients, as many as ``sizes`` says."""
    tasks = np.repeat(np.arange(len(w)), sizes)
    X = rng.randn(len(tasks), w.shape[-1])
    mean = np.einsum("n...f,nf->n...", w[tasks], X)
    labels = [int(task) for task in tasks]
    if model is classes:
        y = (mean + rng.gumbel(size=mean.shape)).argmax(1)
        return TaskData.classification(torch.tensor(X).float(), y.tolist(), labels)
    y = rng.poisson(np.exp(mean)) if model is counts else mean + rng.randn(len(mean))
    return TaskData.regression(torch.tensor(X).float(), torch.tensor(y).float(), labels)


def two_groups(features, rng, distance=3.7):
    """Centres at a distance from each other, on either side of 0."""
    centre = rng.randn(features)
    centre *= distance / 2 / np.linalg.norm(centre)
    return np.stack([centre, -centre])


def problem(model, centres, num_tasks, sizes, rng):
    """Rows of tasks in groups, with a spread of 0.1 in a group, and the group of each task."""
    group = np.arange(num_tasks) % len(centres)
    w = centres[group] + 0.1 * rng.randn(num_tasks, *centres.shape[1:])
    return rows(model, w, sizes, rng), group


def own_group(model, data, group, make_guide=AutoNormal, **settings):
    """Fit in one line, and return the mean weight of the own group among the sources."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shared_model, guide = share(model, make_guide(model), sites=["w"])
        fit(shared_model, guide, data, **settings)
    return own_group_share(relatedness(guide).mean(0).numpy(), group).mean()


@pytest.mark.parametrize("model", [regression, counts])
def test_two_groups_far_apart(model):
    """From even weights, drawn from a Concrete distribution, 0.54."""
    rng = np.random.RandomState(0)
    centres = two_groups(4, rng, distance=3.7 if model is regression else 2.0)
    data, group = problem(model, centres, 8, 30, rng)
    assert own_group(model, data, group) > 0.9


def test_lbfgs_finds_them_in_the_same_line():
    rng = np.random.RandomState(0)
    data, group = problem(regression, two_groups(4, rng), 8, 30, rng)
    settings = {"elbo": MeanFieldELBO(num_points=4), "optimizer": "lbfgs"}
    assert own_group(regression, data, group, **settings) > 0.9


def test_tasks_are_alone_at_first():
    rng = np.random.RandomState(0)
    data, _ = problem(regression, two_groups(4, rng), 4, 10, rng)
    guide, plain = (MeanFieldNormal({"w": (4,)}, 4) for _ in range(2))
    model, guide = share(regression, guide, sites=["w"])
    history = fit(model, guide, data, num_steps=100).history
    base = history.relatedness["w"][..., -1]
    assert (base[history.snapshot_step < 20] == 1).all()
    assert (base[history.snapshot_step >= 20] < 1).all()
    assert (relatedness(guide)[..., -1] < 1).all()
    assert (history.kl["w_sources"][history.step < 20] == 0).all()
    alone = fit(regression, plain, data, num_steps=100).history
    torch.testing.assert_close(history.kl["w"][:2], alone.kl["w"][:2])
    assert (history.kl["w"][2:] != alone.kl["w"][2:]).all()


def test_weights_start_alone_however_short_a_fit_is():
    rng = np.random.RandomState(0)
    data, _ = problem(regression, two_groups(4, rng), 4, 10, rng)
    for settings in ({}, {"elbo": MeanFieldELBO(num_points=2), "optimizer": "lbfgs"}):
        model, guide = share(regression, AutoNormal(regression), sites=["w"])
        fit(model, guide, data, num_steps=1, **settings)
        assert (relatedness(guide)[..., -1] < 1).all()


def test_a_guide_that_starts_alike_is_warned_of():
    rng = np.random.RandomState(0)
    data, _ = problem(regression, two_groups(4, rng), 4, 10, rng)
    pair = share(regression, AutoNormal(regression), sites=["w"], start="nearest")
    with pytest.warns(UserWarning, match="All posteriors are alike"):
        fit(*pair, data, num_steps=1)


@pytest.mark.slow
def test_a_long_fit_does_not_dissolve_them(monkeypatch):
    monkeypatch.setattr(course, "_settled", lambda losses: False)
    rng = np.random.RandomState(0)
    data, group = problem(regression, two_groups(4, rng), 8, 30, rng)
    make_guide = lambda model: MeanFieldNormal.for_model(model, data)  # noqa: E731
    assert own_group(regression, data, group, make_guide, num_steps=5000) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
class TestMoreGroups:
    def test_two_groups(self, seed):
        rng = np.random.RandomState(seed)
        data, group = problem(regression, two_groups(4, rng), 8, 30, rng)
        assert own_group(regression, data, group) > 0.9

    def test_many_tasks_in_eight_groups(self, seed):
        rng = np.random.RandomState(seed)
        data, group = problem(regression, rng.randn(8, 16), 139, 40, rng)
        assert own_group(regression, data, group) > 0.9

    def test_opposite_groups(self, seed):
        rng = np.random.RandomState(seed)
        centre = rng.randn(1, 6)
        data, group = problem(regression, np.concatenate([centre, -centre]), 8, 30, rng)
        assert own_group(regression, data, group) > 0.9

    def test_tasks_of_3_to_300_rows(self, seed):
        rng = np.random.RandomState(seed)
        sizes = rng.permutation(np.geomspace(3, 300, 20).round().astype(int))
        data, group = problem(regression, rng.randn(2, 8), 20, sizes, rng)
        assert own_group(regression, data, group) > 0.85  # a task of 3 rows may be in either

    @pytest.mark.parametrize("features", [2, 3])
    def test_few_features(self, seed, features):
        """Groups so near each other that one prior explains them as well are told apart in part."""
        rng = np.random.RandomState(seed)
        data, group = problem(regression, 1.5 * rng.randn(3, features), 12, 30, rng)
        assert own_group(regression, data, group) > 0.7

    def test_classes(self, seed):
        """Centres are 3.2, 5.1 and 3.2 apart; those of seed 0, 2.3 apart, end in one group."""
        rng = np.random.RandomState(seed + 1)
        data, group = problem(classes, rng.randn(2, 3, 4), 8, 60, rng)
        assert own_group(classes, data, group) > 0.9

    def test_other_guides(self, seed):
        rng = np.random.RandomState(seed)
        data, group = problem(counts, two_groups(4, rng, distance=2.0), 8, 30, rng)
        for make_guide in (
            AutoMultivariateNormal,
            lambda model: MeanFieldNormal.for_model(model, data),
        ):
            assert own_group(counts, data, group, make_guide) > 0.9

    def test_strangers_are_predicted_as_without_sharing(self, seed):
        rng = np.random.RandomState(seed)
        w = rng.randn(12, 4)
        train, test = (rows(regression, w, n, rng) for n in (15, 100))
        density = []
        for pair in (
            (regression, AutoNormal(regression)),
            share(regression, AutoNormal(regression), sites=["w"]),
        ):
            fit(*pair, train)
            density.append(log_predictive_density(*pair, test)[test.mask].mean())
        assert density[1] > density[0] - 0.03
