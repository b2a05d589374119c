"""The command ``new-variant``: files to start a model and guide of one's own from."""

from __future__ import annotations

import keyword
from pathlib import Path

__all__ = ["write_variant"]

PROGRAMS = '''"""{name}: linear regression in every task. Change the model, and keep the plates."""

import pyro
import pyro.distributions as dist

from pyro_vmtl import TaskData, share
from pyro_vmtl.guides import MeanFieldNormal


def model(data: TaskData):
    """Sample coefficients and targets; condition on the targets where they are known."""
    noise = pyro.sample("noise", dist.LogNormal(data.x.new_tensor(-1.0), 1.0))
    with pyro.plate("task", data.num_tasks, dim=-2):
        zero = data.x.new_zeros(data.num_features)
        w = pyro.sample("w", dist.Normal(zero, 1.0).to_event(1))  # of each task, (T, 1, F)
        mean = (data.x @ w.mT).squeeze(-1)  # (T, N)
        with pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Normal(mean, noise), obs=data.y)


def programs(data: TaskData):
    """Return model and guide, not yet fitted, that share the coefficients between tasks."""
    guide = MeanFieldNormal.for_model(model, data)  # or any of Pyro's autoguides
    return share(model, guide, sites=["w"])
'''

TEST = '''"""{name} passes the checks of programs of one's own: pytest test_{name}.py"""

import torch
from {name} import programs

from pyro_vmtl import TaskData
from pyro_vmtl.testing import parametrize_with_checks

RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(40, 2, generator=RANDOM)
y = X @ torch.tensor([1.0, -0.5]) + 0.3 * torch.randn(40, generator=RANDOM)
DATA = TaskData.regression(X, y, ["a"] * 8 + ["b"] * 12 + ["c"] * 20).with_intercept()


@parametrize_with_checks(programs, DATA)
def test_{name}(check):
    check()
'''


def write_variant(name: str, folder: Path) -> list[Path]:
    """Write ``name.py`` and ``test_name.py``, and return their paths.

    Raises
    ------
    ValueError
        If the name is none of a Python module, or one of the files exists: then none is written.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(
            f"NAME is {name!r}, expected that of a Python module: letters, digits and underscores, "
            "such as robust_regression."
        )
    files = {folder / f"{name}.py": PROGRAMS, folder / f"test_{name}.py": TEST}
    for path in files:
        if path.exists():
            raise ValueError(f"{path} exists. Choose another name, or remove it.")
    for path, text in files.items():
        path.write_text(text.replace("{name}", name), encoding="utf-8")
    return list(files)
