"""The command line on tables: as a user runs it, and what it refuses."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from pyro_vmtl.analysis import read_netcdf
from pyro_vmtl.cli import fit_command, fit_problem, run_commands, run_directory
from pyro_vmtl.cli.main import app
from pyro_vmtl.cli.settings import FitSettings
from pyro_vmtl.estimators import VMTLRegressor, base
from pyro_vmtl.inference import checkpoint
from pyro_vmtl.methods.presets import presets

FIT = ["--target", "score", "--task", "school", "--method", "shared"]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def exams(rows=150, seed=0):
    """Five schools in two groups; an age that is missing at times, and a category."""
    rng = np.random.RandomState(seed)
    school = rng.choice(["A", "B", "C", "D", "07"], rows)
    age, sex = rng.uniform(10, 18, rows), rng.choice(["f", "m"], rows)
    slope = np.where(np.isin(school, ["A", "B"]), 3.0, -3.0)
    score = 50 + slope * (age - 14) + 2.0 * (sex == "f") + rng.normal(size=rows)
    table = pd.DataFrame({"school": school, "age": age, "sex": sex, "score": score.round(2)})
    table.loc[table.index % 17 == 3, "age"] = np.nan
    return table


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    exams().to_csv(folder / "exams.csv", index=False)
    out = folder / "run"
    result = run("fit", folder / "exams.csv", *FIT, "--holdout", 0.3, "--out", out)
    assert result.exit_code == 0, result.output
    return folder, out, result


@pytest.fixture(autouse=True)
def without_report(request, monkeypatch):
    """Leave the report out, which takes seconds, but where a test asks for it."""
    if "opened" not in request.fixturenames:
        monkeypatch.setattr(run_directory, "write_run_report", lambda *args, **settings: None)


@pytest.fixture
def few_steps(monkeypatch):
    """Let fits end soon, after some recorded steps."""

    def quick(kind):
        return {"shared": replace(presets(kind)["shared"].many_features, fitting={"num_steps": 80})}

    monkeypatch.setattr(base, "presets", quick)


def test_a_run_holds_what_is_promised(done):
    _, out, result = done
    assert {path.name for path in out.iterdir()} == {
        *(
            "SHA256SUMS",
            "config.toml",
            "estimator",
            "holdout.csv",
            "metrics.json",
            "pictures",
            "posterior.nc",
        ),
        *("relatedness.csv", "report.html", "summary.csv", "table.json"),
    }
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["kind"] == "regression" and metrics["tasks"] == 5
    assert metrics["rows"]["fit"] + metrics["rows"]["test"] == 150
    assert metrics["all"]["explained_variance"] > 0.9  # noise of 1 in targets that vary by 5
    assert sum(task["rows"] for task in metrics["per_task"].values()) == metrics["rows"]["test"]
    for name in ("metrics.json", "report.html", "predict"):
        assert name in result.stdout
    assert "Column 'age' has no value in" in result.stderr and "median" in result.stderr
    assert not list(out.parent.glob("*.checkpoints"))


def test_the_metrics_are_those_of_the_predictions_kept(done):
    """Against formulas on the file of predictions."""
    _, out, _ = done
    kept = pd.read_csv(out / "holdout.csv")
    metrics = json.loads((out / "metrics.json").read_text())["all"]
    error = kept["score"] - kept["mean"]
    assert metrics["rmse"] == pytest.approx((error**2).mean() ** 0.5)
    explained = 1 - (error**2).mean() / kept["score"].var(ddof=0)
    assert metrics["explained_variance"] == pytest.approx(explained)
    inside = kept["score"].between(kept["5%"], kept["95%"]).mean()
    assert metrics["coverage_90"] == pytest.approx(inside)
    table = pd.read_csv(out.parent / "exams.csv", dtype={"school": str})
    at = kept["row"] - 2  # as a spreadsheet counts
    assert (table["score"].iloc[at].to_numpy() == kept["score"]).all()
    assert (
        table["school"].iloc[at].to_numpy() == kept["school"].astype(str).str.zfill(1)
    ).mean() > 0.7


def test_raw_rows_are_predicted(done):
    folder, out, _ = done
    new = exams(40, seed=1)
    new.loc[0, "school"], new.loc[1, "sex"], new.loc[2, "age"] = "new school", "x", np.nan
    order = ["sex", "age", "school"]  # other columns, in another order
    new[order].assign(extra=1).to_csv(folder / "new.csv", index=False)
    target = folder / "predictions.csv"
    result = run("predict", out, folder / "new.csv", "--out", target)
    assert result.exit_code == 0, result.output
    found = pd.read_csv(target, dtype={"school": str})
    assert found["school"].tolist() == new["school"].tolist()  # 07 is still 07
    assert np.isfinite(found.drop(columns="school")).all().all()
    assert (found[["5%", "25%", "75%", "95%"]].diff(axis=1).iloc[:, 1:] > 0).all().all()
    known = found[3:]
    assert np.corrcoef(known["mean"], new["score"][3:])[0, 1] > 0.9
    assert "'new school': no such task in the fit" in result.stderr
    assert found.loc[0, "std"] > 1.5 * known["std"].median()  # little is known of a new task

    before = target.read_bytes()
    again = run("predict", out, folder / "new.csv", "--out", target)
    assert again.exit_code == 2 and "--overwrite" in again.output and target.read_bytes() == before
    parquet = folder / "predictions.parquet"
    assert run("predict", out, folder / "new.csv", "--out", parquet).exit_code == 0
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), found)


def test_evaluate_and_report_show_what_metrics_hold(done, monkeypatch):
    folder, out, _ = done
    monkeypatch.setattr(
        run_commands, "write_run_report", lambda folder, *args: folder / "report.html"
    )
    kept = pd.read_csv(out / "holdout.csv")
    table = pd.read_csv(folder / "exams.csv", dtype={"school": str})
    table.iloc[kept["row"] - 2].to_csv(folder / "test.csv", index=False)
    found = json.loads(run("evaluate", out, folder / "test.csv", "--json").stdout)
    metrics = json.loads((out / "metrics.json").read_text())
    for name, value in metrics["all"].items():
        assert found["all"][name] == pytest.approx(value, rel=1e-5)
    assert "explained" in run("evaluate", out, folder / "test.csv").stdout
    shown = run("report", out)
    assert shown.exit_code == 0 and f"{metrics['all']['rmse']:.3f}" in shown.stdout
    assert json.loads(run("report", out, "--json").stdout)["all"] == metrics["all"]


def test_the_report_of_a_table_opens_and_names_its_rows(done, opened):
    _, out, _ = done
    seen = opened(out / "report.html")
    assert seen.faults == {}
    for part in ("07", "explained variance", "Do intervals contain", "exams.csv", "--config"):
        assert part in seen.text, part
    kept = pd.read_csv(out / "holdout.csv")
    found = read_netcdf(out / "posterior.nc")["predictions"]
    assert sorted(found["row"].values) == sorted(kept["row"])  # as a spreadsheet counts
    by_row = kept.set_index("row").loc[found["row"].values]
    np.testing.assert_allclose(found["y"], by_row["score"], rtol=1e-12)
    # Draws differ: their Monte Carlo error is a few hundredths of a standard deviation.
    error = (found["mean"].values - by_row["mean"]) / by_row["std"]
    assert np.abs(error).max() < 0.3


def test_a_report_is_written_anew_and_needs_a_run(done, tmp_path):
    _, out, _ = done
    page = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    assert run("report", out).exit_code == 0
    assert (out / "report.html").read_bytes() == page
    none = run("report", tmp_path)
    assert none.exit_code == 2 and "metrics.json" in none.output
    for name in ("metrics.json", "summary.csv"):
        shutil.copy(out / name, tmp_path)
    without = run("report", tmp_path)
    assert without.exit_code == 2 and "posterior.nc" in without.output
    (tmp_path / "posterior.nc").write_bytes((out / "posterior.nc").read_bytes()[:5000])
    broken = run("report", tmp_path)
    assert broken.exit_code == 2 and "posterior.nc" in broken.output


def test_the_config_of_a_run_reproduces_it(done):
    folder, out, _ = done
    again = folder / "again"
    result = run("fit", "--config", out / "config.toml", "--out", again, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["run"] == str(again)
    one, other = (load_file(o / "estimator" / "weights.safetensors") for o in (out, again))
    assert one.keys() == other.keys() and all((one[k] == other[k]).all() for k in one)
    assert (out / "holdout.csv").read_bytes() == (again / "holdout.csv").read_bytes()


def fit_of_kind(folder, kind, **changes):
    """Metrics of a fit on 120 exams with other columns, and its run."""
    exams(120).assign(**changes).to_parquet(folder / "a.parquet")
    options = [*FIT, "--holdout", 0.3, "--out", folder / "run"]
    result = run("fit", folder / "a.parquet", *options, *kind)
    assert result.exit_code == 0, result.output
    return json.loads((folder / "run" / "metrics.json").read_text()), folder / "run"


def test_classes_are_predicted(tmp_path):
    high = (exams(120)["score"] > 50).map({True: "high", False: "low"})
    metrics, out = fit_of_kind(tmp_path, [], score=high)
    assert metrics["kind"] == "classification" and metrics["all"]["accuracy"] > 0.8
    found = pd.read_csv(out / "holdout.csv")
    assert np.allclose(found["p(high)"] + found["p(low)"], 1)


def test_counts_are_predicted(tmp_path, opened):
    rate = np.exp((exams(120)["score"] - 46) / 5)
    counts = np.random.RandomState(0).poisson(rate)
    metrics, out = fit_of_kind(tmp_path, ["--kind", "counts"], score=counts)
    assert metrics["kind"] == "counts"
    assert metrics["all"]["explained_variance"] > 0 and metrics["all"]["coverage_90"] > 0.7
    assert opened(out / "report.html").faults == {}


def test_rows_without_a_target_are_told_once(tmp_path, few_steps):
    table = exams(60)
    table.loc[[3, 20], "score"] = np.nan
    table.to_csv(tmp_path / "a.csv", index=False)
    result = run("fit", tmp_path / "a.csv", *FIT, "--holdout", 0.3, "--out", tmp_path / "run")
    assert result.exit_code == 0 and result.stderr.count("rows without a target are not used") == 1
    notices = json.loads((tmp_path / "run" / "metrics.json").read_text())["notices"]
    assert len(notices) == len(set(notices))


def test_every_class_has_a_row_in_the_fit(tmp_path):
    table = exams(60).assign(score=["low", "high"] * 29 + ["rare", "once"])
    table.to_csv(tmp_path / "a.csv", index=False)
    for seed in range(20):
        problem = fit_problem.read_problem(
            FitSettings(str(tmp_path / "a.csv"), "score", "school", holdout=0.6, seed=seed)
        )
        assert set(problem.train.y) == {"low", "high", "rare", "once"}
        assert 30 < len(problem.test.y) < 40


# What is refused


def unharmed(tmp_path, result, message):
    assert result.exit_code == 2, result.output
    assert message in result.output.replace("\n", " "), result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists() and not list(tmp_path.glob("*.checkpoints"))


# test_read_table.py, test_columns.py and test_target.py have all kinds of these
@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.csv", b"", "empty (0 bytes)"),
        ("a.csv", b"school;score\n1,5;2\n", "found semicolons: save it with commas"),
        ("a.csv", b"school,score\n1,2\n1\n", "row 3 has 1 entry, expected 2"),
        ("a.parquet", b"PAR1", "not a complete Parquet file"),
        ("a.npz", b"PK\x03\x04", "not a complete .npz archive"),
    ],
)
def test_bad_files_end_with_2(tmp_path, file, content, message):
    (tmp_path / file).write_bytes(content)
    unharmed(tmp_path, run("fit", tmp_path / file, *FIT, "--out", tmp_path / "run"), message)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"age": 1, "sex": "f"}, "no columns to learn from"),
        ({"day": "2020-01-02"}, "'day' holds dates or times"),
        ({"age": ["12,5", *map(str, range(59))]}, "Column 'age' has '12,5' in row 2"),
        ({"school": [None, *"ab" * 29, "a"]}, "'school', the task, has no label in row 2"),
        ({"score": ["3.5 m", *map(str, range(59))]}, "Column 'score' has '3.5 m' in row 2"),
        ({"score": [1.5] * 60}, "'score', the target, is 1.5 in every row"),
    ],
)
def test_bad_columns_end_with_2(tmp_path, columns, message):
    exams(60).assign(**columns).to_csv(tmp_path / "a.csv", index=False)
    unharmed(tmp_path, run("fit", tmp_path / "a.csv", *FIT, "--out", tmp_path / "run"), message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "There is no SOURCE"),
        (["exams.csv", "--task", "school"], "--target is missing, expected a column of exams.csv"),
        (["exams.csv", "--target", "score"], "--task is missing"),
        (["exams.csv", *FIT, "--kind", "ranking"], "--kind is 'ranking', expected one of"),
        (["exams.csv", *FIT, "--holdout", "1"], "--holdout is 1, expected a fraction"),
        (["exams.csv", *FIT, "--seed", "-1"], "--seed is -1"),
        (["exams.csv", *FIT, "--method", "best"], "--method is 'best', expected one of default"),
        (["exams.csv", *FIT, "--method", "official"], "for regression"),
        (["exams.csv", *FIT, "--device", "quantum"], "device is 'quantum', which cannot be used"),
        (["exams.csv", *FIT, "--features", "agee"], "Did you mean 'age'"),
        (["exams.csv", *FIT, "--out", "exams.csv/run"], "cannot be written to"),
        (["exams.csv", *FIT, "--out", "."], "--out is '.', expected the name of a folder"),
        (["exams.csv", *FIT, "--seed", 2**32], "expected an integer from 0 to 2**32 - 1"),
        (["exams.csv", *FIT, "--config", "none.toml"], "--config none.toml cannot be read"),
        (["exams.csv", *FIT, "--config", "exams.csv"], "is not TOML"),
        (["--config", "name.toml"], "has 'tagret', which is not an option of `fit`."),
        (["--config", "type.toml"], "has seed = 'one', expected int"),
        (["digits", "--target", "score"], "--target is for tables"),
    ],
)
def test_bad_options_end_with_2(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    exams().to_csv("exams.csv", index=False)
    (tmp_path / "name.toml").write_text('source = "exams.csv"\ntagret = "score"\n')
    (tmp_path / "type.toml").write_text('source = "exams.csv"\nseed = "one"\n')
    out = [] if "--out" in arguments else ["--out", "run"]
    unharmed(tmp_path, run("fit", *arguments, *out), message)


def test_a_full_disk_is_told_before_the_fit(tmp_path, monkeypatch):
    exams().to_csv(tmp_path / "exams.csv", index=False)
    usage = shutil.disk_usage(tmp_path)._replace(free=5_000_000)
    monkeypatch.setattr(fit_command.shutil, "disk_usage", lambda folder: usage)
    result = run("fit", tmp_path / "exams.csv", *FIT, "--out", tmp_path / "run")
    unharmed(tmp_path, result, "has 5 MB free, expected at least 100 MB")


def test_a_disk_that_fills_up_leaves_what_was_done(tmp_path, few_steps, monkeypatch):
    exams().to_csv(tmp_path / "exams.csv", index=False)
    command = ["fit", tmp_path / "exams.csv", *FIT, "--out", tmp_path / "run"]
    save, left = checkpoint.torch.save, [5]

    def full(*arguments, **named):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device", "checkpoint")
        save(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "EVERY", 0.0)
        patched.setattr(checkpoint.torch, "save", full)
        result = run(*command)
    assert result.exit_code == 2 and "No space left on device" in result.output
    assert list((tmp_path / "run.checkpoints").rglob("*.pt"))
    again = run(*command)
    assert (
        again.exit_code == 2
        and "Continue it with --resume, or start anew with --overwrite" in again.output
    )
    assert run(*command, "--resume").exit_code == 0
    assert not list(tmp_path.glob("*.checkpoints"))
    complete = run(*command, "--resume")
    assert complete.exit_code == 0 and "is complete" in complete.output


def test_checkpoints_of_another_fit_are_told(tmp_path, few_steps, monkeypatch):
    exams().to_csv(tmp_path / "exams.csv", index=False)
    command = ["fit", tmp_path / "exams.csv", *FIT, "--out", tmp_path / "run"]

    def stopped(*arguments, **named):
        raise OSError(28, "No space left on device", "run")

    with monkeypatch.context() as patched:  # after the fit, before the run is written
        patched.setattr(fit_command, "write_run", stopped)
        run(*command)
    result = run(*command, "--seed", 1, "--resume")
    assert result.exit_code == 2 and "belongs to another fit" in result.output
    assert run(*command, "--seed", 1, "--overwrite").exit_code == 0


def damage(out, kind):
    weights = out / "estimator" / "weights.safetensors"
    if kind == "edited weights":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif kind == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:100])
    elif kind == "other shapes":
        save_file({name: v.reshape(-1)[:1] for name, v in load_file(weights).items()}, weights)
    elif kind == "no weights":
        weights.unlink()
    elif kind == "no table":
        (out / "table.json").unlink()
    elif kind == "broken table":
        (out / "table.json").write_text('{"kind": "regression", "columns": {}}')
    elif kind == "binary table":
        (out / "table.json").write_bytes(b"\xff\xfe\x00")
    elif kind == "other kind":
        text = (out / "table.json").read_text()
        (out / "table.json").write_text(text.replace("regression", "classification"))
    elif kind == "broken estimator":
        (out / "estimator" / "estimator.json").write_text("{")
    elif kind == "nothing":
        shutil.rmtree(out)
    if kind == "changed table":
        (out / "table.json").write_text((out / "table.json").read_text() + " ")
    else:  # without checksums, as of an earlier version
        (out / "SHA256SUMS").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("edited weights", "is not what was saved"),
        ("truncated weights", "is not what was saved"),
        ("other shapes", "is not what was saved"),
        ("no weights", "has no weights.safetensors"),
        ("no table", "has no table.json"),
        ("broken table", "cannot be read"),
        ("binary table", "cannot be read"),
        ("other kind", "holds a VMTLRegressor, expected a VMTLClassifier"),
        ("broken estimator", "estimator.json cannot be read"),
        ("nothing", "is no folder"),
        ("changed table", "was changed after the fit"),
    ],
)
def test_a_damaged_run_is_told(done, tmp_path, kind, message):
    folder, out, _ = done
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    damage(copy, kind)
    target = tmp_path / "predictions.csv"
    result = run("predict", copy, folder / "exams.csv", "--out", target)
    assert result.exit_code == 2 and message in result.output, result.output
    assert "Traceback" not in result.output and not target.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="age"), "no column 'age'"),
        (lambda t: t.drop(columns="school"), "'school'"),
        (lambda t: t.assign(age="old"), "'old' in row 2"),
    ],
)
def test_rows_that_do_not_fit_the_run_are_told(done, tmp_path, change, message):
    change(exams(10)).to_csv(tmp_path / "new.csv", index=False)
    result = run("predict", done[1], tmp_path / "new.csv", "--out", tmp_path / "p.csv")
    assert result.exit_code == 2 and message in result.output
    assert not (tmp_path / "p.csv").exists()


def test_targets_that_the_fit_does_not_know_are_told(done, tmp_path):
    exams(10).assign(score="high").to_csv(tmp_path / "new.csv", index=False)
    result = run("evaluate", done[1], tmp_path / "new.csv")
    assert result.exit_code == 2 and "'high'" in result.output
    exams(10).drop(columns="score").to_csv(tmp_path / "new.csv", index=False)
    result = run("evaluate", done[1], tmp_path / "new.csv", "--json")
    assert result.exit_code == 2 and "'score'" in json.loads(result.stdout)["error"]


def test_an_interrupted_fit_goes_on(tmp_path, few_steps, monkeypatch):
    exams().to_csv(tmp_path / "exams.csv", index=False)
    command = ["fit", tmp_path / "exams.csv", *FIT, "--out", tmp_path / "run"]
    write, left = checkpoint.Checkpoint.write, [7]

    def interrupted(self, progress):
        write(self, progress)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "EVERY", 0.0)
        patched.setattr(checkpoint.Checkpoint, "write", interrupted)
        result = run(*command)
    assert result.exit_code == 130 and "--resume continues the fit" in result.output
    assert not (tmp_path / "run").exists()
    assert run(*command, "--resume").exit_code == 0
    estimator = VMTLRegressor.load(tmp_path / "run" / "estimator")
    assert run(*command[:-1], tmp_path / "whole").exit_code == 0
    whole = VMTLRegressor.load(tmp_path / "whole" / "estimator")
    assert (estimator.history_.loss == whole.history_.loss).all()


def test_help_has_examples():
    for command, example in (
        ("fit", "pyro-vmtl fit exams.csv --target score --task school"),
        ("predict", "pyro-vmtl predict runs/exams new.csv --out predictions.csv"),
        ("evaluate", "pyro-vmtl evaluate runs/exams later.csv"),
        ("report", "pyro-vmtl report runs/exams"),
    ):
        shown = " ".join(run(command, "--help").output.replace("│", " ").split())
        assert example in shown
