"""Influence on the command line."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pyro_vmtl.cli import run_commands, run_directory
from pyro_vmtl.cli.main import app


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def exams(num_rows=24):
    """Three schools, with an error in row 9 of the file, and a row without a score."""
    rng = np.random.RandomState(0)
    school = np.repeat(["Ash", "Birch", "07"], num_rows)
    hours = rng.normal(size=len(school))
    score = 2 * hours + 0.3 * rng.normal(size=len(school))
    score[7], score[11] = 2 * hours[7] - 6.0, np.nan
    return pd.DataFrame({"school": school, "hours": hours, "score": score})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("influence")
    exams().to_csv(folder / "exams.csv", index=False)
    settings = ["--target", "score", "--task", "school", "--method", "mixed-model"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_directory, "write_run_report", lambda *args, **settings: None)
        fitted = run(
            *("fit", folder / "exams.csv", *settings),
            *("--holdout", 0.25, "--out", folder / "run"),
        )
    assert fitted.exit_code == 0, fitted.output
    return folder


@pytest.mark.slow
def test_rows_are_named_as_in_the_file(done):
    out = done / "influence.csv"
    found = run("influence", done / "run", done / "exams.csv", "--out", out)
    assert found.exit_code == 0, found.output
    assert "Row 9 harms most" in found.output
    table = pd.read_csv(out, dtype={"school": str})
    assert table.columns[:2].tolist() == ["row", "school"]
    assert set(table.columns[2:]) == {"on Ash", "on Birch", "on 07", "step"}
    assert len(table) == 53 and 13 not in table["row"].values  # 6 of each school, and one unknown
    assert table["school"].tolist() == exams()["school"].iloc[table["row"] - 2].tolist()
    assert table.set_index("row")["on Ash"].idxmin() == 9
    assert (done / "influence.png").stat().st_size > 0
    again = run("influence", done / "run", done / "exams.csv", "--out", out)
    assert again.exit_code == 2 and "exists already" in again.output


@pytest.mark.slow
def test_other_rows_can_be_predicted(done):
    exams().iloc[:30].to_csv(done / "new.csv", index=False)
    out = done / "of_new.csv"
    found = run(
        *("influence", done / "run", done / "exams.csv", "--rows", done / "new.csv"),
        *("--out", out, "--json"),
    )
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["rows"] == 53
    assert (pd.read_csv(out)["on 07"] == 0).all()  # none of its rows is predicted


def test_other_tables_are_refused(done):
    exams().iloc[:40].to_csv(done / "part.csv", index=False)
    found = run("influence", done / "run", done / "part.csv", "--out", done / "no.csv")
    assert found.exit_code == 2 and "the table that was fitted" in " ".join(found.output.split())
    found = run(
        *("influence", done / "run", done / "exams.csv", "--out", done / "no.csv"),
        *("--method", "exact"),
    )
    assert found.exit_code == 2 and "first-order" in found.output


@pytest.mark.slow
def test_a_report_that_fails_leaves_the_run_as_it_was(done, monkeypatch):
    def full(*args, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_commands, "write_run_report", full)
    before = {path.name: path.read_bytes() for path in (done / "run").glob("*.*")}
    arguments = ("--out", done / "full.csv", "--report")
    found = run("influence", done / "run", done / "exams.csv", *arguments)
    assert found.exit_code != 0
    assert {path.name: path.read_bytes() for path in (done / "run").glob("*.*")} == before


@pytest.mark.slow
def test_it_is_in_the_report_when_asked(done):
    sums = (done / "run" / "SHA256SUMS").read_text().splitlines()
    found = run(
        *("influence", done / "run", done / "exams.csv", "--out", done / "again.csv"),
        *("--report", "--refit", 0.1),
    )
    assert found.exit_code == 0, found.output
    now = (done / "run" / "SHA256SUMS").read_text().splitlines()
    assert now[:-1] == sums and now[-1].endswith("  influence.nc")
    page = (done / "run" / "report.html").read_text()
    assert "Which rows help or harm 07?" in page and "Do fits without the rows agree?" in page
    assert '<th scope="row">9</th>' in page  # the row that harms most, as in the file
    (done / "run" / "report.html").unlink()
    assert run("report", done / "run").exit_code == 0
    assert (done / "run" / "report.html").read_text() == page
    with (done / "run" / "influence.nc").open("ab") as file:
        file.write(b" ")
    changed = run("report", done / "run")
    assert changed.exit_code == 2 and "was changed" in " ".join(changed.output.split())
