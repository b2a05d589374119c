"""What examples in docstrings take for granted: ``data``, ``fitted``, ``tree`` and others."""

import pytest
import torch

from pyro_vmtl import Preset, TaskData, influence
from pyro_vmtl.analysis import to_datatree


@pytest.fixture(scope="session")
def example():
    """Fit twelve rows of each of three tasks, and export the fit."""
    tasks = ["Ada", "Bo", "Cy"] * 12
    X = torch.linspace(-1, 1, 36)[:, None]
    slopes = torch.tensor([1.0, 1.1, -1.0])[[0, 1, 2] * 12]
    data = TaskData.regression(X, slopes * X[:, 0] + 0.1 * torch.sin(9 * X[:, 0]), tasks)
    data = data.with_intercept()
    fitted = Preset(fitting={"num_steps": 50}).fit(data)  # few steps, to be quick
    tree = to_datatree(fitted, data, rows=data, num_samples=100)
    return {
        "data": data,
        "fitted": fitted,
        "model": fitted.model,
        "guide": fitted.guide,
        "tree": tree,
        "effects": influence(fitted, data),
    }


@pytest.fixture(autouse=True)
def names_of_examples(request, doctest_namespace):
    """Let the doctests, and them alone, know these names."""
    if isinstance(request.node, pytest.DoctestItem):
        doctest_namespace.update(request.getfixturevalue("example"))
