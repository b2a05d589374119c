"""Pictures of relatedness show what the draws of the weights say."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr

from benchmarks.known_groups import plot_relatedness_truth, relatedness_recovery
from pyro_vmtl.analysis import (
    plot_relatedness,
    plot_relatedness_evolution,
    plot_relatedness_graph,
    relatedness_datatree,
)
from pyro_vmtl.analysis.relatedness.weights import clustered_order

mpl.use("agg")

LONG = "Comprehensive school of the whole borough"


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def drawn(num_tasks, num_groups=2, num_draws=60, seed=0):
    """Weights of which siblings have the most, (S, T, T + 1), and the group of each task."""
    rng = np.random.default_rng(seed)
    group = np.arange(num_tasks) % num_groups
    shape = np.where(group[:, None] == group, 4.0, 0.2)
    shape = np.concatenate([shape, np.full((num_tasks, 1), 3.0)], axis=1)
    draws = rng.gamma(shape, size=(num_draws, *shape.shape))
    draws[:, range(num_tasks), range(num_tasks)] = 0
    return torch.tensor(draws / draws.sum(-1, keepdims=True)), group


def tree_of(num_tasks, *, long=False, **kwargs):
    names = [f"{LONG} {t}" if long else f"t{t}" for t in range(num_tasks)]
    draws, _ = drawn(num_tasks)
    return relatedness_datatree(draws, names, **kwargs)


def means(data):
    mean = data["posterior"]["w_sources"].values[0].mean(0)
    np.fill_diagonal(mean[:, :-1], np.nan)
    return mean


def assert_nothing_is_cut_off(ax):
    """All that is drawn is inside the figure, up to the rounding of letters to pixels."""
    figure = ax.get_figure(root=True)
    figure.draw_without_rendering()
    box, (width, height), pixel = figure.get_tightbbox(), figure.get_size_inches(), 0.01
    assert box.x0 >= -pixel and box.x1 <= width + pixel, (box, width)
    assert box.y0 >= -pixel and box.y1 <= height + pixel, (box, height)


def test_the_heat_map_shows_the_means_and_intervals():
    data = tree_of(6, task_sizes=[3, 1, 4, 1, 5, 9], task_name="school")
    ax = plot_relatedness(data)
    names = [text.get_text() for text in ax.get_yticklabels()]
    order = [int(name[1]) for name in names]
    assert names == [f"t{t} ({[3, 1, 4, 1, 5, 9][t]})" for t in order]
    assert [t.get_text() for t in ax.get_xticklabels()] == [*(f"t{t}" for t in order), "base"]
    assert ax.get_ylabel() == "school (rows)"
    assert {tuple(sorted(order[:3])), tuple(sorted(order[3:]))} == {(0, 2, 4), (1, 3, 5)}
    mean = means(data)
    tasks, base = (np.ma.filled(image.get_array(), np.nan) for image in ax.images)
    np.testing.assert_allclose(tasks, mean[order][:, order], rtol=1e-12)
    np.testing.assert_allclose(base, mean[order, -1:], rtol=1e-12)
    draws = data["posterior"]["w_sources"].values[0, :, order[0], order[1]]
    low, high = np.quantile(draws, [0.05, 0.95])
    assert ax.texts[0].get_text() == f"{draws.mean():.2f}\n{low:.2f}–{high:.2f}"


def test_dots_mark_weights_that_may_as_well_be_even_shares():
    # half the draws borrow everything from t1, half nothing; t1 borrows from t0 for sure
    weights = torch.zeros(100, 3, 4)
    weights[:50, 0, 1] = weights[50:, 0, 3] = weights[:, 1, 0] = weights[:, 2, 3] = 1
    ax = plot_relatedness(relatedness_datatree(weights, ["t0", "t1", "t2"]))
    names = [text.get_text() for text in ax.get_xticklabels()]
    (dots,) = ax.collections
    marked = {(round(y + 0.38), round(x - 0.38 - 0.1)) for x, y in dots.get_offsets()}
    assert marked == {(names.index("t0"), names.index(name)) for name in ("t1", "base")}


@pytest.mark.parametrize(("num_tasks", "long"), [(1, False), (2, True), (12, True), (139, True)])
def test_nothing_of_the_heat_map_is_cut_off(num_tasks, long):
    sizes = [10] * num_tasks if long else None
    ax = plot_relatedness(tree_of(num_tasks, long=long, task_sizes=sizes))
    assert len(ax.get_figure().axes) == 2  # one colour bar
    assert_nothing_is_cut_off(ax)


def test_the_heat_map_draws_on_axes_given():
    before = dict(mpl.rcParams)
    _, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    assert plot_relatedness(tree_of(12), axes[1]) is axes[1]
    assert not axes[0].images
    assert_nothing_is_cut_off(axes[1])
    assert dict(mpl.rcParams) == before


def test_rows_are_counted_from_the_tree():
    data = tree_of(2)
    rows = xr.Dataset(
        {"y": ("row", np.zeros(5))}, {"task": ("row", ["t1", "t0", "t1", "t1", "t1"])}
    )
    ax = plot_relatedness(xr.DataTree.from_dict({**data.to_dict(), "/observed_data": rows}))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["t0 (1)", "t1 (4)"]


def test_labels_that_read_the_same_stay_apart():
    draws, _ = drawn(3)
    data = relatedness_datatree(draws, [1, "1", "base"])
    assert len(set(data["posterior"]["source"].values)) == 4
    ints = relatedness_datatree(draws, [3, 7, 5])
    assert ints["posterior"]["task"].values.tolist() == [3, 7, 5]


def test_what_is_no_weight_is_refused_by_name():
    with pytest.raises(ValueError, match="'z_sources' in a group 'posterior'"):
        plot_relatedness(tree_of(2), var_names="z_sources")
    data = tree_of(2)
    data["posterior"]["w"] = ("draw", np.zeros(60))
    with pytest.raises(ValueError, match="expected weights with the dimensions chain, draw, task"):
        plot_relatedness(data, var_names="w")


def test_the_order_puts_groups_together():
    draws, group = drawn(30, 3)
    order = clustered_order(draws.mean(0).numpy())
    assert sorted(order) == list(range(30))
    assert (np.diff(group[order]) != 0).sum() == 2  # one border between each two groups


def snapshots(num_tasks, num_steps=21):
    """Weights that go from even shares to those of one draw by step 100, and then stay."""
    final = drawn(num_tasks)[0][0].numpy()
    even = np.full_like(final, 1 / num_tasks)
    np.fill_diagonal(even[:, :-1], 0)
    steps = np.arange(num_steps) * 10
    done = np.minimum(steps / 100, 1)[:, None, None]
    names = [f"t{t}" for t in range(num_tasks)]
    history = xr.Dataset(
        {"relatedness_w": (("snapshot_step", "task", "source"), even + done * (final - even))},
        {"snapshot_step": steps, "task": names, "source": [*names, "base"]},
    )
    return xr.DataTree.from_dict({"history": history}), even, final


def test_the_evolution_is_that_of_each_tasks_final_source():
    data, even, final = snapshots(4)
    ax = plot_relatedness_evolution(data)
    best = final.argmax(1)
    names = [*(f"t{t}" for t in range(4)), "base"]
    lines = {line.get_label(): line for line in ax.lines if "←" in line.get_label()}
    assert set(lines) == {f"t{t} ← {names[best[t]]}" for t in range(4)}
    for t in range(4):
        y = lines[f"t{t} ← {names[best[t]]}"].get_ydata()
        assert y[0] == pytest.approx(even[t, best[t]]) and y[5] < y[10] + 1e-12
        np.testing.assert_allclose(y[10:], final[t, best[t]], rtol=1e-12)
    assert "at most 0.00 of any task's weights moved" in ax.texts[-1].get_text().replace("\n", " ")
    assert_nothing_is_cut_off(ax)


def test_the_evolution_says_how_much_still_moves():
    data, even, final = snapshots(5, num_steps=11)  # ends while weights move: a tenth of the way
    moved = 0.1 * 0.5 * np.abs(final - even).sum(1)
    caption = plot_relatedness_evolution(data).texts[-1].get_text().replace("\n", " ")
    assert f"at most {moved.max():.2f} of any" in caption
    with pytest.raises(ValueError, match="'relatedness_z' in a group 'history'"):
        plot_relatedness_evolution(data, var_names="z")


def test_the_evolution_of_many_tasks_is_a_band():
    data, _, final = snapshots(40)
    ax = plot_relatedness_evolution(data)
    assert ax.lines[0].get_ydata()[-1] == pytest.approx(np.median(final.max(1)), rel=1e-12)
    assert [t.get_text() for t in ax.texts[:3]] == ["median task", "1 in 2 tasks", "9 in 10 tasks"]
    assert_nothing_is_cut_off(ax)


def arrows(ax):
    return [patch for patch in ax.patches if isinstance(patch, mpl.patches.FancyArrowPatch)]


def test_the_graph_has_an_arrow_for_each_weight_from_the_threshold():
    data = tree_of(6)
    mean, draws = means(data), data["posterior"]["w_sources"].values[0]
    ax = plot_relatedness_graph(data, threshold=0.1)
    pairs = [(b, s) for b in range(6) for s in range(6) if b != s and mean[b, s] >= 0.1]
    drawn_arrows = arrows(ax)
    assert len(drawn_arrows) == len(pairs) == 12  # two siblings each
    widths = sorted(arrow.get_linewidth() for arrow in drawn_arrows)
    weights = np.array(sorted(mean[pair] for pair in pairs))
    np.testing.assert_allclose(widths, 0.6 + 4.5 * weights, rtol=1e-12)
    low = np.quantile(draws, 0.05, axis=0)
    dashed = sum(arrow.get_linestyle() == "--" for arrow in drawn_arrows)
    assert dashed == sum(low[pair] < 1 / 6 for pair in pairs)
    np.testing.assert_allclose(ax.collections[0].get_array(), mean[:, -1], rtol=1e-12)


def test_arrows_go_from_the_source_to_the_borrower():
    weights = torch.zeros(5, 3, 4)
    weights[:, 0, 1] = weights[:, 1, 3] = weights[:, 2, 3] = 1  # t0 borrows from t1
    ax = plot_relatedness_graph(relatedness_datatree(weights, ["t0", "t1", "t2"]))
    (arrow,) = arrows(ax)
    places = {text.get_text(): text.xy for text in ax.texts}
    del places[ax.texts[-1].get_text()]  # the caption
    start, *_, end = arrow.get_path().vertices[:3]
    near = {name: np.linalg.norm(start - place) for name, place in places.items()}
    assert min(near, key=near.get) == "t1"
    near = {name: np.linalg.norm(end - place) for name, place in places.items()}
    assert min(near, key=near.get) == "t0"


@pytest.mark.parametrize(("num_tasks", "named"), [(1, 1), (32, 32), (60, 15)])
def test_the_graph_is_the_same_each_time_and_whole(num_tasks, named):
    data = tree_of(num_tasks, long=True)
    ax, again = plot_relatedness_graph(data), plot_relatedness_graph(data)
    places = ax.collections[0].get_offsets()
    np.testing.assert_array_equal(places, again.collections[0].get_offsets())
    assert len(ax.texts) == named + 1  # the caption
    assert_nothing_is_cut_off(ax)


def test_the_recovery_is_the_share_of_the_own_group():
    draws, group = drawn(6, 2)
    data = relatedness_datatree(draws, range(6))
    table = relatedness_recovery(data, group.tolist())
    weights = draws.numpy()
    of_draws = weights[:, 3, [1, 5]].sum(1) / weights[:, 3, :6].sum(1)
    mean = weights[:, 3].mean(0)
    assert table.loc[3, "own_group"] == pytest.approx(mean[[1, 5]].sum() / mean[:6].sum())
    assert table.loc[3, "lower"] == pytest.approx(np.quantile(of_draws, 0.05))
    assert table.loc[3, "upper"] == pytest.approx(np.quantile(of_draws, 0.95))
    assert table["even_share"].tolist() == [2 / 5] * 6
    with pytest.raises(ValueError, match="groups has 2 labels, expected one for each of the 6"):
        relatedness_recovery(data, "ab")


def test_a_task_that_borrows_nothing_has_no_share():
    weights = torch.zeros(5, 2, 3)
    weights[:, :, 2] = 1
    table = relatedness_recovery(relatedness_datatree(weights, "ab"), "xx")
    assert table[["own_group", "lower", "upper"]].isna().all(axis=None)


@pytest.mark.parametrize("num_tasks", [1, 60])
def test_the_truth_is_drawn_group_by_group(num_tasks):
    data, group = tree_of(num_tasks, long=True), drawn(num_tasks)[1]
    names = [f"a group of tasks with a long name {g}" for g in group]
    ax = plot_relatedness_truth(data, names)
    table = relatedness_recovery(data, names).iloc[np.argsort(group, kind="stable")]
    shown = ax.collections[-1].get_offsets()
    np.testing.assert_allclose(np.ma.filled(shown[:, 0], np.nan), table["own_group"], rtol=1e-12)
    np.testing.assert_array_equal(shown[:, 1], range(num_tasks))
    assert_nothing_is_cut_off(ax)
