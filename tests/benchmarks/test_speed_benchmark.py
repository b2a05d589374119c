"""The speed harness works: its parts fit together, and its loop has the loss of the library."""

import json
import sys
from dataclasses import replace

import pytest

from benchmarks import scale
from benchmarks.speed import __main__ as speed
from pyro_vmtl import Stack
from pyro_vmtl.methods.presets import presets


@pytest.mark.slow
def test_the_quick_form_measures_everything(tmp_path):
    json_path, tables, picture = (tmp_path / f"speed.{end}" for end in ("json", "md", "png"))
    speed.main(json_path=json_path, tables=tables, picture=picture, quick=True)
    results = json.loads(json_path.read_text())
    assert {row["method"] for row in results["step"]} == {"shared", "vmtl"}
    for row in results["step"]:
        assert row.keys() >= {"name", "ratio_to_floor", "goal"}
        assert row["ratio_to_floor"] > 0
    assert {row["size"] for row in results["growth"]} == {"T", "D"}
    (loop,) = results["loop"]
    # sums of float32 in another order
    assert loop["relative_difference_of_losses"] < 1e-5
    small, large = results["memory"]
    assert 0 < small["peak_bytes"] < large["peak_bytes"]
    (wall,) = results["wall"]
    assert wall["seconds_to_99"] > 0 and wall["steps"] == 20
    assert results["padding"][0]["padding"] > 1
    assert "## Step against its floor" in tables.read_text()
    assert picture.stat().st_size > 1000


def test_the_benchmark_of_large_data_prints_its_table(monkeypatch, capsys):
    member = replace(
        presets("regression")["shared"].many_features,
        fitting={"num_steps": 50, "learning_rate": 0.1},
    )
    quick = {"default": Stack({"shared": member}, num_folds=2)}
    monkeypatch.setattr(scale, "presets", lambda kind: quick)
    command = ["long-tasks", "--tasks", "3", "--rows", "200", "--features", "2"]
    monkeypatch.setattr(scale, "TEST_ROWS", 3000)
    monkeypatch.setattr(sys, "argv", ["scale", *command])
    scale.main()
    lines = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    # the root mean square error: nobody is better than Bayes but by chance
    ours, bayes = float(lines["default"][1]), float(lines["Bayes"][1])
    assert 0.97 * bayes < ours < 1.1 * bayes
