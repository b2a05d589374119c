"""Predictive checks of targets whose model is known, against scipy."""

import json

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from scipy.stats import binom, binomtest, norm

from pyro_vmtl.analysis import az, plot_ppc_by_task, predictive_pvalues
from pyro_vmtl.analysis.calibration.predictive_checks import TaskStatistics

mpl.use("agg")


def tree(y, drawn, tasks, *, classes=None, group="posterior_predictive"):
    rows = {"row": np.arange(len(y)), "task": ("row", np.asarray(tasks))}
    attrs = {} if classes is None else {"classes": json.dumps(classes)}
    return xr.DataTree.from_dict(
        {
            "observed_data": xr.Dataset({"y": ("row", y, attrs)}, rows),
            group: xr.Dataset({"y": (("chain", "draw", "row"), drawn[None], attrs)}, rows),
        }
    )


def normal(num_tasks=6, num_rows=8, *, shift=(), num_draws=400, seed=0):
    """Targets N(task, 1) and draws of the same, those of the first tasks shifted."""
    random = np.random.default_rng(seed)
    tasks = np.tile(np.arange(num_tasks), num_rows)  # rows of a task are not side by side
    moved = np.zeros(num_tasks)
    moved[: len(shift)] = shift
    drawn = random.normal(tasks, 1, size=(num_draws, len(tasks)))
    names = np.array([f"t{t}" for t in tasks])
    return tree(random.normal(tasks + moved[tasks], 1), drawn, names)


def classes(num_tasks=6, num_classes=3, num_rows=40, *, odd=False, num_draws=400, seed=0):
    """Classes with probabilities by task; if odd, all rows of the first are of the last class."""
    random = np.random.default_rng(seed)
    chances = random.dirichlet(np.full(num_classes, 2.0), size=num_tasks)
    tasks = np.repeat(np.arange(num_tasks), num_rows)
    edges = chances.cumsum(1)[tasks][:, :-1]
    y, *drawn = (
        (random.uniform(size=(len(tasks), 1)) > edges).sum(1) for _ in range(num_draws + 1)
    )
    if odd:
        y = np.where(tasks == 0, num_classes - 1, y)
    labels = [f"a class with a very long name, number {c}" for c in range(num_classes)]
    names = [f"a task with a very long name, number {t}" for t in tasks]
    return tree(y, np.stack(drawn), names, classes=labels)


