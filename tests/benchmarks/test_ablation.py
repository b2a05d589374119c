"""The ablation's default is the stack itself."""

from dataclasses import replace

import pytest

from benchmarks import ablation
from benchmarks.datasets import GroupedTasks
from benchmarks.rows import to_task_data
from pyro_vmtl.methods.by_features import ByFeatures
from pyro_vmtl.methods.presets import presets


def test_the_default_of_the_ablation_predicts_as_the_stack_does(monkeypatch):
    stack = presets("regression")["default"].many_features
    few = {"fitting": {"num_steps": 5}}
    names = ("shared", "alone")
    members = {name: replace(stack.members[name], **few) for name in names}
    stack = replace(stack, members=members, num_folds=2)
    data_set = GroupedTasks(tasks=3, groups=1, rows=10)
    monkeypatch.setattr(ablation, "presets", lambda kind: {"default": ByFeatures(stack, stack)})
    monkeypatch.setattr(ablation, "SUITE", {"row": (data_set,)})
    rows = {row["variant"]: row for row in ablation.trial("row", 0)}
    assert len(rows) == 9
    data, test = to_task_data(data_set.split(100, validation=True), "regression")
    density = stack.fit(data, seed=0).predictive(test).log_prob(test.y)[test.mask]
    assert rows["default"]["nll"] == pytest.approx(-float(density.mean()), rel=1e-5)
    assert rows["not calibrated"]["nll"] != rows["default"]["nll"]
