"""After the fit, programs of any likelihood go wherever presets go."""

from dataclasses import replace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal

from pyro_vmtl import (
    Programs,
    Stack,
    TaskData,
    VMTLRegressor,
    add_task,
    load_fitted,
    quantiles,
    save_fitted,
    share,
)
from pyro_vmtl.analysis import (
    assess_reliability,
    loo_by_task,
    plot_coverage,
    plot_khat,
    plot_ppc_by_task,
    plot_uncertain_rows,
    plot_uncertainty,
    psis_khat,
    report_sections,
    to_datatree,
    write_report,
)
from pyro_vmtl.methods.presets import presets
from pyro_vmtl.predictive.mixtures import pit

mpl.use("agg")

PEOPLE = ["Ada", "Bo", "Cy", "Di"]


class Linear(torch.nn.Module):
    """Coefficients of every task, and whatever likelihood of their linear predictor."""

    def features(self, data):
        return data.x

    def forward(self, data):
        x = self.features(data)
        common = self.common(data)
        with pyro.plate("task", data.num_tasks, dim=-2):
            w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[-1]), 1.0).to_event(1))
            of_task = self.of_task()
            mean = (x @ w.mT).squeeze(-1)
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
                pyro.sample("y", self.likelihood(mean, data, common, of_task), obs=data.y)

    def common(self, data):
        return None

    def of_task(self):
        return None


class Robust(Linear):
    def of_task(self):
        return pyro.sample("scale", dist.LogNormal(torch.tensor(-1.0), 0.5))

    def likelihood(self, mean, data, common, scale):
        return dist.StudentT(4.0, mean, scale)


class Exposed(Linear):
    def likelihood(self, mean, data, common, of_task):
        return dist.Poisson(mean.exp() * data.columns["exposure"])


class Graded(Linear):
    def common(self, data):
        return pyro.sample("gaps", dist.LogNormal(torch.zeros(3), 0.5).to_event(1))

    def likelihood(self, mean, data, gaps, of_task):
        return dist.OrderedLogistic(mean, gaps.cumsum(-1) - 2.0)


class Inflated(Linear):
    def of_task(self):
        return pyro.sample("gate", dist.Beta(torch.tensor(2.0), 2.0))

    def likelihood(self, mean, data, common, gate):
        return dist.ZeroInflatedPoisson(mean.exp(), gate=gate)


