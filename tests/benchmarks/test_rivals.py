"""Models of other libraries for many groups: what they predict, and their errors."""

import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.stats import nbinom, norm
from typer.testing import CliRunner

from benchmarks import lightgbm_task, mixed_model, nuts, runs
from benchmarks.boosted_mixed_model import (
    boosted_mixed_model,
    boosted_mixed_model_classes,
    boosted_mixed_model_counts,
)
from benchmarks.command import app
from benchmarks.datasets import GroupedTable
from benchmarks.lightgbm_task import lightgbm_classes, lightgbm_counts, lightgbm_regression
from benchmarks.methods import BASELINES, ON_REQUEST, methods_for
from benchmarks.mixed_model import (
    linear_mixed_model,
    linear_mixed_model_classes,
    linear_mixed_model_counts,
)
from benchmarks.nuts import nuts_classes, nuts_counts, nuts_regression
from benchmarks.trials import Trial, run_trial

TASKS, ROWS = 20, 20


def rows(targets, num_tasks=TASKS, num_rows=ROWS, num_test=10):
    """Training and test rows of tasks whose slope of the first of two features varies."""
    rng = np.random.RandomState(0)
    x = rng.randn(num_tasks, num_rows + num_test, 2)
    w = np.array([1.0, 0.3]) + rng.randn(num_tasks, 1, 2) * [1.0, 0.0]
    y = targets((w * x).sum(axis=2) + 0.7 * rng.randn(num_tasks, 1), rng)
    task = np.repeat([f"task {t}" for t in range(num_tasks)], num_rows + num_test).reshape(y.shape)
    (X, y, t), (X_new, y_new, t_new) = (
        (x[:, part].reshape(-1, 2), y[:, part].ravel(), [*task[:, part].ravel()])
        for part in (slice(num_rows), slice(num_rows, None))
    )
    return (X, y, t, X_new, t_new), y_new


def real(eta, rng):
    return 20 + 5 * (eta + 0.5 * rng.randn(*eta.shape))


def two_classes(eta, rng):
    return np.where(rng.rand(*eta.shape) < 1 / (1 + np.exp(-2 * eta)), "yes", "no")


def three_classes(eta, rng):
    return np.digitize(eta + 0.3 * rng.randn(*eta.shape), [-0.7, 0.7])


