"""The speed harness works: its parts fit together, and its loop has the loss of the library."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import scale
from pyro_vmtl import Stack
from pyro_vmtl.methods.presets import presets

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_quick_form_measures_everything(tmp_path):
    out = {name: tmp_path / name for name in ("speed.json", "speed.md", "speed.png")}
    command = [sys.executable, "-m", "benchmarks.speed", "--quick"]
    command += ["--json", str(out["speed.json"]), "--tables", str(out["speed.md"])]
    command += ["--picture", str(out["speed.png"])]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    results = json.loads(out["speed.json"].read_text())
    assert {row["method"] for row in results["step"]} == {"shared", "vmtl"}
    for row in results["step"]:
        assert row.keys() >= {"name", "ratio_to_floor", "goal"}
        assert row["ratio_to_floor"] > 0
    assert {row["size"] for row in results["growth"]} == {"T", "N", "F", "C", "D"}
    (loop,) = results["loop"]
    # sums of float32 in another order
    assert loop["relative_difference_of_losses"] < 1e-5
    small, large = results["memory"]
    assert 0 < small["peak_bytes"] < large["peak_bytes"]
    (wall,) = results["wall"]
    assert wall["seconds_to_99"] > 0 and wall["steps"] == 20
    assert results["padding"][0]["padding"] > 1
    assert "## Step against its floor" in out["speed.md"].read_text()
    assert out["speed.png"].stat().st_size > 1000


def test_the_benchmark_of_large_data_prints_its_table(monkeypatch, capsys):
    member = replace(presets("regression")["shared"], fitting={"num_steps": 300})
    quick = {"default": Stack({"shared": member}, num_folds=2)}
    monkeypatch.setattr(scale, "presets", lambda kind: quick)
    command = ["long-tasks", "--tasks", "3", "--rows", "200", "--features", "2"]
    monkeypatch.setattr(sys, "argv", ["scale", *command])
    scale.main()
    lines = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    # the root mean square error: nobody is better than Bayes but by chance
    ours, bayes = float(lines["default"][1]), float(lines["Bayes"][1])
    assert 0.97 * bayes < ours < 1.1 * bayes
