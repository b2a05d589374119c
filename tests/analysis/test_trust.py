"""Pareto k-hat and leave-one-out cross-validation, against closed forms and ArviZ."""

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from conjugate_trees import left_out, problem, tree

from pyro_vmtl.analysis import compare_fits, loo, loo_by_task, plot_khat, psis_khat, report_sections
from pyro_vmtl.analysis.arviz_api import az

mpl.use("agg")


@pytest.fixture(scope="module")
def tasks():
    return problem()


@pytest.mark.filterwarnings("error")
def test_khat_of_the_exact_posterior_is_good_and_of_a_narrow_one_is_not(tasks):
    exact = psis_khat(tree(tasks))
    assert exact.khat == -np.inf and (exact.khat_task == -np.inf).all()  # all ratios are the same
    assert exact.attrs == {"num_samples": 1000, "good_k": pytest.approx(2 / 3)}
    nearly = psis_khat(tree(tasks, width=1.1))
    assert nearly.khat < 0.5 and (nearly.khat_task < 0.5).all()
    # Half as wide: p / q has a Pareto tail with shape 1 - 0.5^2 in every direction.
    narrow = psis_khat(tree(tasks, width=[1.0, 0.5], num_samples=4000))
    assert narrow.khat_task.sel(task="t0") == -np.inf
    assert narrow.khat_task.sel(task="t1") == pytest.approx(0.75, abs=0.15)
    assert narrow.khat > 0.6


def test_khat_is_that_of_arviz(tasks):
    data = tree(tasks, width=0.6)
    stats = data["sample_stats"].dataset
    expected = (stats.log_q_task - stats.log_p_task).azstats.psislw(dim=["chain", "draw"])[1]
    xr.testing.assert_allclose(psis_khat(data).khat_task, expected, rtol=1e-12)


def test_khat_says_what_is_missing(tasks):
    with pytest.raises(ValueError, match="20 draws, expected at least 25"):
        psis_khat(tree(tasks, num_samples=20))
    data = tree(tasks)
    stack = xr.DataTree.from_dict({"stack": xr.Dataset(), "shared": data})
    with pytest.raises(ValueError, match=r"Pass the tree of a member, such as data\['shared'\]"):
        psis_khat(stack)
    assert psis_khat(stack["shared"]).khat == -np.inf
    data["sample_stats"]["log_p"][0, 3] = np.nan
    with pytest.raises(ValueError, match="not a number"):
        psis_khat(data)