def counts(eta, rng):
    return rng.negative_binomial(5, 5 / (5 + np.exp(0.6 * eta + 1)))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Try two sizes of trees only, and draw less."""
    grid = [{"num_leaves": leaves, "min_data_in_leaf": 5} for leaves in (2, 8)]
    monkeypatch.setattr(lightgbm_task, "GRID", grid)
    for name, number in {"NUM_CHAINS": 1, "NUM_WARMUP": 120, "NUM_DRAWS": 120}.items():
        monkeypatch.setattr(nuts, name, number)


slow = pytest.mark.slow
SELECTED = partial(linear_mixed_model, selected=True)
SELECTED_CLASSES = partial(linear_mixed_model_classes, selected=True)
SELECTED_COUNTS = partial(linear_mixed_model_counts, selected=True)


@pytest.mark.parametrize(
    ("predict", "share"),
    # the noise is 0.25 of a variance of about 2.9, and a slope has 20 rows
    [
        (SELECTED, 0.15),
        (lightgbm_regression, 0.5),
        (boosted_mixed_model, 0.9),
        pytest.param(nuts_regression, 0.15, marks=slow),
    ],
)
def test_real_targets_beat_their_mean(predict, share):
    data, y = rows(real)
    mean, std = predict(*data)
    assert mean.shape == std.shape == y.shape
    assert np.mean((mean - y) ** 2) < share * y.var()
    assert -norm.logpdf(y, mean, std).mean() < -norm.logpdf(y, y.mean(), y.std()).mean()
    assert 0.82 < np.mean(np.abs(y - mean) < 1.645 * std) < 0.98


@pytest.mark.parametrize(
    "predict",
    [
        linear_mixed_model_classes,
        SELECTED_CLASSES,
        lightgbm_classes,
        boosted_mixed_model_classes,
        pytest.param(nuts_classes, marks=slow),
    ],
)
def test_two_classes_beat_their_frequencies(predict):
    data, y = rows(two_classes)
    proba = predict(*data, ["no", "yes"])
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, atol=1e-6)
    share = np.mean(y == "yes")
    trivial = -(share * np.log(share) + (1 - share) * np.log(1 - share))
    assert -np.log(np.where(y == "yes", proba[:, 1], proba[:, 0])).mean() < 0.85 * trivial
    assert abs(proba[:, 1].mean() - share) < 0.1


@pytest.mark.parametrize("predict", [lightgbm_classes, pytest.param(nuts_classes, marks=slow)])
def test_three_classes_have_three_columns(predict):
    data, y = rows(three_classes, num_tasks=10)
    proba = predict(*data, [0, 1, 2])
    assert proba.shape == (len(y), 3)
    assert -np.log(proba[np.arange(len(y)), y]).mean() < 0.9 * np.log(3)


@pytest.mark.parametrize(
    "predict",
    [
        linear_mixed_model_counts,
        SELECTED_COUNTS,
        lightgbm_counts,
        boosted_mixed_model_counts,
        pytest.param(nuts_counts, marks=slow),
    ],
)
def test_counts_beat_one_negative_binomial(predict):
    data, y = rows(counts)
    rate, dispersion = predict(*data)
    assert rate.shape == dispersion.shape == (len(rate), len(y)) and (dispersion >= 1).all()
    assert np.mean((rate.mean(axis=0) - y) ** 2) < 0.9 * y.var()
    excess = np.maximum(dispersion - 1, 1e-9)
    shape = rate / excess
    likelihood = nbinom.pmf(y, shape, 1 / (1 + excess)).mean(axis=0)
    one = y.mean() ** 2 / (y.var() - y.mean())
    assert np.log(likelihood).mean() > nbinom.logpmf(y, one, one / (one + y.mean())).mean()


def test_aic_chooses_the_slope_that_varies():
    (X, y, tasks, _, _), _ = rows(real)
    assert mixed_model._chosen_slopes((y - y.mean()) / y.std(), (X, tasks), "gaussian") == [0]


def test_the_search_for_slopes_ends_in_time(monkeypatch):
    tried = []

    def fit(y, rows, slopes, likelihood):
        tried.append(slopes)
        return real_fit(y, rows, slopes, likelihood)

    real_fit = mixed_model._fit
    monkeypatch.setattr(mixed_model, "_fit", fit)
    monkeypatch.setattr(mixed_model, "MAX_SECONDS", 0.0)
    (X, y, tasks, _, _), _ = rows(real)
    # a choice between none and all, as one of the two slopes varies
    assert mixed_model._chosen_slopes(y, (X, tasks), "gaussian") == [0, 1]
    assert tried == [[], [0, 1]]


def test_slopes_that_cannot_be_fitted_are_not_chosen(monkeypatch):
    class Model:
        def __init__(self, loss):
            self.get_current_neg_log_likelihood = lambda: loss

    def fit(y, rows, slopes, likelihood):
        if 1 in slopes:
            raise RuntimeError
        # slope 2 is the best alone, and slope 0 is worth more than 1 beside it
        return Model({(): 10.0, (0,): 7.0, (2,): 6.0, (2, 0): 4.5}[tuple(slopes)])

    monkeypatch.setattr(mixed_model, "_fit", fit)
    assert mixed_model._chosen_slopes(np.zeros(3), (np.zeros((3, 3)), "abc"), "gaussian") == [2, 0]


def test_gpboost_refuses_three_classes():
    data, _ = rows(three_classes, num_tasks=3)
    with pytest.raises(ValueError, match="There are 3 classes, expected 2"):
        linear_mixed_model_classes(*data, [0, 1, 2])


@pytest.mark.parametrize(
    ("predict", "package"),
    [
        (linear_mixed_model, "gpboost"),
        (lightgbm_regression, "lightgbm"),
        (boosted_mixed_model, "gpboost"),
        (nuts_regression, "numpyro"),
    ],
)
def test_a_missing_package_is_told_with_the_remedy(predict, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    data, _ = rows(real, num_tasks=2)
    with pytest.raises(ImportError, match=rf"{package} cannot be imported .*'\.\[benchmark\]'"):
        predict(*data)


def test_a_task_without_rows_is_predicted():
    (*train, X_new, tasks_new), _ = rows(real, num_tasks=5)
    for predict in (SELECTED, lightgbm_regression):
        mean, std = predict(*train, X_new, ["new"] * len(tasks_new))
        assert np.isfinite(mean).all() and (std > 0).all()


@pytest.mark.parametrize("table", ["epil", "Contraception", "radon"])
def test_every_kind_of_targets_has_all_rivals_on_request(table, monkeypatch, tmp_path):
    def record(trials, out, *, jobs):
        run.extend(trial.method for trial in trials)
        return runs.Outcome(pd.DataFrame(), {})

    run = []
    monkeypatch.setattr(runs, "run_benchmark", record)
    args = ["grouped-table", "--table", table, "--seeds", "1", "--out", str(tmp_path)]
    assert CliRunner().invoke(app, args).exit_code == 0
    assert set(run) == {*methods_for(GroupedTable(table=table))} - {*ON_REQUEST} and run
    run.clear()
    assert CliRunner().invoke(app, [*args, "--methods", ",".join(ON_REQUEST)]).exit_code == 0
    assert run == [*ON_REQUEST]


def test_coverage_of_counts_is_that_of_the_randomised_transform(monkeypatch):
    def constant(X, y, tasks, X_new, tasks_new):
        return np.full((1, len(X_new)), 8.0), np.full((1, len(X_new)), 4.0)

    monkeypatch.setitem(BASELINES["counts"], "constant", constant)
    table = GroupedTable(table="epil")
    results = run_trial(Trial(table, 0, "constant", None))
    overall = results[results["task"] == "(all)"].set_index("metric")["value"]
    y = table.split(0).y_test
    same = nbinom(8 / 3, 1 / 4)  # mean 8, variance 4 * 8
    low, high = same.cdf(y - 1), same.cdf(y)
    inside = (np.minimum(high, 0.95) - np.maximum(low, 0.05)).clip(min=0) / (high - low)
    error = np.sqrt((inside * (1 - inside)).sum()) / len(y)
    assert 0 < error < 0.03 and abs(overall["coverage_90"] - inside.mean()) < 3 * error
    np.testing.assert_allclose(overall["nll"], -same.logpmf(y).mean(), rtol=1e-6)
    np.testing.assert_allclose(overall["nmse"], np.mean((y - 8.0) ** 2) / y.var(), rtol=1e-6)
