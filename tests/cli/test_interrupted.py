"""What else happens to a fit: another one beside it, and the end of its process."""

import os
import signal

import pytest
from filelock import FileLock
from small_tables import quick_presets, table
from typer.testing import CliRunner

from pyro_vmtl.cli import run_directory
from pyro_vmtl.cli.main import app
from pyro_vmtl.inference import checkpoint


@pytest.fixture
def fit(tmp_path, monkeypatch):
    quick_presets(monkeypatch)
    monkeypatch.setattr(run_directory, "write_run_report", lambda *args, **settings: None)
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    table().to_csv(tmp_path / "a.csv", index=False)
    options = ["--target", "y", "--task", "task", "--method", "shared"]
    arguments = ["fit", str(tmp_path / "a.csv"), *options, "--out", str(tmp_path / "run")]
    return lambda *more: CliRunner().invoke(app, [*arguments, *more])


def test_two_fits_do_not_write_the_same_run(fit, tmp_path):
    with FileLock(tmp_path / ".run.lock"):
        second = fit()
    assert second.exit_code == 2 and "Another fit is writing" in second.output
    assert not (tmp_path / "run").exists()
    assert fit().exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "run"}


def test_sigterm_keeps_the_state_of_a_fit(fit, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    write, left = checkpoint.Checkpoint.write, [2]

    def ended(self, progress):
        write(self, progress)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        with monkeypatch.context() as patched:
            patched.setattr(checkpoint.Checkpoint, "write", ended)
            result = fit()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert result.exit_code == 130 and "--resume continues the fit" in result.output
    assert not (tmp_path / "run").exists() and not (tmp_path / ".run.lock").exists()
    assert fit("--resume").exit_code == 0
