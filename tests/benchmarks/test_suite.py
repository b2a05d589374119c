"""The suite: its data sets, baselines, ranks and verdicts."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.linear_model import Ridge
from typer.testing import CliRunner

from benchmarks import suite as module
from benchmarks.baselines import (
    ALPHA_GRID,
    boosted_trees_classification,
    boosted_trees_regression,
    ridge_per_task,
    ridge_pooled,
)
from benchmarks.command import app
from benchmarks.datasets import SUITE, GroupedTasks, OfficeCaltech
from benchmarks.datasets.digits import Digits, DigitsAngle
from benchmarks.datasets.suite import UNRELATED
from benchmarks.gaussian_process import gaussian_process
from benchmarks.suite_scores import average_ranks, judge, plot_average_ranks, suite_means
from pyro_vmtl.analysis import (
    ALL_TASKS,
)


def tidy(values):
    """Results of (row, method, metric) with values of three seeds."""
    return pd.DataFrame(
        [
            {"row": row, "method": method, "metric": metric, "value": value, "seed": seed}
            | {"task": ALL_TASKS}
            for (row, method, metric), numbers in values.items()
            for seed, value in enumerate(numbers)
        ]
    )


RESULTS = tidy(
    {
        ("a", "default", "accuracy"): [0.9, 0.8, 0.85],
        ("a", "default", "nll"): [0.3, 0.5, 0.4],
        ("a", "default", "ece"): [0.02, 0.03, 0.04],
        ("a", "pooled", "accuracy"): [0.7, 0.7, 0.7],
        ("a", "pooled", "nll"): [0.2, 0.2, 0.2],
        ("a", "per-task", "accuracy"): [0.8, 0.8, 0.8],
        ("a", "per-task", "nll"): [0.6, 0.6, 0.6],
        ("b", "default", "nmse"): [0.5, 0.4, 0.6],
        ("b", "default", "nll"): [1.0, 1.2, 1.1],
        ("b", "default", "coverage_90"): [0.9, 0.9, 0.9],
        ("b", "pooled", "nmse"): [0.4, 0.4, 0.4],
        ("b", "pooled", "nll"): [2.0, 2.0, 2.0],
    }
)


def test_means_and_ranks_are_those_of_means_over_splits():
    means = suite_means(RESULTS)
    assert means.loc[("a", "default", "accuracy"), "mean"] == pytest.approx(0.85)
    assert means.loc[("a", "default", "accuracy"), "se"] == pytest.approx(0.05 / np.sqrt(3))
    ranks = average_ranks(RESULTS)
    assert ranks.loc["default"].to_dict() == {"main": 1.5, "nll": 1.5, "rows": 2}
    assert ranks.loc["pooled"].to_dict() == {"main": 2.0, "nll": 1.5, "rows": 2}
    assert ranks.loc["per-task"].to_dict() == {"main": 2.0, "nll": 3.0, "rows": 1}
    ax = Figure().subplots()
    plot_average_ranks(ranks, ax)
    assert ax.get_yticklabels()[0].get_text() == "default (2)"
    assert ax.lines[0].get_xdata().tolist() == ranks["main"].tolist()


def test_a_verdict_counts_standard_errors_from_the_best_other():
    table = judge(RESULTS, "default", ("per-task", "pooled", "hierarchical"))
    a, b = table.loc["a"], table.loc["b"]
    assert a["main", "best other"] == "per-task" and b["main", "best other"] == "pooled"
    assert a["main", "gain"] == pytest.approx(0.05 / (0.05 / np.sqrt(3)))
    assert a["nll", "gain"] == pytest.approx(-0.2 / (0.1 / np.sqrt(3)))
    assert b["main", "gain"] == pytest.approx(-0.1 / (0.1 / np.sqrt(3)))
    assert b["nll", "gain"] > 0 and a["calibration", "ece"] == pytest.approx(0.03)


def test_ridge_leaves_one_row_out():
    """Against refits without each row, with the penalty that was found."""
    rng = np.random.RandomState(0)
    X, X_new = rng.randn(12, 3), rng.randn(4, 3)
    y = X @ [1.0, -1.0, 0.5] + rng.randn(12)
    mean, std = ridge_pooled(X, y, X_new)

    def errors(alpha):
        left = [np.arange(12) != i for i in range(12)]
        fits = [Ridge(alpha).fit(X[keep], y[keep]) for keep in left]
        return np.mean([(fits[i].predict(X[[i]])[0] - y[i]) ** 2 for i in range(12)])

    best = min(ALPHA_GRID, key=errors)
    np.testing.assert_allclose(mean, Ridge(best).fit(X, y).predict(X_new), rtol=1e-6)
    np.testing.assert_allclose(std, np.sqrt(errors(best)), rtol=1e-6)
    mean, std = ridge_pooled(X[:2], y[:2], X_new)
    assert (mean == y[:2].mean()).all() and (std > 0).all()


def test_ridge_regressions_keep_their_tasks_apart():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    tasks = ["a"] * 200 + ["b"] * 200
    y = np.repeat([2.0, -2.0], 200) * X[:, 0] + 0.3 * rng.normal(size=400)
    mean, std = ridge_per_task(X, y, tasks, X, tasks)
    assert np.std(mean - y) < 0.35 and np.allclose(std, 0.3, atol=0.05)
    mean, std = ridge_pooled(X, y, X)
    assert np.std(mean - y) > 1.5 and np.allclose(std, 2.0, atol=0.2)


def test_trees_see_the_task():
    """The label is the task: no feature tells it."""
    rng = np.random.RandomState(0)
    X, tasks = rng.randn(60, 2), ["a", "b", "c"] * 20
    y = np.array(tasks)
    proba = boosted_trees_classification(X, y, tasks, X[:6], tasks[:6], ["c", "b", "a", "none"])
    assert proba.shape == (6, 4) and (proba[:, 3] == 0).all()
    assert [["c", "b", "a"][i] for i in proba.argmax(1)] == tasks[:6]
    mean, std = boosted_trees_regression(X, (y == "b") * 5.0, tasks, X[:6], tasks[:6])
    np.testing.assert_allclose(mean, (y[:6] == "b") * 5.0, atol=0.1)
    assert (std > 0).all()


def test_a_gaussian_process_shares_between_tasks_that_are_alike():
    pytest.importorskip("gpytorch")
    rng = np.random.RandomState(0)
    X = rng.uniform(-2, 2, (60, 1))
    tasks = ["a"] * 28 + ["b"] * 4 + ["c"] * 28
    sign = np.array([1.0] * 32 + [-1.0] * 28)
    y = sign * np.sin(2 * X[:, 0]) + 0.05 * rng.randn(60)
    X_new = np.linspace(-1.8, 1.8, 20)[:, None]
    mean, std = gaussian_process(X, y, tasks, X_new, ["b"] * 20)
    # task b has 4 rows of its own; what it is comes from a
    assert np.mean((mean - np.sin(2 * X_new[:, 0])) ** 2) < 0.1
    assert (std > 0.02).all() and np.isfinite(std).all()


def test_permuted_tasks_have_the_same_images_with_other_names():
    plain = Digits(percent=5, angles=UNRELATED.angles).split(3)
    split = UNRELATED.split(3)
    np.testing.assert_array_equal(split.X_train, plain.X_train)
    for angle in UNRELATED.angles:
        of_task = np.array([t == angle for t in split.tasks_train])
        pairs = zip(plain.y_train[of_task], split.y_train[of_task], strict=True)
        names = set(pairs)
        assert len(names) == 10 and len({b for _, b in names}) == 10
        assert (names == {(c, c) for c in range(10)}) == (angle not in UNRELATED.permuted)
    assert (UNRELATED.split(4).y_test != split.y_test).any()
    with pytest.raises(ValueError, match=r"permuted has \[45\]"):
        Digits(permuted=(45,))


def test_groups_are_as_they_say():
    data_set = GroupedTasks(tasks=6, groups=2, rows=500, noise=0.1)
    split = data_set.split(0)
    tasks = np.array(split.tasks_train)
    w = [
        np.linalg.lstsq(split.X_train[tasks == t], split.y_train[tasks == t], rcond=None)[0]
        for t in range(6)
    ]
    distance = np.linalg.norm(np.array(w)[:, None] - np.array(w)[None], axis=-1)
    same = np.equal.outer(data_set.group, data_set.group)
    assert distance[same].max() < distance[~same].min()
    # 500 rows: the noise's standard deviation is known to some 3 %
    residual = split.y_train[tasks == 0] - split.X_train[tasks == 0] @ w[0]
    assert residual.std() == pytest.approx(0.1, rel=0.1)
    assert not np.array_equal(data_set.split(0, validation=True).y_train, split.y_train)
    with pytest.raises(ValueError, match="groups is 7, expected 1 to 6"):
        GroupedTasks(tasks=6, groups=7)


def test_the_suite_has_what_was_promised():
    assert len(SUITE) == 28 and sum(len(sets) for sets in SUITE.values()) == 32
    assert len({str(s) for sets in SUITE.values() for s in sets}) == 32
    lists = SUITE["office-caltech surf lists"]
    assert [s.split_label(0) for s in lists] == ["mrn 5 %", "mrn 10 %", "mrn 20 %"]
    assert all(isinstance(s, OfficeCaltech) and s.features == "surf" for s in lists)


@pytest.mark.slow
def test_the_command_runs_each_row_and_goes_on(tmp_path, monkeypatch):
    rows = {
        "digits-angle 5 rows": (DigitsAngle(rows=5),),
        "two draws": (GroupedTasks(tasks=4, groups=2, rows=5), GroupedTasks(tasks=2, groups=2)),
    }
    monkeypatch.setattr(module, "SUITE", rows)
    command = ["suite", "--seeds", "2", "--jobs", "1", "--out", str(tmp_path / "s")]
    command += ["--methods", "per-task,pooled,boosted-trees"]
    runner = CliRunner(env={"COLUMNS": "140"})
    result = runner.invoke(app, command)
    assert result.exit_code == 0, result.output
    results = pd.read_parquet(tmp_path / "s" / "results.parquet")
    assert set(results["row"]) == set(rows)
    runs = results.drop_duplicates(["row", "data_set", "seed", "method", "seconds"])
    assert runs.groupby("row").size().to_dict() == {"digits-angle 5 rows": 6, "two draws": 6}
    assert (tmp_path / "s" / "ranks.png").read_bytes().startswith(b"\x89PNG")
    files = {f: f.stat().st_mtime_ns for f in (tmp_path / "s").rglob("trials/*.parquet")}
    assert len(files) == 12
    assert runner.invoke(app, command).exit_code == 0
    assert {f: f.stat().st_mtime_ns for f in files} == files


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "5"], "--rows does not apply to the suite"),
        (["--methods", "magic"], "--methods has 'magic'"),
    ],
)
def test_bad_input_of_the_suite_is_an_error(arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "SUITE", {"angle": (DigitsAngle(rows=5),)})
    result = CliRunner().invoke(app, ["suite", *arguments])
    assert result.exit_code == 2 and message in result.output
    assert not list(tmp_path.iterdir())


def test_missing_data_are_an_error_before_any_fit(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYRO_VMTL_DATA", raising=False)
    result = CliRunner().invoke(app, ["suite", "--methods", "pooled"])
    assert result.exit_code == 2 and "PYRO_VMTL_DATA" in result.output
    assert not list(tmp_path.iterdir())
