"""Several targets on the command line."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

from pyro_vmtl import FeedbackEstimator
from pyro_vmtl.analysis import write_netcdf
from pyro_vmtl.cli import outputs_command
from pyro_vmtl.cli.main import app


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def days(num_rows=120):
    """Weather, with a day of unknown mood, and a season in words."""
    rng = np.random.default_rng(0)
    pressure = rng.normal(size=num_rows)
    chance = 1 / (1 + np.exp(5 * pressure))
    return pd.DataFrame(
        {
            "pressure": pressure,
            "season": rng.choice(["summer", "winter"], num_rows),
            "rain": np.where(rng.random(num_rows) < chance, "wet", "dry"),
            "mood": np.where(rng.random(num_rows) < chance, "low", "high"),
            "sales": 100 + 20 * chance + rng.normal(size=num_rows),
        }
    ).mask(lambda table: (table.columns == "mood") & (table.index.to_numpy()[:, None] == 3))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    days().to_csv(folder / "days.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        quick = lambda **settings: FeedbackEstimator(num_steps=60, num_samples=5, **settings)  # noqa: E731
        patch.setattr(outputs_command, "FeedbackEstimator", quick)
        arguments = ("--target", "rain, mood,sales", "--holdout", 0.25, "--out", folder / "run")
        fitted = run("fit", folder / "days.csv", *arguments)
    assert fitted.exit_code == 0, fitted.output
    assert "RMSE" in fitted.output and "rain feeds" in fitted.output
    assert "report.html" in fitted.output
    return folder


def test_a_run_has_scores_gates_and_a_picture(done):
    metrics = json.loads((done / "run" / "metrics.json").read_text())
    assert metrics["rows"] == {"fit": 90, "test": 30}
    assert metrics["scores"]["rain"]["accuracy"] > 0.7 and metrics["scores"]["rain"]["nll"] < 0.6
    assert metrics["scores"]["sales"]["explained_variance"] > 0.7
    assert metrics["scores"]["sales"]["coverage_90"] > 0.7
    assert 0 <= metrics["spectral_radius"] <= 0.9
    gates = pd.read_csv(done / "run" / "gates.csv", index_col=0)
    assert gates.index.tolist() == gates.columns.tolist() == ["rain", "mood", "sales"]
    assert (np.diag(gates) == 0).all() and ((gates >= 0) & (gates <= 1)).all().all()
    for name in ("gates", "iterations", "elbo"):
        assert (done / "run" / "pictures" / f"{name}.png").stat().st_size > 0
    assert not [path for path in (done / "run").rglob("*") if path.suffix in (".pkl", ".pt")]


def test_rows_are_predicted_with_what_is_known(done):
    new = days(20).drop(columns=["rain", "sales"])
    new["mood"] = "low"
    new.to_csv(done / "new.csv", index=False)
    arguments = ("predict", done / "run", done / "new.csv")
    plain = run(*arguments, "--out", done / "plain.csv")
    assert plain.exit_code == 0, plain.output
    known = run(*arguments, "--known", "mood", "--out", done / "known.csv")
    assert known.exit_code == 0, known.output
    table = pd.read_csv(done / "known.csv")
    assert table.columns.tolist() == [
        *("row", "rain", "p(rain=dry)", "p(rain=wet)", "mood", "p(mood=high)", "p(mood=low)"),
        *("sales", "std(sales)"),
    ]
    assert (table["std(sales)"] > 0).all()
    assert (table["p(mood=low)"] == 1).all() and table["row"].tolist() == list(range(2, 22))
    assert (pd.read_csv(done / "plain.csv")["p(mood=low)"] < 1).all()
    assert run(*arguments, "--out", done / "known.csv").exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "rain,snow"], "'snow', which is not a column"),
        (["--target", "rain,rain"], "expected each column once"),
        (["--target", "rain,mood", "--kind", "counts"], "--kind is not for several targets"),
        (["--target", "rain,mood", "--features", "rain"], "'rain', which is a target"),
        (["--target", "rain,mood", "--method", "shared"], "--method is not for several targets"),
    ],
)
def test_errors_say_what_is_wrong(done, options, message):
    found = run("fit", done / "days.csv", *options, "--out", done / "other")
    assert found.exit_code == 2 and message in found.output.replace("\n", " ")
    assert not (done / "other").exists()


def test_known_must_be_a_target(done):
    out = ("--out", done / "none.csv")
    found = run("predict", done / "run", done / "days.csv", "--known", "season", *out)
    assert found.exit_code == 2 and "expected some of the targets" in found.output


def test_the_report_is_written_again_from_files_of_the_run(done):
    page = done / "run" / "report.html"
    before = page.read_text()
    for text in ("Which output feeds which?", "What the others change", "Scores by output"):
        assert text in before
    page.unlink()
    found = run("report", done / "run")
    assert found.exit_code == 0 and "rain feeds" in found.output, found.output
    assert page.read_text() == before


def test_later_rows_are_scored(done):
    later = days(60).iloc[30:]
    later.to_csv(done / "later.csv", index=False)
    found = run("evaluate", done / "run", done / "later.csv", "--json")
    assert found.exit_code == 0, found.output
    scores = json.loads(found.stdout)["scores"]
    assert scores["mood"]["rows"] == 30
    arguments = ("predict", done / "run", done / "later.csv", "--out", done / "scored.csv")
    assert run(*arguments).exit_code == 0
    error = pd.read_csv(done / "scored.csv")["sales"].to_numpy() - later["sales"].to_numpy()
    np.testing.assert_allclose(scores["sales"]["rmse"], np.sqrt(np.mean(error**2)), rtol=1e-6)
    later.assign(mood="odd").to_csv(done / "odd.csv", index=False)
    found = run("evaluate", done / "run", done / "odd.csv")
    assert found.exit_code == 2 and "has class 'odd', expected one of" in found.output


def test_rows_of_a_class_that_the_fit_lacks_are_not_held_out(tmp_path, monkeypatch):
    quick = lambda **settings: FeedbackEstimator(num_steps=5, num_samples=2, **settings)  # noqa: E731
    monkeypatch.setattr(outputs_command, "FeedbackEstimator", quick)
    rare = days(60)
    rare.loc[range(0, 60, 20), "rain"] = ["sleet", "hail", "fog"]
    rare.loc[range(1, 60, 20), "rain"] = ["sleet", "hail", "fog"]
    rare.to_csv(tmp_path / "rare.csv", index=False)
    out = ("--holdout", 0.7, "--out", tmp_path / "run")
    found = run("fit", tmp_path / "rare.csv", "--target", "rain,sales", *out)
    assert found.exit_code == 0, found.output
    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"]
    assert rows["fit"] + rows["test"] == 60 and rows["test"] <= 42


def test_influence_is_for_runs_with_tasks(done):
    found = run("influence", done / "run", done / "days.csv", "--out", done / "influence.csv")
    assert found.exit_code == 2 and "has several targets" in found.output


def test_a_fit_is_kept_where_its_report_fails(tmp_path, monkeypatch):
    def fail(*args, **settings):
        raise ValueError("no picture")

    quick = lambda **settings: FeedbackEstimator(num_steps=5, num_samples=2, **settings)  # noqa: E731
    monkeypatch.setattr(outputs_command, "FeedbackEstimator", quick)
    monkeypatch.setattr(outputs_command, "write_outputs_report", fail)
    days(40).to_csv(tmp_path / "days.csv", index=False)
    found = run("fit", tmp_path / "days.csv", "--target", "rain,sales", "--out", tmp_path / "run")
    assert found.exit_code != 0 and "has the fit, which can predict" in found.output
    monkeypatch.undo()
    arguments = ("predict", tmp_path / "run", tmp_path / "days.csv")
    assert run(*arguments, "--out", tmp_path / "predicted.csv").exit_code == 0


def test_damaged_files_are_not_reported(done, tmp_path):
    copy = shutil.copytree(done / "run", tmp_path / "run")
    (copy / "SHA256SUMS").unlink()
    write_netcdf(xr.DataTree(xr.Dataset({"gates": ("a", [1.0])})), copy / "feedback.nc")
    found = run("report", copy)
    assert found.exit_code == 2 and "was changed" in found.output.replace("\n", " ")


def test_an_output_that_no_later_row_has_is_not_scored(done, tmp_path):
    days(5).assign(mood=["low", *[None] * 4]).to_csv(tmp_path / "few.csv", index=False)
    found = run("evaluate", done / "run", tmp_path / "few.csv", "--json")
    assert json.loads(found.stdout)["scores"]["mood"]["rows"] == 1
    one = days(5).iloc[:1].assign(mood="low")
    one.to_csv(tmp_path / "one.csv", index=False)
    found = run("evaluate", done / "run", tmp_path / "one.csv", "--json")
    assert found.exit_code == 0, found.output
    assert np.isnan(json.loads(found.stdout)["scores"]["sales"]["explained_variance"])
