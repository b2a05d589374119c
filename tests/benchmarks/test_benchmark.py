"""Benchmarks: tidy tables, going on where it stopped, and what is refused."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from benchmarks import runs as module
from benchmarks.command import app
from benchmarks.datasets.digits import Digits, DigitsAngle
from benchmarks.methods import BASELINES, all_presets, methods_for
from benchmarks.runs import make_trials, run_benchmark
from benchmarks.trials import Trial, run_trial
from pyro_vmtl.analysis import ALL_TASKS
from pyro_vmtl.methods import method as method_module

COLUMNS = ["data_set", "split", "seed", "method", "task", "metric", "value", "seconds"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Results of three methods on two splits, from the command line."""
    folder = tmp_path_factory.mktemp("results") / "angle"
    arguments = ["digits-angle", "--rows", "5", "--seeds", "2", "--jobs", "1"]
    arguments += ["--methods", "per-task,pooled,bmtl", "--out", str(folder)]
    known = all_presets("regression")
    few = {**known["bmtl"].fitting, "num_steps": 50, "learning_rate": 0.03}
    known["bmtl"] = replace(known["bmtl"], fitting=few)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "all_presets", lambda kind: known)
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "140"})
        assert result.exit_code == 0, result.output
        assert "comparison.png" in result.output and "bmtl" in result.output
        yield folder


@pytest.mark.slow
def test_the_results_are_tidy_and_complete(out):
    results = pd.read_csv(out / "results.csv", dtype={"task": str})
    assert list(results.columns) == COLUMNS
    tasks = [*map(str, range(10)), ALL_TASKS]
    metrics = ["rmse", "nmse", "nll", "coverage_50", "coverage_90"]
    assert len(results) == 3 * 2 * len(tasks) * len(metrics)
    assert not results.duplicated(["split", "seed", "method", "task", "metric"]).any()
    assert set(results["task"]) == set(tasks) and results["value"].notna().all()
    assert (results["seconds"] > 0).all()
    pd.testing.assert_frame_equal(results, pd.read_parquet(out / "results.parquet"))
    # over all rows, in degrees, and of some use
    overall = results[results["task"] == ALL_TASKS].set_index(["metric", "method"])["value"]
    assert overall["rmse", "bmtl"].between(5, 26).all()
    assert overall["nmse", "bmtl"].between(0.05, 0.9).all()
    summary = pd.read_csv(out / "summary.csv", index_col="method")
    assert set(summary.index) == {"per-task", "pooled", "bmtl"} and "nmse rank" in summary
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_it_goes_on_where_it_stopped(out):
    files = sorted((out / "trials").iterdir())
    assert len(files) == 6
    times = {file: file.stat().st_mtime_ns for file in files}
    before = pd.read_parquet(out / "results.parquet")
    lost = next(file for file in files if file.name.startswith("bmtl-1"))
    lost.unlink()
    trials = make_trials(DigitsAngle(rows=5), ["per-task", "pooled", "bmtl"], seeds=2)
    outcome = run_benchmark(trials, out, jobs=1)
    again = {file: file.stat().st_mtime_ns for file in sorted((out / "trials").iterdir())}
    assert set(again) == set(times) and not outcome.failed
    assert [f for f in files if times[f] != again[f]] == [lost]
    same = outcome.results.drop(columns="seconds")
    pd.testing.assert_frame_equal(same, before.drop(columns="seconds"))


