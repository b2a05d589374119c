"""Diagnostics of posteriors far from right, of ties, of few draws and of a single row."""

from dataclasses import replace

import conjugate_trees
import numpy as np
import pytest
import xarray as xr
from scipy.special import logsumexp

from pyro_vmtl import TaskData
from pyro_vmtl.analysis import (
    compare_fits,
    loo_by_task,
    plot_khat,
    psis_khat,
    report_sections,
    restart_spread,
    to_datatree,
)
from pyro_vmtl.analysis.diagnostics.khat import smoothed_weights
from pyro_vmtl.methods.presets import SHARED


def ratios(values):
    return xr.DataArray(np.asarray(values, dtype=float)[None], dims=("chain", "draw"))


@pytest.mark.parametrize("spread", [100.0, 500.0, 1e5])
def test_a_posterior_far_from_right_is_never_trusted(spread):
    """Where one draw has all the weight, its numbers are no fit of a Pareto distribution."""
    values = spread * np.random.default_rng(0).normal(size=500)
    log_weights, khat = smoothed_weights(ratios(values))
    assert khat > 10
    assert logsumexp(log_weights) == pytest.approx(0.0, abs=1e-9)


def test_draws_without_density_are_never_trusted():
    values = np.where(np.arange(500) < 480, -np.inf, 0.0)
    log_weights, khat = smoothed_weights(ratios(values))
    assert khat == np.inf
    np.testing.assert_allclose(np.exp(log_weights).values[0, 480:], 1 / 20)
    assert smoothed_weights(ratios(np.full(500, -np.inf)))[1] != 0.0


@pytest.mark.parametrize("tied", [150, 250])
def test_ties_among_the_largest_ratios_are_bounded_weights(tied):
    values = np.where(np.arange(500) < tied, 0.0, -1.0 - np.linspace(0, 1, 500))
    log_weights, khat = smoothed_weights(ratios(values))
    assert khat == -np.inf
    np.testing.assert_allclose(log_weights.values[0], values - logsumexp(values), atol=1e-12)
    both = xr.concat([ratios(values), ratios(np.random.default_rng(0).normal(size=500))], "task")
    alone = smoothed_weights(both.isel(task=1))[1]
    np.testing.assert_allclose(smoothed_weights(both)[1], [-np.inf, float(alone)])


def test_loo_counts_rows_of_such_a_posterior_as_bad():
    tree = conjugate_trees.tree(conjugate_trees.problem())
    stats = tree["sample_stats"].to_dataset()
    noise = np.random.default_rng(0).normal(size=stats["log_p_task"].shape)
    tree["sample_stats"].dataset = stats.assign(log_p_task=stats["log_p_task"] + 1e4 * noise)
    table = loo_by_task(tree)
    assert np.isfinite(table["elpd_loo"]).all()
    assert (table["num_bad_k"] == table["num_rows"]).all()
    assert "in 0 of 2 tasks" in plot_khat(tree).get_title(loc="left")
    assert (psis_khat(tree).khat_task > 10).all()


def test_a_task_called_as_the_total_keeps_its_row():
    tree = conjugate_trees.tree(conjugate_trees.problem(), labels=["(all)", "b"])
    assert list(loo_by_task(tree).index) == ["'(all)'", "b", "(all)"]


def test_fits_of_other_rows_are_not_compared():
    tasks = conjugate_trees.problem((8, 8))
    one, other = conjugate_trees.tree(tasks), conjugate_trees.tree(tasks, seed=1)
    compare_fits({"one": one, "other": other})
    turned = [(x[::-1], y[::-1]) for x, y in tasks]
    with pytest.raises(ValueError, match="same rows of the same tasks in the same order"):
        compare_fits({"one": one, "other": conjugate_trees.tree(turned)})


def test_restarts_are_compared_by_label():
    def tree(order):
        means = {"a": 0.0, "b": 50.0, "c": -50.0}
        w = np.random.default_rng(0).normal(size=(1, 200, 3))
        w = w - w.mean(1, keepdims=True) + [means[task] for task in order]
        posterior = xr.Dataset({"w": (("chain", "draw", "task"), w)}, {"task": list(order)})
        history = xr.Dataset({"loss": ("step", np.zeros(60))})
        return xr.DataTree.from_dict({"posterior": posterior, "history": history})

    spread = restart_spread({"0": tree("abc"), "1": tree("cab")})
    np.testing.assert_allclose(spread["distance"], 0.0, atol=1e-9)
    with pytest.raises(ValueError, match="other labels in 'w'"):
        restart_spread({"0": tree("abc"), "1": tree("abc").map_over_datasets(_renamed)})


def _renamed(data):
    return data.assign_coords(task=["a", "b", "d"]) if "task" in data.dims else data


def test_a_report_of_few_draws_and_one_row_leaves_out_what_cannot_be_told():
    X = np.linspace(-1, 1, 24)[:, None]
    data = TaskData.regression(X, X[:, 0], ["a", "b", "c"] * 8).with_intercept()
    fitted = replace(SHARED, fitting={"num_steps": 40}).fit(data)
    tree = to_datatree(fitted, data, rows=data.new_rows([[0.5]], ["b"], [0.5]), num_samples=20)
    assert tree["predictions"]["task"].values.tolist() == ["b"]
    names = [picture.name for part in report_sections(tree) for picture in part.pictures]
    assert "khat" not in names and {"relatedness", "coverage", "elbo"} <= set(names)
    for part in report_sections(tree):
        for picture in part.pictures:
            picture.draw().figure.clear()