class Net(Linear):
    """A net whose last layer is of every task."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh())

    def features(self, data):
        return self.body(data.x)

    def likelihood(self, mean, data, common, of_task):
        return dist.Normal(mean, 0.4)


def rows(kind, num, seed=0):
    """Rows of four tasks in two groups, from the likelihood of a kind of program."""
    rng = np.random.default_rng(seed)
    tasks = [PEOPLE[i % 4] for i in range(num)]
    X = np.column_stack([rng.normal(size=num), np.ones(num)])
    mean = np.tile([1.0, 1.1, -1.0, -1.1], num // 4) * X[:, 0] + 0.5
    columns, y = None, mean + 0.4 * rng.normal(size=num)
    if kind is Robust:
        y = mean + 0.3 * rng.standard_t(4, size=num)
    elif kind is Exposed:
        columns = {"exposure": rng.uniform(1, 10, num)}
        y = rng.poisson(np.exp(mean) * columns["exposure"])
    elif kind is Inflated:
        y = rng.poisson(np.exp(mean + 1)) * (rng.random(num) > 0.3)
    elif kind is Graded:
        y = np.digitize(2 * mean + rng.logistic(size=num), [-1, 0, 1])
    return X, y, tasks, columns


def task_data(kind, num, seed=0, like=None):
    X, y, tasks, columns = rows(kind, num, seed)
    if like is not None:
        return like.new_rows(X, tasks, y, columns=columns)
    return TaskData.regression(X, y, tasks, columns=columns)


def method_of(kind, num_steps=150):
    def programs(data):
        model = kind()
        return share(model, AutoNormal(model), sites=["w"])

    return Programs(programs, {"num_steps": num_steps, "learning_rate": 0.03})


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in (Exposed, Graded, Inflated, Net)]


@pytest.mark.parametrize("kind", [Robust, *SLOW])
def test_they_go_wherever_presets_go(kind, tmp_path):
    data = task_data(kind, 160)
    method = method_of(kind)
    fitted = method.fit(data)
    new = task_data(kind, 120, seed=1, like=data)
    predictive = fitted.predictive(new)
    low, high = quantiles(predictive, [0.05, 0.95])
    inside = ((new.y >= low) & (new.y <= high))[new.mask].float().mean()
    # 0.9, or more of discrete targets; 120 rows have a standard error of 0.03
    assert inside > 0.8
    found = pit(predictive, new.y, torch.Generator().manual_seed(0))[new.mask]
    assert abs(found.mean() - 0.5) < 0.11  # uniform: four standard errors
    explained = 1 - (predictive.mean - new.y)[new.mask].square().mean() / new.y[new.mask].var()
    assert explained > 0.2 and (predictive.variance > 0).all()

    one = new.map_rows(lambda v: v[:1])
    one = replace(one, task_labels=("new",))
    assert fitted.new_task_predictive(one).mean.shape == (1, 30)
    added = add_task(fitted, one)
    borrowed = added.relatedness(num_samples=10).mean(0)[-1]
    assert borrowed[:2].sum() > borrowed[2:4].sum()  # the new task is like Ada and Bo

    tree = to_datatree(fitted, data, rows=new, num_samples=60)
    for plot in (plot_coverage, plot_uncertainty, plot_uncertain_rows, plot_khat):
        assert plot(tree) is not None
    assert plot_ppc_by_task(tree) is not None
    plt.close("all")
    assert len(loo_by_task(tree)) == 5 and len(assess_reliability(tree)) > 1
    assert psis_khat(tree).sizes
    page = write_report(tmp_path, report_sections(tree), title="T", summary=["s"], footer="f")
    assert page.stat().st_size > 10_000

    path = tmp_path / "fit.safetensors"
    save_fitted(path, fitted, data)
    again, like = load_fitted(path, method)
    same = task_data(kind, 120, seed=1, like=like)
    assert torch.equal(again.predictive(same).mean, predictive.mean)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "preset"), [(Robust, "regression"), (Exposed, "counts"), (Inflated, "counts")]
)
def test_they_are_stacked_with_presets(kind, preset, tmp_path):
    data = task_data(kind, 120)
    shared = replace(presets(preset)["shared"].many_features, fitting={"num_steps": 100})
    stack = Stack({"own": method_of(kind), "preset": shared}, num_folds=2)
    fitted = stack.fit(data)
    new = task_data(kind, 80, seed=1, like=data)
    predictive = fitted.predictive(new)
    assert predictive.mean.shape == (4, 20)
    assert predictive.log_prob(new.y)[new.mask].mean() > -4
    one = replace(new.map_rows(lambda v: v[:1]), task_labels=("new",))
    assert fitted.new_task_predictive(one).variance.shape == (1, 20)
    assert add_task(fitted, one).weights.shape == (5, 2)
    tree = to_datatree(fitted, data, rows=new, num_samples=50)
    assert {"lower", "upper", "pit"} <= set(tree["predictions"].data_vars)
    save_fitted(tmp_path / "fit.safetensors", fitted, data)
    again, _ = load_fitted(tmp_path / "fit.safetensors", stack)
    assert torch.equal(again.predictive(new).mean, predictive.mean)
    with pytest.raises(ValueError, match="programs of your own"):
        load_fitted(tmp_path / "fit.safetensors")


def test_likelihoods_that_cannot_be_compared_are_not_stacked():
    data = task_data(Exposed, 40)
    shared = replace(presets("regression")["shared"].many_features, fitting={"num_steps": 20})
    stack = Stack({"own": method_of(Exposed, 20), "preset": shared}, num_folds=2)
    with pytest.raises(ValueError, match="Normal, Poisson, expected all of classes"):
        stack.fit(data)


def test_a_stack_asks_for_methods():
    model = Robust()
    with pytest.raises(TypeError, match=r"Member 'own' is a tuple.*Programs\(make\)"):
        Stack({"own": (model, AutoNormal(model))})


@pytest.mark.slow
def test_an_estimator_predicts_and_adds_tasks():
    X, y, tasks, columns = rows(Exposed, 160)
    reg = VMTLRegressor(method_of(Exposed), likelihood="poisson", num_samples=50)
    reg.fit(X[:, :1], y, tasks, columns=columns)
    hours = {"exposure": np.full(3, 2.0)}
    with pytest.warns(UserWarning, match="no such task in the fit"):
        mean, std = reg.predict(X[:3, :1], ["Eve"] * 3, columns=hours, return_std=True)
    assert (mean > 0).all() and (std > mean**0.5).all()
    reg.add_task(X[:8:4, :1], y[:8:4], task="Eve", columns={"exposure": [1.0, 2.0]})
    assert reg.predict(X[:3, :1], ["Eve"] * 3, columns=hours).shape == (3,)