def counts(rate=3.0, num_rows=60, *, drawn_rate=None, num_draws=300, seed=0):
    random = np.random.default_rng(seed)
    drawn = random.poisson(drawn_rate or rate, size=(num_draws, num_rows))
    return tree(random.poisson(rate, num_rows), drawn, ["a", "b"] * (num_rows // 2))


def inside(ax):
    """Whether all letters are in the figure."""
    ax.figure.draw_without_rendering()
    frame = ax.figure.bbox.padded(1)
    legend = ax.get_legend()
    texts = [ax._left_title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
    for axis, ends in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        texts += [t.label1 for t in axis.get_major_ticks() if ends[0] <= t.get_loc() <= ends[1]]
    texts += legend.get_texts() if legend else []
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    return all(frame.containsx(b.x0) and frame.containsx(b.x1) for b in boxes) and all(
        frame.containsy(b.y0) and frame.containsy(b.y1) for b in boxes
    )


def crosses(ax):
    return next(line for line in ax.lines if line.get_marker() == "X").get_xydata()


@pytest.fixture(autouse=True)
def closed():
    yield
    mpl.pyplot.close("all")


def test_p_values_are_those_of_the_known_model():
    data = normal(num_draws=4000)
    table = predictive_pvalues(data)
    assert table.index.names == ["task", "statistic"] and len(table) == 12
    y, of_row = (data["observed_data"].dataset[name].values for name in ("y", "task"))
    for t in range(6):
        row = table.loc[(f"t{t}", "mean")]
        mean = y[of_row == f"t{t}"].mean()
        assert row["observed"] == pytest.approx(mean)
        # 4000 draws know a tail p to sqrt(p (1 - p) / 4000) <= 0.008: here to 4 of these, doubled.
        assert row["p_value"] == pytest.approx(2 * norm.sf(abs(mean - t) * 8**0.5), abs=0.064)
        assert row["lower"] == pytest.approx(t - 1.645 / 8**0.5, abs=0.06)
        assert row["upper"] == pytest.approx(t + 1.645 / 8**0.5, abs=0.06)
        assert table.loc[(f"t{t}", "sd"), "observed"] == pytest.approx(y[of_row == f"t{t}"].std())


def test_p_values_of_shares_count_equal_ones_half():
    random = np.random.default_rng(0)
    y, drawn = np.repeat([0, 1], [3, 17]), (random.uniform(size=(20000, 20)) > 0.25).astype(int)
    table = predictive_pvalues(tree(y, drawn, ["a"] * 20, classes=["no", "yes"]))
    few = binom.cdf(2, 20, 0.25) + 0.5 * binom.pmf(3, 20, 0.25)
    row = table.loc[("a", "share of no")]
    # sqrt(0.16 * 0.84 / 20000) = 0.0026 is the error of the tail; here 4 of it, doubled.
    assert row["observed"] == 0.15 and row["p_value"] == pytest.approx(2 * few, abs=0.02)
    assert row["lower"] == binom.ppf(0.05, 20, 0.25) / 20
    assert row["upper"] == binom.ppf(0.95, 20, 0.25) / 20


def test_p_values_are_uniform_where_the_model_is_right():
    p = predictive_pvalues(normal(num_tasks=300, num_draws=500), group="posterior_predictive")
    below = int((p.xs("mean", level="statistic")["p_value"] <= 0.2).sum())
    assert binomtest(below, 300, 0.2).pvalue > 0.001


@pytest.mark.parametrize("num_tasks", [6, 139])
def test_tasks_outside_are_crosses_and_counted(num_tasks):
    data = normal(num_tasks=num_tasks, shift=[4, -4])
    ax = plot_ppc_by_task(data)
    table = predictive_pvalues(data).xs("mean", level="statistic")
    out = table[(table["observed"] < table["lower"]) | (table["observed"] > table["upper"])]
    assert {"t0", "t1"} <= set(out.index)
    assert sorted(crosses(ax)[:, 1]) == pytest.approx(sorted(out["observed"]))
    title = ax.get_title("left")
    assert title.startswith(f"{len(out)} of {num_tasks} task means lie outside of 90% intervals")
    # The ends are the 20th of 400 draws from both sides: 40 of 401 places are outside.
    expected = float(title.split("about ")[1].split()[0])
    assert 0.095 * num_tasks - 0.05 <= expected <= 0.1 * num_tasks + 0.05
    named = ax.texts[0].get_text().splitlines()
    assert {named[1].strip(), named[2].strip()} == {"t0", "t1"}
    assert inside(ax)


def test_right_models_have_as_many_outside_as_expected():
    ax = plot_ppc_by_task(classes(num_tasks=139, num_classes=2, num_rows=12, num_draws=300))
    title = ax.get_title("left")
    expected = float(title.split("about ")[1].split()[0])
    num = int(title.split()[0])
    # Two shares of a task are out together: as for 139 of them.
    assert binom.ppf(0.001, 139, expected / 278) <= num / 2 <= binom.ppf(0.999, 139, expected / 278)
    # Shares of 12 rows have few values, and fewer than a tenth lie outside.
    assert 0 < expected < 27.8


@pytest.mark.parametrize("num_draws", [1, 2, 20, 40, 100, 500])
@pytest.mark.parametrize("whole", [False, True])
def test_few_draws_tell_how_many_are_outside_by_chance(num_draws, whole):
    random, size = np.random.default_rng(0), (num_draws + 1, 4000, 1)
    made = random.binomial(12, 0.4, size) / 12 if whole else random.normal(size=size)
    found = TaskStatistics([*range(4000)], ["mean"], made[0], made[1:])
    low, high = found.interval(0.9)
    real = ((found.observed < low) | (found.observed > high)).mean()
    by_chance = found.outside_by_chance(0.9).mean()
    if num_draws >= 20:
        # 4 standard errors of 4000 tasks: 4 sqrt(0.1 * 0.9 / 4000) = 0.019.
        assert abs(by_chance - real) < 0.02 and real < 0.12
    elif not whole:
        # The lowest and the highest of S draws: 2 of S + 1 places are outside.
        assert by_chance == pytest.approx(min(1.0, 2 / (num_draws + 1)))


def test_shares_of_classes_are_over_those_expected():
    data = classes(odd=True)
    ax = plot_ppc_by_task(data)
    drawn = data["posterior_predictive"].dataset["y"].values[0, :, :40]
    place = [(drawn == 2).mean(), 1.0]
    assert np.isclose(crosses(ax), place).all(1).any()
    assert "a task w…umber 0: a class…mber 2" in ax.texts[0].get_text()
    assert inside(ax)
    calm = plot_ppc_by_task(classes(num_rows=1, num_tasks=1))  # one row: nothing can be outside
    assert calm.get_title("left").startswith("0 of 3 shares lie") and not calm.texts
    assert inside(calm)


def test_arviz_plots_all_targets_of_such_trees():
    az.plot_ppc_dist(normal())
    for data in (counts(), classes()):
        az.plot_ppc_rootogram(data)


def test_one_row_and_equal_targets_are_drawn():
    for y in (np.array([1.5]), np.full(4, 2.5)):
        random = np.random.default_rng(0)
        data = tree(y, random.normal(2, 1, size=(40, len(y))), ["a"] * len(y))
        assert inside(plot_ppc_by_task(data))
        assert predictive_pvalues(data)["p_value"].between(0, 1).all()
    same = tree(np.zeros(4) + 0.5, np.zeros((3, 4)) + 0.5, list("aabb"))
    assert inside(plot_ppc_by_task(same))


def test_what_is_missing_is_named():
    data = normal()
    with pytest.raises(ValueError, match="no variable 'y' in a group 'prior_predictive'"):
        plot_ppc_by_task(data, group="prior_predictive")
    few = xr.DataTree.from_dict(
        {
            "observed_data": data["observed_data"].dataset,
            "posterior_predictive": data["posterior_predictive"].dataset.isel(row=slice(5)),
        }
    )
    with pytest.raises(ValueError, match="has 5 rows, expected the 48 of 'observed_data'"):
        predictive_pvalues(few)
