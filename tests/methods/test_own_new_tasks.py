"""New and added tasks of programs of one's own, against what is known by hand."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal

from pyro_vmtl import (
    ExpectedLogarithmicPool,
    MeanFieldELBO,
    Programs,
    Stack,
    TaskData,
    add_task,
    share,
)
from pyro_vmtl.data.one_task import as_last_task
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.methods.new_task import NewTaskError
from pyro_vmtl.sharing.sources import Sources

NOISE = 0.5
S = 40_000
"""Draws: a mean has a standard error of 0.005 standard deviations, a variance one of 0.7 %."""


def model(data):
    """Every task has a mean, and a scale that is not shared."""
    common = pyro.sample("common", dist.Normal(data.x.new_tensor(1.0), 0.1))
    with pyro.plate("task", data.num_tasks, dim=-2):
        mean = pyro.sample("mean", dist.Normal(common, 1.0))
        rows = data.map_rows(lambda v: pyro.subsample(v, event_dim=v.ndim - 2))
        with pyro.plate("data", rows.num_rows, dim=-1), poutine.mask(mask=rows.mask):
            pyro.sample("y", dist.Normal(mean, NOISE), obs=rows.y)


def alone(data):
    return model, AutoNormal(model)


def shared(data, **settings):
    return share(model, AutoNormal(model), sites=["mean"], **settings)


def expected(data):
    return shared(data, pool=ExpectedLogarithmicPool)


FIT = {"num_steps": 300, "learning_rate": 0.05}


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    tasks = [t for t in range(5) for _ in range(4 + t)]
    y = torch.tensor([0.0, 0.1, 2.0, 2.1, 1.0])[tasks] + 0.5 * torch.randn(
        len(tasks), generator=generator
    )
    return TaskData.regression(torch.zeros(len(tasks), 1), y, tasks)


def one(num_rows, mean=2.0, seed=1):
    generator = torch.Generator().manual_seed(seed)
    y = mean + NOISE * torch.randn(num_rows, generator=generator)
    return TaskData.regression(torch.zeros(num_rows, 1), y, ["new"] * num_rows)


def learned(fitted, site):
    """Means and variances of a normal posterior, from the parameters of the autoguide."""
    guide = next(module for module in fitted.guide.modules() if isinstance(module, AutoNormal))
    loc, scale = guide._get_loc_and_scale(site)
    return loc.detach().flatten(), scale.detach().flatten() ** 2


def moments(fitted):
    (draws,) = fitted.new_task_draws(one(1), num_samples=S, seed=1)
    assert draws.batch_shape == (S, 1, 1)
    return draws.loc.mean().item(), draws.loc.var().item()


def test_alone_it_is_the_prior_about_what_is_common(data):
    fitted = Programs(alone, FIT).fit(data)
    mean, var = moments(fitted)
    loc, common_var = learned(fitted, "common")
    assert mean == pytest.approx(loc.item(), abs=0.02)
    assert var == pytest.approx(1 + common_var.item(), rel=0.04)


@pytest.mark.parametrize(("make", "factor"), [(shared, 1), (expected, 2)])
def test_shared_it_is_a_source_or_the_prior(data, make, factor):
    """The linear pool of five widened posteriors and the prior, whose least weight is 1/6."""
    fitted = Programs(make, FIT).fit(data)
    loc, var = learned(fitted, "mean")
    (sources,) = [m for m in fitted.guide.modules() if isinstance(m, Sources)]
    var = factor * var + sources.transfer_scale.detach().flatten() ** 2
    common, common_var = learned(fitted, "common")
    locs, variances = torch.cat([loc, common]), torch.cat([var, 1 + common_var])
    weights = torch.full((6,), 1 / 6)
    weights = 5 / 6 * weights + 1 / 6 * torch.eye(6)[-1]
    mean = (weights * locs).sum()
    found = moments(fitted)
    assert found[0] == pytest.approx(mean.item(), abs=0.03)
    total = (weights * (variances + (locs - mean) ** 2)).sum()
    assert found[1] == pytest.approx(total.item(), rel=0.05)


def test_an_added_task_learns_its_posterior_and_nothing_else(data):
    """Alone, with the common mean given, the posterior of the mean is conjugate."""
    fitted = Programs(alone, {"num_steps": 1500, "learning_rate": 0.02}).fit(data)
    rows = one(6)
    added = add_task(fitted, rows)
    assert added.num_tasks == 6
    assert added.predictive(as_last_task(rows, 5)).mean.shape == (6, 6)
    loc, var = learned(added, "mean")
    before = learned(fitted, "mean")
    assert torch.equal(loc[:5], before[0]) and torch.equal(var[:5], before[1])
    common, _ = learned(fitted, "common")
    assert torch.equal(common, learned(added, "common")[0])
    precision = 1 + 6 / NOISE**2
    mean = (common + rows.y.sum() / NOISE**2) / precision
    # SVI by draws: a tenth of the posterior's width
    assert loc[-1].item() == pytest.approx(mean.item(), abs=0.1 / precision**0.5)
    assert var[-1].item() == pytest.approx(1 / precision, rel=0.15)


def mean_field(data):
    guide = MeanFieldNormal({"mean": ()}, data.num_tasks, common={"common": ()})
    return share(model, guide, sites=["mean"])


class OfSomeTasks(Programs):
    subsamples_tasks = True


def test_running_all_tasks_or_the_new_one_is_the_same(data):
    """Without draws, both find the same optimum, whether others are masked or do not run."""
    settings = {"optimizer": "lbfgs", "elbo": MeanFieldELBO(num_points=8), "num_steps": 300}
    found = []
    for kind in (Programs, OfSomeTasks):
        added = add_task(kind(mean_field, settings).fit(data), one(6))
        guide = next(m for m in added.guide.modules() if isinstance(m, MeanFieldNormal))
        weights = added.relatedness(num_samples=2).mean(0)[-1]
        found.append([guide.locs["mean"].flatten(), guide.raw_scales["mean"].flatten(), weights])
    for all_tasks, only in zip(*found, strict=True):
        torch.testing.assert_close(all_tasks, only, rtol=0, atol=2e-3)
    assert found[0][2][2:4].sum() > 2 * found[0][2][:2].sum()  # the means that are near


def of_four(data):
    """A program that is for exactly five tasks."""
    with pyro.plate("task", 5, dim=-2):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Normal(mean, NOISE), obs=data.y)


def test_programs_for_a_fixed_number_of_tasks_say_so(data):
    method = Programs(lambda data: (of_four, AutoNormal(of_four)), {"num_steps": 20})
    fitted = Stack({"five": method}, num_folds=2).fit(data)  # which weighs members for new tasks
    with pytest.raises(NewTaskError, match=r"expected as \(1, 3\), found .*`data.num_tasks`"):
        fitted.new_task_predictive(one(3))
    with pytest.raises(ValueError, match=r"has 5 tasks with one more, expected the 6 of `data.num"):
        add_task(fitted, one(3))


def transposed(data):
    """A guide with tasks along the last dimension."""

    class Guide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = torch.nn.Parameter(torch.zeros(1, data.num_tasks))

        def forward(self, data):
            pyro.sample("common", dist.Delta(torch.tensor(1.0)))
            with pyro.plate("task", data.num_tasks, dim=-2):
                pyro.sample("mean", dist.Normal(self.loc.mT, 0.3))

    return model, Guide()


def test_parameters_with_the_tasks_elsewhere_are_named(data):
    fitted = Programs(transposed, {"num_steps": 20}).fit(data)
    message = r"guide.loc has shape \(1, 5\), and \(1, 6\) for one task more.*first dimension"
    with pytest.raises(ValueError, match=message):
        add_task(fitted, one(3))
