"""Many tasks: nothing has all their pairs beyond the limit, and what needs them says so."""

import re

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyro_vmtl import VMTLClassifier, VMTLRegressor
from pyro_vmtl.data.limits import LimitError, LimitWarning
from pyro_vmtl.estimators.predicting import MAX_NUMBERS, prediction_batches
from pyro_vmtl.methods.presets import FEW_FEATURES
from pyro_vmtl.methods.stack import Stack

T = 61


class LargestShapes(TorchDispatchMode):
    """Collect the shapes of tensors with at least two dimensions as long as the number of tasks."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            shape = getattr(value, "shape", ())
            if sum(T - 1 <= n <= T + 1 for n in shape) > 1:
                self.found.add((str(function), *shape))
        return result


def table(classes=False):
    """Tasks of one row, but for the first ten, which have two."""
    rng = np.random.default_rng(0)
    tasks = [*range(T), *range(10)]
    X = rng.normal(size=(len(tasks), 3))
    y = X @ [1.0, -1.0, 0.5] + 0.3 * rng.normal(size=len(tasks))
    return X, np.where(y > 0, "yes", "no") if classes else y, tasks


@pytest.fixture
def few_pairs(monkeypatch):
    monkeypatch.setenv("PYRO_VMTL_MAX_TASK_PAIRS", str((T - 1) ** 2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [VMTLRegressor, VMTLClassifier])
def test_nothing_has_all_pairs_of_tasks(kind, few_pairs, tmp_path):
    X, y, tasks = table(kind is VMTLClassifier)
    with LargestShapes() as shapes, pytest.warns(LimitWarning) as caught:
        fitted = kind("default").fit(X, y, tasks)
        summary = fitted.summary()
        fitted.predict(X, tasks)
        tree = fitted.to_datatree(X, y, tasks, num_samples=10)
        fitted.save(tmp_path / "fit")
        kind.load(tmp_path / "fit")
    (left_out,) = {str(warning.message) for warning in caught}
    assert re.match(r"Member 'shared' is left out\..*=3721\.$", left_out)  # without Pyro's shapes
    assert shapes.found == set()
    for node in tree.subtree:
        for name, variable in node.data_vars.items():
            assert sum(size >= T - 1 for size in variable.shape) < 2, name
    assert [*fitted.fitted_.members] == ["mixed-model"]
    assert summary["nearest"].isna().all() and summary["share"].isna().all()
    assert (summary["borrowed"] > 0).all()


def test_what_is_borrowed_in_all_needs_no_pairs(monkeypatch):
    X, y, tasks = table()
    members = dict(FEW_FEATURES["regression"])
    members["pooled"] = VMTLRegressor("pooled")._resolve_method().few_features
    del members["shared"]
    fitted = VMTLRegressor(Stack(members, num_folds=2)).fit(X, y, tasks)
    weights = fitted.fitted_.weights
    mean = [m.borrowing.mean(m.guide)[:, -1] for m in fitted.fitted_.members.values()]
    expected = 1 - (weights * torch.stack(mean, dim=1)).sum(1)
    monkeypatch.setenv("PYRO_VMTL_MAX_TASK_PAIRS", "1")
    found = torch.tensor(fitted.summary()["borrowed"])[np.argsort(fitted._task_order())]
    torch.testing.assert_close(found, expected.to(found), rtol=1e-5, atol=1e-6)


def test_methods_that_compare_all_tasks_say_which_do_not(few_pairs):
    X, y, tasks = table()
    with pytest.raises(LimitError, match=r"61 tasks has 3,721 pairs.*'mixed-model'"):
        VMTLRegressor("shared").fit(X, y, tasks)
    fitted = VMTLRegressor("mixed-model").fit(X, y, tasks)
    with pytest.raises(LimitError, match="relatedness of 61 tasks has 3,721 pairs"):
        _ = fitted.relatedness_


def test_a_stack_of_one_that_shares_raises(few_pairs):
    X, y, tasks = table()
    method = Stack({"shared": FEW_FEATURES["regression"]["shared"]})
    with pytest.raises(LimitError, match="Sharing among 61 tasks"):
        VMTLRegressor(method).fit(X, y, tasks)


def test_a_long_task_among_many_is_not_padded():
    """Rows that batches compute, with padding, against those to predict: 10,100."""
    labels = [*["long"] * 10_000, *map(str, range(100))]
    computed = 0
    known = tuple(dict.fromkeys(labels))
    for rows, tasks in prediction_batches(labels, known, 3, MAX_NUMBERS // 200):
        longest = np.unique([labels[row] for row in rows.tolist()], return_counts=True)[1].max()
        computed += len(tasks) * longest
    assert computed < 1.1 * len(labels)
