"""Pictures of predictions: the data on them, and that nothing is cut off."""

from dataclasses import replace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.colors import to_rgb
from scipy.special import softmax
from scipy.stats import entropy, norm

from pyro_vmtl import Stack, VMTLClassifier, VMTLRegressor
from pyro_vmtl.analysis import (
    decision_grid,
    most_uncertain_rows,
    plot_decision_regions,
    plot_regression_bands,
    plot_shrinkage,
    plot_uncertain_rows,
    plot_uncertainty,
    regression_grid,
)
from pyro_vmtl.analysis.canvas import COLORS
from pyro_vmtl.methods.presets import ALONE, SHARED

mpl.use("agg")

LONG = "Saint Bartholomew's grammar school for {}"
"""About forty letters."""

QUICK = {
    name: replace(preset, fitting={**preset.fitting, "num_steps": 20})
    for name, preset in {"shared": SHARED, "alone": ALONE}.items()
}


@pytest.fixture(autouse=True)
def closed_figures():
    """Close the pictures of a test, so that few are open at a time."""
    yield
    plt.close("all")


def lines(ax, label):
    return next(line for line in ax.lines if line.get_label() == label).get_xydata()


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def ticks(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def check_inside(ax):
    """Check that all texts are in the figure, and the legend on nothing."""
    figure = ax.figure
    figure.draw_without_rendering()
    shown = [ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label]
    shown += ax.get_legend().get_texts()
    for axis, places, limits in (
        (ax.get_xticklabels(), ax.get_xticks(), ax.get_xlim()),
        (ax.get_yticklabels(), ax.get_yticks(), ax.get_ylim()),
    ):
        shown += [t for t, at in zip(axis, places, strict=True) if limits[0] <= at <= limits[1]]
    for text in shown:
        box = text.get_window_extent()
        width, height = figure.bbox.size
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert not text.get_text() or inside, f"{text.get_text()!r} is at {box.extents}"
    others = [ax.get_window_extent(), ax._left_title.get_window_extent()]
    for text in ax.get_legend().get_texts():
        assert not any(text.get_window_extent().overlaps(other) for other in others)


# Grids


def three_draws(X, tasks):
    """Probabilities of three classes by three draws of linear coefficients, (3, rows, 3)."""
    w = np.random.default_rng(0).normal(size=(3, 2, 3))
    return softmax(3 * np.asarray(X) @ w, axis=-1)


FRAME = pd.DataFrame([[0.0, 10.0], [2.0, 30.0]], columns=["hours", "age"])


def test_a_grid_of_classes_splits_the_entropy():
    grid = decision_grid(three_draws, FRAME / 10, task="Ada", num=7)
    # 12 % of the range on both sides
    np.testing.assert_allclose(grid["x1"], np.linspace(1 - 0.24, 3 + 0.24, 7))
    point = [[float(grid["x0"][2]), float(grid["x1"][5])]]
    draws = three_draws(point, None)[:, 0]
    at = grid.isel(x0=2, x1=5)
    # closed forms in float64
    np.testing.assert_allclose(at["proba"], draws.mean(0), rtol=1e-9)
    assert float(at["entropy"]) == pytest.approx(entropy(draws.mean(0)), rel=1e-9)
    assert float(at["expected_entropy"]) == pytest.approx(entropy(draws.T).mean(), rel=1e-9)
    total = grid["expected_entropy"] + grid["mutual_information"]
    np.testing.assert_allclose(total, grid["entropy"], rtol=1e-9)
    assert int(at["label"]) == draws.mean(0).argmax()
    assert grid.attrs == {"task": "Ada", "features": ["hours", "age"]}


def test_probabilities_without_draws_are_not_split():
    grid = decision_grid(lambda X, t: three_draws(X, t)[0], FRAME, task="Ada", num=3)
    assert set(grid.data_vars) == {"proba", "entropy", "label"}


def test_a_grid_says_what_it_needs():
    with pytest.raises(ValueError, match=r"shape \(2, 1\), expected \(rows, 2\)"):
        decision_grid(three_draws, FRAME[["age"]], task="Ada")
    with pytest.raises(ValueError, match=r"array of shape \(9,\), expected probabilities \(9 rows"):
        decision_grid(lambda X, t: X[:, 0], FRAME, task="Ada", num=3)
    with pytest.raises(ValueError, match="For classes use decision_grid"):
        regression_grid(two_classes, FRAME[["age"]], task="Ada", num=3)


def test_a_grid_of_real_targets_is_what_the_regressor_predicts():
    rng = np.random.default_rng(1)
    X, tasks = rng.normal(size=(40, 1)), ["Ada", "Bo"] * 20
    y = 50 + 10 * (X[:, 0] + rng.normal(size=40))
    fitted = VMTLRegressor(QUICK["shared"]).fit(X, y, tasks)
    grid = regression_grid(fitted, X, task="Bo", num=9)
    x = grid["x0"].values[:, None]
    mean, std = fitted.predict(x, tasks=["Bo"] * 9, return_std=True)
    # float32 sums of 200 draws in another order
    np.testing.assert_allclose(grid["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(grid["std"], std, rtol=1e-4)
    total = grid["aleatoric_std"] ** 2 + grid["epistemic_std"] ** 2
    np.testing.assert_allclose(total, std**2, rtol=1e-4)
    # nearly normal: the noise is most of it, and the means of 200 draws are nearly normal
    expected = mean[:, None] + std[:, None] * norm.ppf([0.05, 0.25, 0.75, 0.95])
    assert np.abs(grid["quantile"] - expected).max() < 0.1 * std.max()
    ax = plot_regression_bands(grid, rows=(X, y, tasks))
    np.testing.assert_allclose(lines(ax, "mean")[:, 1], mean, rtol=1e-5)
    own = ax.collections[-1].get_offsets()
    np.testing.assert_allclose(own, np.c_[X[1::2, 0], y[1::2]])
    np.testing.assert_allclose(lines(ax, "other tasks"), np.c_[X[::2, 0], y[::2]])
    with pytest.raises(ValueError, match="None of the rows is of task 'Bo'"):
        plot_regression_bands(grid, rows=(X, y, ["Ada"] * 40))


def test_a_stack_is_split_as_it_predicts():
    rng = np.random.default_rng(2)
    X, tasks = rng.normal(size=(30, 2)), ["Ada", "Bo", "Cy"] * 10
    y = np.where(X[:, 0] + 0.3 * rng.normal(size=30) > 0, "yes", "no")
    fitted = VMTLClassifier(Stack(QUICK, num_folds=2), num_samples=50).fit(X, y, tasks)
    grid = decision_grid(fitted, X, task="Bo", num=4)
    points = np.stack(np.meshgrid(grid["x0"], grid["x1"], indexing="ij"), -1).reshape(-1, 2)
    proba = fitted.predict_proba(points, tasks=["Bo"] * 16)
    np.testing.assert_allclose(grid["proba"].values.reshape(-1, 2), proba, atol=1e-6)  # float32
    assert set(grid["label"].values.ravel()) <= {"no", "yes"}
    assert float(grid["mutual_information"].min()) >= 0
    ax = plot_shrinkage(fitted.to_datatree(X, y, tasks, num_samples=20), coords={"class": "yes"})
    assert ax.get_xlabel().endswith(" of class yes, standard units")


# Regions and bands


def two_classes(X, tasks):
    p = 1 / (1 + np.exp(-4 * X[:, 0]))
    return np.stack([1 - p, p], axis=1)


def test_regions_fade_to_white_where_classes_are_even():
    grid = decision_grid(two_classes, [[-3.0, 0.0], [3.0, 1.0]], task="Ada", num=31)
    rows = ([[-2.0, 0.5], [2.0, 0.5], [1.0, 0.0]], [0, 1, 1], ["Ada", "Ada", "Bo"])
    ax = plot_decision_regions(grid, rows=rows)
    image = np.asarray(ax.images[0].get_array())  # (x1, x0, 3)
    np.testing.assert_allclose(image[:, 15], 1.0)  # x0 = 0
    # sure to 1e-6: 0.6 of the colour, the rest white
    np.testing.assert_allclose(image[0, -1], 1 - 0.6 * (1 - np.array(to_rgb(COLORS[1]))), atol=1e-4)
    even, surer = (c.get_paths() for c in ax.collections)
    np.testing.assert_allclose(even[0].vertices[:, 0], 0.0, atol=1e-9)
    found = np.unique(np.abs(surer[1].vertices[:, 0]).round(2))
    # p = 0.9 at log(9) / 4; lines between points 0.25 apart
    assert np.abs(found - np.log(9) / 4).max() < 0.05
    points = [line.get_xydata().tolist() for line in ax.lines]
    others, no, yes = (xy for xy in points if xy)  # without those of the legend
    assert (others, no, yes) == ([[1.0, 0.0]], [[-2.0, 0.5]], [[2.0, 0.5]])
    assert legend(ax) == ["0", "1", "other tasks"]
    assert len({line.get_marker() for line in ax.lines}) == 3  # not by colour alone
    check_inside(ax)


def test_many_classes_with_long_names_stay_in_the_picture():
    w = np.random.default_rng(0).normal(size=(2, 14))
    grid = decision_grid(lambda X, t: softmax(X @ w, 1), FRAME, task=LONG.format(1), num=9)
    grid = grid.assign_coords({"class": [LONG.format(i) for i in range(14)]})
    ax = plot_decision_regions(grid)
    assert legend(ax)[-1] == "and 4 more" and len(set(legend(ax))) == 11
    check_inside(ax)
    with pytest.raises(ValueError, match="expected what decision_grid returns"):
        plot_decision_regions(grid.drop_vars("proba"))


def test_bands_hold_quantiles_and_dashes_the_mean():
    x, mean = np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])
    quantile = mean[:, None] + np.array([-4.0, -1.0, 1.5, 5.0])
    grid = xr.Dataset(
        {"mean": ("x0", mean), "epistemic_std": ("x0", [0.5, 1.0, 1.5])}
        | {"quantile": (("x0", "probability"), quantile)},
        coords={"x0": x},
        attrs={"task": LONG.format(1), "features": [LONG.format(2)]},
    )
    ax = plot_regression_bands(grid)
    for band, (low, high) in zip(ax.collections, [(-4, 5), (-1, 1.5)], strict=True):
        points = {(a, b) for a, b in band.get_paths()[0].vertices.round(9)}
        assert points == {(a, a + 1 + side) for a in x for side in (low, high)}
    lower = lines(ax, "90 % for the mean")[:, 1]
    np.testing.assert_allclose(lower, mean + norm.ppf(0.05) * np.array([0.5, 1, 1.5]), atol=1e-3)
    check_inside(ax)
    with pytest.raises(ValueError, match="expected what regression_grid returns"):
        plot_regression_bands(grid.drop_vars("quantile"))


# Uncertainty


def classes(num_tasks=2, name="{}"):
    """Three rows for each task; those of later tasks are less sure, and fewer were fitted."""
    tasks = np.repeat([name.format(i) for i in range(num_tasks)], 3)
    place = np.arange(3 * num_tasks)
    proba = np.stack([0.9 - 0.4 * place / place[-1], 0.1 + 0.4 * place / place[-1]], 1)
    whole = entropy(proba.T)
    mutual = 0.25 * whole
    rows = xr.Dataset(
        {"proba": (("row", "class"), proba), "y": ("row", place % 2), "entropy": ("row", whole)}
        | {"mutual_information": ("row", mutual), "expected_entropy": ("row", whole - mutual)},
        coords={
            "row": place + 100,
            "task": ("row", tasks),
            "class": [LONG.format(c) for c in "AB"],
        },
    )
    fitted = xr.Dataset({"y": ("row", [0] * (len(tasks) - 1))}, {"task": ("row", tasks[1:])})
    return xr.DataTree.from_dict({"predictions": rows, "observed_data": fitted})


def real():
    rows = xr.Dataset(
        {"mean": ("row", [1.0, 2, 3]), "y": ("row", [1.5, 2, 2]), "std": ("row", [5.0, 1.25, 13])}
        | {"epistemic_std": ("row", [3.0, 1, 5]), "aleatoric_std": ("row", [4.0, 0.75, 12])},
        coords={"task": ("row", ["Ada", "Bo", "Bo"])},
    )
    return xr.DataTree.from_dict({"predictions": rows})


def widths(ax):
    """Widths of the bars from the bottom up: what stays, and what more rows could remove."""
    return [[bar.get_width() for bar in bars] for bars in ax.containers]


def test_bars_are_means_over_the_rows_of_a_task():
    data = classes()
    ax = plot_uncertainty(data)
    means = data["predictions"]["entropy"].values.reshape(2, 3).mean(1)
    stays, goes = widths(ax)
    np.testing.assert_allclose(stays, 0.75 * means)
    np.testing.assert_allclose(goes, 0.25 * means)
    assert ticks(ax) == ["1 (3)", "0 (2)"]  # from the top; training rows
    assert ax.get_xlabel() == "mean entropy (nats)"
    hatches = [{bar.get_hatch() for bar in bars} for bars in ax.containers]
    assert hatches == [{None}, {"///"}]


def test_variances_of_real_targets_add_up():
    stays, goes = widths(plot_uncertainty(real()))
    assert stays == [16.0, (0.75**2 + 144) / 2] and goes == [9.0, 13.0]
    ax = plot_uncertain_rows(real(), n=2)
    assert widths(ax) == [[16.0, 144.0], [9.0, 25.0]]
    assert ticks(ax)[1] == "row 2 · task Bo\ntrue 2, says 3 ± 13"


@pytest.mark.parametrize("num_tasks", [1, 139])
def test_one_task_and_many_stay_in_the_picture(num_tasks):
    data = classes(num_tasks, LONG)
    ax = plot_uncertainty(data)
    assert 0 < len(ticks(ax)) <= 30
    check_inside(ax)
    ax = plot_uncertain_rows(data, n=3)
    assert len(widths(ax)[0]) == 3
    check_inside(ax)
    ax = plot_shrinkage(*both(num_tasks, LONG))
    assert len(lines(ax, "alone")) == num_tasks
    check_inside(ax)


def test_the_least_sure_rows_come_first():
    data = classes()
    table = most_uncertain_rows(data, 2)
    assert table["row"].tolist() == [105, 104] and table["task"].tolist() == ["1", "1"]
    assert table["true"].tolist() == [LONG.format("B"), LONG.format("A")]
    assert table["predicted"][1] == LONG.format("A") and table["probability"][1] == pytest.approx(
        0.9 - 0.4 * 4 / 5
    )
    data["predictions"]["y"].attrs["classes"] = '["x", "y"]'
    assert most_uncertain_rows(data, 1)["true"].tolist() == ["y"]
    by = most_uncertain_rows(real(), 2, by="epistemic_std")
    assert by["row"].tolist() == [2, 0] and by["true"].tolist() == [2.0, 1.5]
    with pytest.raises(ValueError, match="by is 'std', expected one of mutual_information"):
        most_uncertain_rows(data, by="std")
    with pytest.raises(ValueError, match="no variable 'mutual_information' in a group 'predict"):
        most_uncertain_rows(xr.DataTree())


# Shrinkage

DRAWS = np.linspace(-1, 1, 101)


def tree(means, widths, names):
    """Draws evenly spaced around means (tasks, features), as wide as each feature has it."""
    w = np.asarray(means)[None, None] + DRAWS[None, :, None, None] * np.asarray(widths)
    labels = {"task": names, "feature": ["hours", "age"][: w.shape[-1]]}
    dims = ("chain", "draw", "task", "feature")
    group = xr.Dataset({"w": (dims, w)}, labels)
    return xr.DataTree.from_dict({"posterior": group, "prior": group - w + 0.5})


def both(num_tasks, name="{}", order=1):
    """Fits that share and that do not: twice as far from one another."""
    means = np.stack([np.arange(num_tasks), 3.0 * np.arange(num_tasks)], 1)
    names = [name.format(i) for i in range(num_tasks)]
    alone = tree(2 * means[::order], [0.2, 9.0], names[::order])
    return tree(means, [0.1, 8.0], names), alone


def test_shrinkage_takes_the_clearest_coefficient():
    data, alone = both(3, order=-1)
    ax = plot_shrinkage(data, alone)
    # the means of "age" differ more, but its draws are eighty times as wide
    assert ax.get_xlabel() == "'hours', standard units"
    shared = lines(ax, "with the others, 90 %")
    np.testing.assert_allclose(shared, [[0, 0], [1, 1], [2, 2]], atol=1e-12)
    np.testing.assert_allclose(lines(ax, "alone")[:, 0], [0, 2, 4], atol=1e-12)  # by label
    bars = np.array(ax.collections[1].get_segments())[:, :, 0]
    np.testing.assert_allclose(bars, shared[:, :1] + [[-0.09, 0.09]])  # 90 % of evenly spaced
    assert lines(ax, "mean of the prior")[0, 0] == pytest.approx(0.5)
    assert ticks(ax) == ["2", "1", "0"]
    joined = np.array(ax.collections[0].get_segments())[:, :, 0]
    np.testing.assert_allclose(joined, [[0, 0], [2, 1], [4, 2]], atol=1e-12)
    assert plot_shrinkage(data, alone, coords={"feature": "age"}).get_xlabel().startswith("'age'")


def test_shrinkage_of_a_stack_takes_its_members():
    data, alone = both(2)
    stack = xr.DataTree.from_dict({"stack": xr.Dataset()})
    stack["shared"], stack["alone"] = data, alone
    np.testing.assert_allclose(lines(plot_shrinkage(stack), "alone")[:, 0], [0, 2], atol=1e-12)


def test_shrinkage_towards_a_pooled_fit_has_one_estimate_for_all():
    data, pooled = both(3)[0], both(1, "all")[1]
    ax = plot_shrinkage(data, pooled, labels=("pooled", "shared"))
    shared = lines(ax, "shared, 90 %")[:, 0]
    np.testing.assert_allclose(shared, [0, 1, 2], atol=1e-12)
    np.testing.assert_allclose(lines(ax, "pooled")[:, 0], [0, 0, 0], atol=1e-12)


def test_shrinkage_says_what_it_needs():
    data, alone = both(2)
    with pytest.raises(ValueError, match="There is no reference"):
        plot_shrinkage(data)
    with pytest.raises(ValueError, match="coords has feature 'sleep', expected one of"):
        plot_shrinkage(data, alone, coords={"feature": "sleep"})
    with pytest.raises(ValueError, match="reference has no 'w' of task '1'"):
        plot_shrinkage(data, both(1)[1])
    with pytest.raises(ValueError, match="ci_prob is 90"):
        plot_shrinkage(data, alone, ci_prob=90)