def test_the_picture_of_khat_shows_the_values_and_the_zones(tasks):
    data = tree(tasks, width=[1.1, 0.1], num_samples=4000)
    ax, khat = plot_khat(data), psis_khat(data)
    shown = np.clip([*khat.khat_task.values, khat.khat.item()], 0.0, 1.2)
    np.testing.assert_allclose([line.get_xdata().item() for line in ax.lines], shown)
    assert [line.get_marker() for line in ax.lines] == ["o", "X", "D"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["t0", "t1", "all together"]
    assert {"good", "usable", "do not trust"} <= {t.get_text() for t in ax.texts}
    assert ax.get_title(loc="left").endswith("in 1 of 2 tasks")


def test_the_picture_of_khat_with_many_tasks_shows_the_worst():
    tasks = problem((3,) * 40)
    labels = [f"a school with a rather long name {i}" for i in range(40)]
    data = tree(tasks, width=[0.2] + [1.0] * 39, num_samples=200, labels=labels)
    names = [t.get_text() for t in plot_khat(data).get_yticklabels()]
    assert len(names) == 31 and names[-2:] == ["a school wi…ong name 0", "all together"]


@pytest.mark.parametrize("kl_weight", [1.0, 0.5])
def test_loo_is_that_of_fits_without_each_row(tasks, kl_weight):
    data = tree(tasks, width=1.2, num_samples=4000, kl_weight=kl_weight)
    result, table = loo(data), loo_by_task(data)
    expected = np.concatenate([left_out(x, y, kl_weight) for x, y in tasks])
    # 4,000 draws: a log mean of weighted densities has an error of a few percent at most
    np.testing.assert_allclose(result.elpd_i, expected, atol=0.04)
    assert result.elpd == pytest.approx(expected.sum(), abs=0.2)
    assert list(table.index) == ["t0", "t1", "(all)"]
    assert table.loc["t1", "elpd_loo"] == pytest.approx(expected[14:].sum(), abs=0.1)
    # with 9 or 10 rows below the root, as ArviZ has changed its mind
    assert table.loc["t1", "se"] == pytest.approx(np.sqrt(10) * expected[14:].std(), rel=0.08)
    assert list(table["num_rows"]) == [14, 10, 24]
    # some two coefficients in each task, less what the prior knows; see test above for errors
    assert table.loc["t0", "p_loo"] == pytest.approx(2.0, abs=1.0 / kl_weight)


@pytest.mark.filterwarnings("error")
def test_a_task_of_one_row_has_no_standard_error():
    single = tree(problem((6, 3)), width=1.2).isel(row=slice(7))
    table = loo_by_task(single)
    assert table.loc["t1", "num_rows"] == 1 and np.isnan(table.loc["t1", "se"])
    assert table.loc["t0", "se"] > 0 and table.loc["(all)", "se"] > 0


def test_loo_of_one_task_is_that_of_arviz(tasks):
    data = tree(tasks[:1], width=1.2)
    stats = data["sample_stats"]
    expected = az.loo_approximate_posterior(data, stats["log_p"], stats["log_q"], pointwise=True)
    result = loo(data)
    assert (result.elpd, result.se, result.p) == pytest.approx(
        (expected.elpd, expected.se, expected.p), rel=1e-12
    )
    np.testing.assert_allclose(result.pareto_k, expected.pareto_k, rtol=1e-12)


def test_rows_out_of_order_and_row_weights_are_left_out_as_they_count(tasks):
    data = tree(tasks, width=1.2)
    predictive_mixture = np.random.default_rng(0).permutation(24)
    shuffled = data.map_over_datasets(
        lambda d: d.isel(row=predictive_mixture) if "row" in d.dims else d
    )
    np.testing.assert_allclose(loo(shuffled).elpd_i, loo(data).elpd_i.values[predictive_mixture])
    # A row that did not count in the fit is predicted by all draws, weighed by p / q alone.
    weights = xr.Dataset({"sample_weight": ("row", np.where(np.arange(24) == 3, 0.0, 1.0))})
    data["constant_data"] = xr.DataTree(weights)
    stats, y = data["sample_stats"], data["log_likelihood"]["y"].isel(row=3)
    ratio = (stats["log_p_task"] - stats["log_q_task"]).sel(task="t0")
    log_weights, _ = (-ratio).azstats.psislw(dim=["chain", "draw"])
    expected = np.log(np.exp(log_weights + y).sum())
    assert loo(data).elpd_i[3] == pytest.approx(expected.item(), abs=1e-9)


def test_fits_of_the_same_rows_are_ranked(tasks):
    fits = {"poor": tree(tasks, kl_weight=30.0), "exact": tree(tasks, width=1.2)}
    table = compare_fits(fits)
    assert list(table.index) == ["exact", "poor"] and table.loc["exact", "weight"] > 0.8
    difference = loo(fits["poor"]).elpd_i.values - loo(fits["exact"]).elpd_i.values
    assert table.loc["poor", "elpd_diff"] == pytest.approx(difference.sum())
    assert table.loc["poor", "dse"] == pytest.approx(np.sqrt(24) * difference.std())
    az.plot_compare(table)  # takes it
    with pytest.raises(ValueError, match="'other' has 14 rows and 'exact' has 24"):
        compare_fits({"exact": fits["exact"], "other": tree(tasks[:1])})


def test_a_report_lists_the_rows_with_the_lowest_density(tasks):
    data = tree(tasks, width=[1.2, 0.7])
    result = loo(data)
    _, table = report_sections(data)[-1].tables
    lowest = np.sort(result.elpd_i.values)[:10]
    np.testing.assert_allclose(table.frame["log density"], lowest)
    assert table.frame.index[0] == result.elpd_i.values.argmin()
    trusted = (result.pareto_k <= result.good_k).sel(row=table.frame.index)
    assert table.frame["trusted"].eq("yes").tolist() == trusted.values.tolist()
    assert (
        table.frame["task"].tolist()
        == result.elpd_i["task"].sel(row=table.frame.index).values.tolist()
    )
    untrusted = tree(tasks, width=0.02)
    assert len(report_sections(untrusted)[-1].tables) == 1
