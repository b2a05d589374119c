"""Any text is a name: of columns, tasks and classes, in every output."""

import json
import re
import tomllib

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from small_tables import quick_presets, table
from typer.testing import CliRunner

from pyro_vmtl.cli import console, run_directory
from pyro_vmtl.cli.main import app
from pyro_vmtl.cli.safe_text import write_csv
from pyro_vmtl.cli.settings import FitSettings

ODD = [
    "[/x]",
    "[red]",
    "$\\frac{",
    "$\\frac{$",  # Matplotlib takes an even number of dollars for a formula
    "😀",
    "a\nb",
    "=1+1",
    "\x1b[2J",
    "</script>",
    "../x",
    "`id`",
    "%s{}",
]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Few steps, and no report but where a test asks for it."""
    quick_presets(monkeypatch)
    if "slow" not in request.keywords:
        monkeypatch.setattr(run_directory, "write_run_report", lambda *args, **settings: None)


def fitted(folder, frame, target="y", task="task", *more):
    frame.to_csv(folder / "a.csv", index=False)
    options = [f"--target={target}", f"--task={task}", "--method", "shared", "--holdout", 0.25]
    result = run("fit", folder / "a.csv", *options, "--out", folder / "run", *more)
    assert result.exit_code == 0, result.output
    done = run("predict", folder / "run", folder / "a.csv", "--out", folder / "p.csv")
    assert done.exit_code == 0, done.output
    assert run("evaluate", folder / "run", folder / "a.csv").exit_code == 0
    return folder / "run"


@pytest.mark.parametrize("name", ["mean", "std", "row", "5%", "log_density", "prediction", "task"])
def test_a_column_may_be_named_like_one_of_ours(tmp_path, name):
    for folder, columns in (("target", {"target": name}), ("task", {"task": name})):
        (tmp_path / folder).mkdir()
        if folder == "target" and name == "task":
            columns["task"] = "group"
        out = fitted(tmp_path / folder, table(**columns), **columns)
        kept = pd.read_csv(out / "holdout.csv")
        assert len(set(kept.columns)) == len(kept.columns) and name in kept
        given = pd.read_csv(tmp_path / folder / "a.csv")
        row = "row" if "row" in kept and name != "row" else "predicted row"
        row = row if row in kept else "predicted row"
        assert (given[name].iloc[kept[row] - 2].to_numpy() == kept[name]).all()
        mean = next(c for c in ("predicted mean", "mean") if c in kept)
        assert np.isfinite(kept[mean]).all()


def test_tasks_may_be_named_like_ours(tmp_path):
    labels = ("all rows", "base", "a", "a 5%", "None")
    out = fitted(tmp_path, table(labels, rows=60))
    metrics = json.loads((out / "metrics.json").read_text())
    assert sorted(metrics["per_task"]) == sorted(labels)
    assert metrics["all"]["rows"] == sum(task["rows"] for task in metrics["per_task"].values())
    found = pd.read_csv(out / "relatedness.csv", index_col="task", keep_default_na=False)
    assert sorted(found.index) == sorted(labels)
    means = found[[*map(repr, sorted(labels)), "base"]]
    total = means.replace("", 0).astype(float).sum(axis=1)
    np.testing.assert_allclose(total, 1, atol=1e-6)  # shares of each task, all sources


def test_two_lines_may_be_called_all_rows(capsys):
    scores = pd.DataFrame({"rows": [4, 4]}, index=["all rows", "all rows"])
    console.show_scores(scores, Console(width=60))
    assert capsys.readouterr().out.count("all rows") == 2


@pytest.mark.slow
def test_odd_names_pass_through_everything(tmp_path):
    frame = table(ODD, target="[/y]\n", task="$t_$", feature="$= \\frac{$", rows=88)
    frame["text"] = np.where(frame["x2"] > 0, *ODD[:2])
    out = fitted(tmp_path, frame, "[/y]\n".strip(), "$t_$")
    for name in ("holdout.csv", "relatedness.csv", "summary.csv", "report.html"):
        text = (out / name).read_text(encoding="utf-8")
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text), name
    assert "</script>" not in (out / "report.html").read_text()
    shown = run("report", out)
    assert shown.exit_code == 0 and "[/x]" in shown.stdout and "\x1b[2J" not in shown.stdout
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["per_task"]) == set(ODD)
    settings = tomllib.loads((out / "config.toml").read_text(encoding="utf-8"))
    assert settings["target"] == "[/y]" and settings["task"] == "$t_$"


def test_classes_may_have_odd_names(tmp_path):
    out = fitted(tmp_path, table(classes=("[/x]", "q"), target="p(q)"), "p(q)")
    kept = pd.read_csv(out / "holdout.csv")
    assert np.allclose(kept["predicted p([/x])"] + kept["predicted p(q)"], 1)
    assert set(kept["p(q)"]) == {"[/x]", "q"}


@pytest.mark.parametrize("name", ["😀", 'a"b\\', "\x7f", "tab\t", "line\n", "ключ"])
def test_settings_come_back_from_toml(name):
    settings = FitSettings("a.csv", target=name, task="t", features=[name, "b"])
    assert tomllib.loads(settings.to_toml())["target"] == name
    assert tomllib.loads(settings.to_toml())["features"] == [name, "b"]


def test_csv_files_hold_no_formulas_and_no_control_characters(tmp_path):
    frame = pd.DataFrame({"=a": ["=1+1", "-3", "\x1b[31mred", "plain\nline"], "n": [-1.5, 2, 3, 4]})
    write_csv(frame, tmp_path / "plain.csv", index=False)
    found = pd.read_csv(tmp_path / "plain.csv")
    assert found["=a"].tolist() == ["=1+1", "-3", "\\x1b[31mred", "plain\nline"]
    write_csv(frame, tmp_path / "sheet.csv", spreadsheet=True, index=False)
    found = pd.read_csv(tmp_path / "sheet.csv")
    assert found["'=a"].tolist() == ["'=1+1", "'-3", "\\x1b[31mred", "plain\nline"]
    assert found["n"].tolist() == [-1.5, 2, 3, 4]  # numbers are no formulas


def test_a_fit_outlives_what_fails_after_it(tmp_path, monkeypatch):
    def broken(*arguments, **settings):
        raise ZeroDivisionError

    monkeypatch.setattr(run_directory, "write_netcdf", broken)
    table().to_csv(tmp_path / "a.csv", index=False)
    options = ["--target", "y", "--task", "task", "--method", "shared", "--out", tmp_path / "run"]
    result = run("fit", tmp_path / "a.csv", *options)
    assert result.exit_code == 1 and "has the fit, which can predict" in result.output
    assert not (tmp_path / "run.checkpoints").exists()
    done = run("predict", tmp_path / "run", tmp_path / "a.csv", "--out", tmp_path / "p.csv")
    assert done.exit_code == 0 and len(pd.read_csv(tmp_path / "p.csv")) == 48
