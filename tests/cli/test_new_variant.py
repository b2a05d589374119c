"""The command that writes a model, a guide and their test."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pyro_vmtl.cli.main import app
from pyro_vmtl.testing import CHECKS

ROOT = Path(__file__).parents[2]


def new_variant(name):
    return CliRunner().invoke(app, ["new-variant", name])


@pytest.mark.slow
def test_the_files_pass_their_own_test(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert new_variant("robust_model").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "robust_model.py",
        "test_robust_model.py",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(CHECKS) - 1} passed, 1 skipped" in run.stdout


def test_nothing_is_overwritten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_mine.py").write_text("mine")
    result = new_variant("mine")
    assert result.exit_code == 2 and "test_mine.py exists" in result.output
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["two words", "class", "../up", "3d"])
def test_names_that_are_no_modules_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = new_variant(name)
    assert result.exit_code == 2 and "expected that of a Python module" in result.output
    assert not list(tmp_path.iterdir())
