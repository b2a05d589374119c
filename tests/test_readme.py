"""The README's own model fits, and is as short as promised."""

import doctest
import re
from pathlib import Path

import pytest
import torch

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.slow
def test_the_model_in_the_readme_becomes_vmtl(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
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
