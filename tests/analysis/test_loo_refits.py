"""Leave-one-out of a shared fit, against fits without the row."""

import copy

import numpy as np
import pytest
import torch
from problems import F64

from pyro_vmtl import MeanFieldELBO, TaskData, fit, log_predictive_density, share, temper
from pyro_vmtl.analysis import from_pyro_svi, loo, loo_by_task, psis_khat, to_datatree
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.methods.presets import POOLED
from pyro_vmtl.models import LinearRegressor, TaskNoise, ZeroMeanNormal


def rows(num_tasks, num_rows):
    generator = torch.Generator().manual_seed(0)
    tasks = torch.arange(num_tasks).repeat_interleave(num_rows)
    X = torch.randn(len(tasks), 2, generator=generator, dtype=F64)
    w = 1 + 0.3 * torch.randn(num_tasks, 2, generator=generator, dtype=F64)
    noise = torch.randn(len(tasks), generator=generator, dtype=F64)
    return X, (X * w[tasks]).sum(1) + 0.5 * noise, tasks.tolist()


@pytest.mark.slow
def test_loo_of_a_shared_and_tempered_fit_is_near_that_of_fits_without_the_row():
    X, y, tasks = rows(3, 8)
    data = TaskData.regression(X, y, tasks)
    model = LinearRegressor(ZeroMeanNormal([2], init_scale=1.5), TaskNoise(3, 0.5)).double()
    model.requires_grad_(False)
    guide = MeanFieldNormal({"w": [2]}, 3).double()
    pair = temper(*share(model, guide, sites=["w"]), kl_weights=0.5)
    fit(*pair, data, elbo=MeanFieldELBO(2), num_steps=200)
    tree = from_pyro_svi(*pair, data, num_samples=1500)
    result = loo(tree)
    y_draws = tree["log_likelihood"]["y"].values[0]
    seen = np.log(np.exp(y_draws).mean(0))  # predicted by the fit that has seen the row
    most = np.argsort(seen - result.elpd_i.values)[-2:]  # the rows that mattered most to it
    without = []
    for row in most:
        kept = np.delete(np.arange(len(y)), row)
        fewer = TaskData.regression(X[kept], y[kept], [tasks[i] for i in kept])
        again = copy.deepcopy(pair)
        fit(*again, fewer, elbo=MeanFieldELBO(2), num_steps=100, learning_rate=0.02)
        held = fewer.new_rows(X[[row]], [tasks[row]], y[[row]])
        density = log_predictive_density(*again, held, num_samples=1500)
        without.append(density[tasks[row], 0].item())
    lost, error = seen[most] - without, result.elpd_i.values[most] - without
    # What is lost by not having seen the row is estimated to within a third, sharing or not.
    assert (lost > 0.1).all() and np.abs(error).sum() < lost.sum() / 3


def test_a_fit_that_takes_all_tasks_for_one_has_an_estimate_for_each():
    X, y, tasks = rows(3, 8)
    data = TaskData.regression(X.float(), y.float(), [f"t{t}" for t in tasks])
    few = {**POOLED.fitting, "num_steps": 60}
    tree = to_datatree(type(POOLED)(**{**vars(POOLED), "fitting": few}).fit(data), data)
    assert psis_khat(tree).khat_task.shape == (1,)
    table = loo_by_task(tree)
    assert list(table.index) == ["t0", "t1", "t2", "(all)"]
    assert table["elpd_loo"].iloc[:3].sum() == pytest.approx(table.loc["(all)", "elpd_loo"])
    seen = np.log(np.exp(tree["log_likelihood"]["y"]).mean(("chain", "draw")))
    assert (table["p_loo"] > 0).all() and table.loc["(all)", "elpd_loo"] < seen.sum()
