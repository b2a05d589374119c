"""The wheel, built from the sdist, works outside the checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command, cwd, **environment):
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.slow
def test_wheel_and_sdist_work_elsewhere(tmp_path):
    source, built, target = tmp_path / "source", tmp_path / "built", tmp_path / "target"
    skip = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, symlinks=True, ignore=skip)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built)]
    run(*build, cwd=source)  # the sdist, and the wheel from the sdist
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")

    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert tops == {"pyro_vmtl"}  # no top-level `models` to collide with the user's own
    for module in (
        "py.typed",
        "models/priors.py",
        "guides/mean_field.py",
        "analysis/metrics.py",
        "sharing/share.py",
        "analysis/report.html",
        "datasets/radon.csv",
    ):
        assert f"pyro_vmtl/{module}" in names
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("/models/priors.py") for name in archive.getnames())

    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    run(*install, "--target", str(target), str(wheel), cwd=tmp_path)
    code = (
        "import pyro_vmtl, pyro_vmtl.models, pyro_vmtl.guides, pyro_vmtl.analysis as a;"
        "print(pyro_vmtl.__file__, pyro_vmtl.models.__file__, a.__file__, sep='\\n')"
    )
    where = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(target)).split()
    assert all(path.startswith(str(target)) for path in where)
    command = "from pyro_vmtl.cli.main import app; app()"
    shown = run(sys.executable, "-c", command, "--help", cwd=tmp_path, PYTHONPATH=str(target))
    assert "fit" in shown
