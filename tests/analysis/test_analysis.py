"""Metrics, baselines, tables, and the data on their plots."""

import matplotlib as mpl
import numpy as np
import pytest
import torch

from benchmarks.known_groups import own_group_share
from pyro_vmtl.analysis import (
    classification_metrics,
    expected_calibration_error,
    regression_metrics,
    relatedness_table,
)
from pyro_vmtl.analysis.baselines import logistic_regression_per_task, logistic_regression_pooled

mpl.use("agg")


@pytest.fixture
def proba():
    return np.random.default_rng(0).dirichlet([1.0, 1.0, 1.0], size=200)


def test_metrics_against_a_loop(proba):
    rng = np.random.default_rng(1)
    y, tasks = rng.choice(["u", "v", "w"], 200), rng.choice(["b", "a"], 200)
    table = classification_metrics(proba, y, tasks, ["u", "v", "w"])
    assert list(table.index) == list(dict.fromkeys(tasks))
    for task, row in table.iterrows():
        hits, nll, count = 0, 0.0, 0
        for p, label, t in zip(proba, y, tasks, strict=True):
            if t == task:
                hits += "uvw"[p.argmax()] == label
                nll -= np.log(p["uvw".index(label)])
                count += 1
        assert row["accuracy"] == pytest.approx(hits / count)
        assert row["nll"] == pytest.approx(nll / count)


def test_calibration_error_against_a_loop(proba):
    truth = np.random.default_rng(2).integers(0, 3, 200)
    total = 0.0
    for b in range(15):
        inside = [
            (p.max(), p.argmax() == t)
            for p, t in zip(proba, truth, strict=True)
            if b / 15 <= p.max() < (b + 1) / 15
        ]
        if inside:
            confidence, hit = np.array(inside, dtype=float).T
            total += len(inside) / 200 * abs(confidence.mean() - hit.mean())
    assert expected_calibration_error(proba, truth) == pytest.approx(total)
    certain = np.eye(3)[truth]
    assert expected_calibration_error(certain, truth) == 0


def test_calibrated_probabilities_have_a_small_error():
    rng = np.random.default_rng(3)
    proba = rng.dirichlet([1.0, 1.0, 1.0], size=50_000)
    truth = (proba.cumsum(1) > rng.random((50_000, 1))).argmax(1)
    # 15 bins of about 3,000 rows have gaps of about 0.5 / sqrt(3000) = 0.01
    assert expected_calibration_error(proba, truth) < 0.015


def test_regression_metrics_by_hand():
    y = np.array([1.0, 3.0, 5.0, 7.0])
    mean = np.array([1.0, 2.0, 5.0, 9.0])
    cdf = np.array([0.5, 0.76, 0.24, 0.04])
    log_density = np.array([-1.0, -2.0, -3.0, -5.0])
    table = regression_metrics(mean, log_density, cdf, y, ["a", "a", "b", "b"])
    assert list(table.index) == ["a", "b"]
    variance = 5.0  # of 1, 3, 5, 7
    expected = {
        "a": [0.5**0.5, 0.5 / variance, 1.5, 0.5, 1.0],
        "b": [2.0**0.5, 2.0 / variance, 4.0, 0.0, 0.5],
    }
    for task, values in expected.items():
        np.testing.assert_allclose(table.loc[task], values)
    assert list(table.columns) == ["rmse", "nmse", "nll", "coverage_50", "coverage_90"]


def test_coverage_of_calibrated_predictions_is_the_nominal_one():
    cdf = np.random.default_rng(0).random(40_000)
    table = regression_metrics(cdf, cdf, cdf, cdf, [0] * len(cdf))
    # 5 standard errors of a fraction of 40,000
    np.testing.assert_allclose(table["coverage_50"], 0.5, atol=5 * 0.5 / 200)
    np.testing.assert_allclose(table["coverage_90"], 0.9, atol=5 * 0.3 / 200)


def test_baselines_learn_and_keep_their_tasks_apart():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    tasks = ["a"] * 200 + ["b"] * 200
    sign = np.repeat([1, -1], 200)
    y = (sign * X[:, 0] > 0).astype(int)
    alone = logistic_regression_per_task(X, y, tasks, X, tasks, [0, 1])
    pooled = logistic_regression_pooled(X, y, X, [0, 1])
    assert (alone.argmax(1) == y).mean() > 0.95
    assert (pooled.argmax(1) == y).mean() < 0.7
    np.testing.assert_allclose(alone.sum(1), 1)


def test_baselines_give_classes_they_never_saw_no_probability():
    X, tasks = np.array([[0.0], [1.0], [0.1], [1.1], [0.5]]), ["a"] * 4 + ["b"]
    proba = logistic_regression_per_task(X, np.array(list("uvuvw")), tasks, X, tasks, list("uvw"))
    assert (proba[:4, 2] == 0).all() and (proba[4] == [0, 0, 1]).all()
    single = logistic_regression_pooled(X[:3], np.array(list("uvw")), X, list("uvw"))
    np.testing.assert_allclose(single.sum(1), 1)


@pytest.fixture
def table():
    draws = torch.rand(500, 3, 4)
    draws[:, range(3), range(3)] = 0
    draws = draws / draws.sum(-1, keepdim=True)
    return draws, relatedness_table(draws, ["x", 7, ("y", 1)])


def test_relatedness_table_summarises_the_draws(table):
    draws, frame = table
    assert frame.index.name == "task"
    assert list(frame.index) == ["x", 7, ("y", 1)]
    assert np.isnan(frame.loc["x", ("x", "mean")])
    values = draws[:, 0, 1].numpy()
    assert frame.loc["x", (7, "mean")] == pytest.approx(values.mean(), rel=1e-5)
    assert frame.loc["x", (7, "5%")] == pytest.approx(np.quantile(values, 0.05), rel=1e-5)
    assert frame.loc["x", ("base", "95%")] == pytest.approx(
        np.quantile(draws[:, 0, 3].numpy(), 0.95), rel=1e-5
    )
    means = frame.xs("mean", axis=1, level=1)
    np.testing.assert_allclose(means.sum(axis=1), 1, rtol=1e-5)


def test_own_group_share_leaves_the_base_aside():
    mean = np.array([[np.nan, 0.2, 0.2, 0.6], [0.0, np.nan, 0.5, 0.5], [0.1, 0.1, np.nan, 0.8]])
    np.testing.assert_allclose(own_group_share(mean, [0, 0, 1]), [0.5, 0.0, 0.0])
