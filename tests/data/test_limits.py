"""Limits hold before anything is allocated, and are those of the documentation."""

import re
from pathlib import Path

import pytest
import torch

from pyro_vmtl.data.limits import LIMITS, AllocationLimit, check_limit
from pyro_vmtl.data.tensor_files import read_tensors, write_tensors

PAGE = (Path(__file__).parents[2] / "docs" / "safety.md").read_text(encoding="utf-8")


def test_the_page_names_all_limits():
    rows = re.findall(r"\| `PYRO_VMTL_MAX_(\w+)` \| ([\d,]+) \|", PAGE)
    assert {name: int(most.replace(",", "")) for name, most in rows} == {
        name: most for name, (most, _) in LIMITS.items()
    }


def test_a_limit_is_adjustable_as_its_message_says(monkeypatch):
    with pytest.raises(ValueError, match="PYRO_VMTL_MAX_COLUMNS=10001") as caught:
        check_limit("COLUMNS", 10_001, "a.csv")
    variable, value = str(caught.value).rstrip(".").split()[-1].split("=")
    monkeypatch.setenv(variable, value)
    check_limit("COLUMNS", 10_001, "a.csv")


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.nn.Linear(10**6, 10**6),
        lambda: [torch.zeros(10**8, device="meta") for _ in range(3)],
        lambda: torch.full((10**5, 10**5), 1.0),
        lambda: torch.randn(10**10, generator=torch.Generator()),
        lambda: torch.arange(10**12),
    ],
)
def test_large_tensors_are_refused_before_they_are_made(make):
    with pytest.raises(ValueError, match="MAX_NUMBERS"), AllocationLimit("it"):
        make()
    with AllocationLimit("it"):
        assert torch.nn.Linear(3, 4)(torch.ones(2, 3)).shape == (2, 4)


def test_tensors_come_back_and_changes_are_told(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(True), "c": torch.ones(0)}
    write_tensors(path, tensors, {"text": "ß"})
    found, texts = read_tensors(path)
    assert texts == {"text": "ß"} and found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    data = bytearray(path.read_bytes())
    data[-2] ^= 64
    path.write_bytes(data)
    with pytest.raises(ValueError, match="was changed"):
        read_tensors(path)
    write_tensors(path, {"a": torch.tensor([0.0, float("nan")])})
    with pytest.raises(ValueError, match="NaN in 'a'"):
        read_tensors(path)
