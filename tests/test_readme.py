"""The README's own model fits, and is as short as promised."""

import doctest
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_vmtl import Stack, VMTLRegressor
from pyro_vmtl.methods import presets

README = (Path(__file__).parents[1] / "README.md").read_text()


BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.slow
def test_a_table_of_ones_own_takes_ten_lines(tmp_path, monkeypatch, capsys):
    code, _ = BLOCKS
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 10
    rng = np.random.RandomState(0)
    exams = pd.DataFrame(rng.uniform(5, 18, (60, 2)), columns=["age", "hours"])
    exams["school"] = np.repeat(["Ash", "Birch", "Cedar"], 20)
    exams["score"] = 3 * exams["age"] + exams["hours"] + rng.normal(size=60)
    exams.to_csv(tmp_path / "exams.csv", index=False)
    monkeypatch.chdir(tmp_path)
    members = {  # few steps, to be quick here: after 50 a fit is recorded
        name: replace(member, fitting={**member.fitting, "num_steps": 50})
        for name, member in presets.DEFAULT.members.items()
    }
    monkeypatch.setattr(presets, "DEFAULT", Stack(members, num_folds=2))
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert "Birch" in capsys.readouterr().out
    error = names["mean"] - exams["score"]
    assert error.std() < 1.3 and 0.7 < names["std"].mean() < 1.6  # the noise is 1
    assert (tmp_path / "relatedness.png").exists()
    again = VMTLRegressor.load(tmp_path / "model")
    assert again.tasks_ == ("Ash", "Birch", "Cedar", "new school")


@pytest.mark.slow
def test_the_model_in_the_readme_becomes_vmtl(capsys):
    _, code = BLOCKS
    assert len(code.strip().splitlines()) <= 25
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    weights = names["relatedness"](names["guide"], "w").mean(0)
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    # Ada and Bo borrow from each other, and so do Cy and Di.
    for task, twin in enumerate([1, 0, 3, 2]):
        assert weights[task, twin] > 0.5 * weights[task, :4].sum()
    assert names["mean"].shape == names["std"].shape
    assert names["result"].stopped == "settled"
    true_rate = names["rate"]
    fitted = names["predict_moments"](names["model"], names["guide"], names["data"])[0]
    fitted = names["data"].unpad(fitted)
    # closer to the true rates than the best constant is
    assert (fitted - true_rate).square().mean() < 0.3 * true_rate.var()
    assert capsys.readouterr().out.startswith("tensor")


@pytest.mark.slow
def test_the_examples_of_presets_run():
    path = Path(__file__).parents[1] / "README.md"
    failed, tried = doctest.testfile(str(path), module_relative=False)
    assert tried >= 9 and failed == 0


def test_what_the_readme_names_exists():
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (Path(__file__).parents[1] / path).exists(), path
