"""Every variant of the gallery passes the checks, is short, and is drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from benchmarks.made_up import MADE_UP
from benchmarks.variants import fitted, made_up, measure, table, variant
from pyro_vmtl import (
    Programs,
    Stack,
    VMTLRegressor,
    add_task,
    load_fitted,
    quantiles,
    save_fitted,
)
from pyro_vmtl.analysis import report_sections, to_datatree
from pyro_vmtl.testing import CHECKS, NotApplicable, Variant

ROOT = Path(__file__).parents[2]


def test_the_gallery_has_a_file_and_a_row_for_each():
    files = {path.stem for path in (ROOT / "variants").glob("[!_]*.py")}
    assert files == set(MADE_UP)
    page = (ROOT / "docs" / "variants.md").read_text()
    for name in files:
        assert f"(../variants/{name}.py)" in page and f"(variants/{name}.png)" in page


@pytest.mark.parametrize("name", MADE_UP)
def test_variants_are_short(name):
    lines = (ROOT / "variants" / f"{name}.py").read_text().splitlines()
    assert len(lines) <= 60
    assert sum("share(" in line for line in lines) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE_UP)
def test_variants_pass_all_checks(name):
    checked = Variant(variant(name).programs, made_up(name, 0).data)
    refused = []
    for check in CHECKS.values():
        try:
            check(checked)
        except NotApplicable:
            refused.append(check.__name__)
    assert refused == ["check_task_blocks"]  # they read data.x as it is, to be short


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE_UP)
def test_variants_go_wherever_presets_go(name, tmp_path):
    """Stack, quantiles, new tasks, files and back, a tree with rows, the report, estimators."""
    data, programs, settings = made_up(name, 0).data, variant(name).programs, variant(name).SETTINGS
    few = {"num_steps": 15}
    method = Stack(
        {"a": Programs(programs, {**settings, **few}), "b": Programs(programs, few)}, num_folds=2
    )
    fitted = method.fit(data)
    predictive = fitted.predictive(data, num_samples=20)
    if data.classes is None:
        low, high = quantiles(predictive, [0.05, 0.95])
        assert (low <= high).all() and (low < high).any()
    new = replace(data.map_rows(lambda values: values[:1]), task_labels=("new",))
    assert fitted.new_task_predictive(new, num_samples=5).batch_shape == new.mask.shape
    assert add_task(fitted, new).num_tasks == data.num_tasks + 1
    save_fitted(tmp_path / "fit.safetensors", fitted, data)
    again, _ = load_fitted(tmp_path / "fit.safetensors", method)
    assert torch.equal(again.relatedness(num_samples=5), fitted.relatedness(num_samples=5))
    tree = to_datatree(fitted, data, rows=data, num_samples=20)
    assert tree["predictions"].dataset.sizes["row"] == int(data.mask.sum())
    assert report_sections(tree)
    if data.classes is None:
        rows, tasks = data.x[data.mask], data.mask.nonzero()[:, 0].tolist()
        columns = {key: values[data.mask] for key, values in data.columns.items()}
        estimator = VMTLRegressor(method.members["a"], scale_targets=False)
        estimator.fit(rows, data.y[data.mask], tasks=tasks, columns=columns)
        predicted = estimator.predict(rows, tasks=tasks, columns=columns)
        assert predicted.shape == (len(rows),) and np.isfinite(predicted).all()


@pytest.mark.slow
def test_pictures_and_table(name="poisson"):
    problem = made_up(name, 0)
    axes = Figure().subplots()
    variant(name).picture(axes, *fitted(name, problem), problem.data)
    assert axes.get_title() and axes.get_legend()
    found = measure(name, 0)
    assert set(found) == {"w"} and 0.5 < found["w"]["linear response"] <= 1
    assert "poisson.py" in table({name: [found]})