@pytest.mark.slow
def test_results_of_other_data_are_not_mixed(out):
    arguments = ["digits-angle", "--rows", "6", "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "Choose another directory with --out" in result.output


def test_other_settings_are_another_trial(monkeypatch, tmp_path):
    ran = []

    def trial(which):
        ran.append(which.settings)
        rows = {"data_set": "digits", "split": "random", "seed": which.seed, "method": which.method}
        return pd.DataFrame([{**rows, "task": "0", "metric": "nll", "value": 1.0, "seconds": 1.0}])

    monkeypatch.setattr(module, "run_trial", trial)
    trials = make_trials(Digits(), ["vmtl"], seeds=1)
    run_benchmark(trials, tmp_path, jobs=1)
    run_benchmark(trials, tmp_path, jobs=1)
    assert len(ran) == 1
    changed = replace(trials[0], settings=replace(trials[0].settings, latent_size=5))
    outcome = run_benchmark([changed], tmp_path, jobs=1)
    assert len(ran) == 2 and len(outcome.results) == 1
    assert json.loads((tmp_path / "benchmark.json").read_text())["machine"]["cores"]


def test_a_trial_that_fails_does_not_stop_the_others(monkeypatch, tmp_path):
    def trial(which):
        if which.method == "pooled":
            raise FloatingPointError("the loss is not finite")
        rows = {"data_set": "digits", "split": "random", "seed": which.seed, "method": which.method}
        return pd.DataFrame([{**rows, "task": "0", "metric": "nll", "value": 1.0, "seconds": 1.0}])

    monkeypatch.setattr(module, "run_trial", trial)
    trials = make_trials(Digits(), ["pooled", "per-task"], seeds=1)
    outcome = run_benchmark(trials, tmp_path, jobs=1)
    assert outcome.failed == {"pooled, split 0": "FloatingPointError: the loss is not finite"}
    assert list(outcome.results["method"]) == ["per-task"]
    assert not list((tmp_path / "trials").glob("*.part"))


def test_damaged_and_foreign_files_are_errors(tmp_path, monkeypatch):
    trials = make_trials(DigitsAngle(rows=5), ["pooled"], seeds=1)
    out = tmp_path / "out"
    run_benchmark(trials, out, jobs=1)
    (file,) = (out / "trials").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(OSError, match=r"pooled.* is damaged. Delete it"):
        run_benchmark(trials, out, jobs=1)
    (out / "benchmark.json").write_text("{")
    with pytest.raises(OSError, match=r"benchmark.json is damaged. Delete it"):
        run_benchmark(trials, out, jobs=1)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(FileExistsError, match="holds no benchmark"):
        run_benchmark(trials, tmp_path / "thesis", jobs=1)


def test_an_interrupted_fit_is_no_result(monkeypatch, tmp_path):
    def interrupted(*args, **settings):
        result = real_fit(*args, **{**settings, "num_steps": 3})
        return replace(result, stopped="interrupted")

    real_fit = method_module.fit
    monkeypatch.setattr(method_module, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(make_trials(DigitsAngle(rows=5), ["bmtl"], seeds=1), tmp_path, jobs=1)
    assert not list((tmp_path / "trials").iterdir())


def test_every_method_of_the_paper_is_there():
    for data_set in (Digits(), DigitsAngle()):
        methods = methods_for(data_set)
        known = {**all_presets(data_set.kind), **BASELINES[data_set.kind]}
        assert set(methods) == set(known)
        for name in ("stl", "vstl", "bmtl", "vbmtl", "vmtl", "vmtl-ac", "paper", "default"):
            assert name in methods
    assert "official" in methods_for(Digits()) and "official" not in methods_for(DigitsAngle())


def test_validation_draws_are_not_those_that_are_reported():
    seeds = {t.seed for t in make_trials(Digits(), ["stl"], seeds=3)}
    chosen_on = {t.seed for t in make_trials(Digits(), ["stl"], seeds=3, validation=True)}
    assert seeds == {0, 1, 2} and not seeds & chosen_on


@dataclass(frozen=True)
class TenTimes(DigitsAngle):
    """The same angles in another unit."""

    def split(self, seed, *, validation=False):
        split = super().split(seed, validation=validation)
        return replace(split, y_train=10 * split.y_train, y_test=10 * split.y_test)


@pytest.mark.parametrize("method", ["pooled", "bmtl"])
def test_results_are_in_the_unit_of_the_targets(method):
    preset = all_presets("regression").get(method)
    preset = preset and replace(preset, fitting={"num_steps": 5})
    one, ten = (
        run_trial(Trial(data, 0, method, preset)).set_index(["task", "metric"])["value"].unstack()
        for data in (DigitsAngle(rows=5), TenTimes(rows=5))
    )
    np.testing.assert_allclose(ten["rmse"], 10 * one["rmse"], rtol=1e-4)
    np.testing.assert_allclose(ten["nll"], one["nll"] + np.log(10), rtol=1e-3)
    np.testing.assert_allclose(ten["nmse"], one["nmse"], rtol=1e-4)


def test_classification_counts_every_task_alike():
    (trial,) = make_trials(Digits(), ["pooled"], seeds=1)
    rows = run_trial(trial)
    assert list(rows.columns) == COLUMNS
    accuracy = rows[rows["metric"] == "accuracy"].set_index("task")["value"]
    assert len(accuracy) == 7
    assert accuracy[ALL_TASKS] == pytest.approx(accuracy.drop(ALL_TASKS).mean())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "NAME is 'nothing', expected one of digits,"),
        (["digits", "--rows", "5"], "--rows does not apply to digits"),
        (["digits", "--methods", "magic"], "--methods has 'magic', expected some of"),
        (["office-caltech", "--percent", "70"], "percent is 70.0, expected above 0"),
        (["office-caltech", "--features", "vgg"], "features is 'vgg', expected 'effnet' or 'surf'"),
        (["office-caltech", "--lists", "x"], "lists is 'x', expected 'random' or 'mrn'"),
        (["digits", "--percent", "90"], "percent is 90.0, expected above 0"),
        (["digits-angle", "--rows", "0"], "rows is 0, expected at least 1"),
        (["rotated-mnist", "--rows", "0"], "rows is 0, expected at least 1"),
        (["school"], "PYRO_VMTL_DATA is not set"),
        (["digits", "--jobs", "0"], "--jobs is 0, expected 1 or more"),
        (["digits", "--device", "quantum"], "device is 'quantum', which cannot be used"),
    ],
)
def test_bad_input_ends_with_2_and_no_traceback(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYRO_VMTL_DATA", raising=False)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())
