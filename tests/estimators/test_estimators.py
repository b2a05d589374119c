"""The estimators: what may be given to them, what comes back, and in which units."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.metrics import accuracy_score, r2_score

from pyro_vmtl import Stack
from pyro_vmtl.estimators import DataWarning, VMTLClassifier, VMTLRegressor, predicting
from pyro_vmtl.estimators import rows as rows_module
from pyro_vmtl.methods import method as method_module
from pyro_vmtl.methods.method import fit_jointly
from pyro_vmtl.methods.preset import Preset
from pyro_vmtl.methods.presets import presets

CLOSE = {"rtol": 2e-4, "atol": 2e-4}
"""Of fits whose rows differ by float32 rounding: 1e-7, which 40 steps make about 1e-5."""


def quick(kind, num_steps=20, **changes):
    steps = {"num_steps": num_steps}
    return replace(presets(kind)["shared"].many_features, fitting=steps, **changes)


def quick_stack(kind):
    members = {"shared": quick(kind, 40), "alone": quick(kind, 40, shared=())}
    return Stack(members, num_folds=2)


def regressor(**changes):
    return VMTLRegressor(changes.pop("method", quick("regression")), num_samples=50, **changes)


def classifier(**changes):
    return VMTLClassifier(changes.pop("method", quick("classification")), num_samples=50, **changes)


@pytest.fixture
def rows():
    """Three tasks of 10 rows each in units that are not standard, (X, y, tasks)."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 3)) * [1, 10, 0.1] + [0, 5, 3]
    y = 50 + 4 * X[:, 0] + rng.normal(size=30)
    return X, y, np.repeat(["Ada", "Bo", "Cy"], 10)


def classes(y):
    return np.where(y > np.median(y), "high", "low")


# What may be given


def test_features_of_all_kinds_are_the_same(rows):
    X, y, tasks = rows
    X = X.astype(np.float32)  # so that all hold the same numbers
    expected = regressor().fit(X, y, tasks).predict(X, tasks)
    kinds = {
        "float64": X.astype(np.float64),
        "list": X.tolist(),
        "pandas": pd.DataFrame(X, columns=list("abc")),
        "torch": torch.tensor(X),
        "torch with gradients": torch.tensor(X, requires_grad=True),
        "csr": sparse.csr_array(X),
        "csc": sparse.csc_matrix(X),
        "fortran": np.asfortranarray(X),
        "read only": np.lib.stride_tricks.as_strided(X, writeable=False),
    }
    for name, kind in kinds.items():
        fitted = regressor().fit(kind, y, tasks)
        assert_allclose(fitted.predict(kind, tasks), expected, **CLOSE, err_msg=name)
        assert fitted.n_features_in_ == 3


def test_half_precision_tensors_are_read(rows):
    X, y, tasks = rows
    X = torch.tensor(X).bfloat16()
    expected = regressor().fit(X.float(), y, tasks).predict(X.float(), tasks)
    assert_array_equal(regressor().fit(X, y, tasks).predict(X, tasks), expected)


def test_polars_frames_are_read(rows):
    polars = pytest.importorskip("polars")
    X, y, tasks = rows
    frame = polars.DataFrame(dict(zip("abc", X.T, strict=True)))
    fitted = regressor().fit(frame, polars.Series(y), polars.Series(tasks))
    expected = regressor().fit(X, y, tasks).predict(X, tasks)
    assert_allclose(fitted.predict(frame, tasks), expected, **CLOSE)


def test_names_of_columns_are_kept_and_their_order_is_checked(rows):
    X, y, tasks = rows
    frame = pd.DataFrame(X, columns=["age", "height", "weight"])
    fitted = regressor().fit(frame, y, tasks)
    assert fitted.feature_names_in_.tolist() == ["age", "height", "weight"]
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(frame[["height", "age", "weight"]], tasks)
    frame["colour"] = "red"
    with pytest.raises(ValueError, match="columns that are not numbers: 'colour'"):
        regressor().fit(frame, y, tasks)


@pytest.mark.parametrize(
    "labels",
    [
        ["Ada", "Bo", "Cy"],
        [3, 1, 2],
        [("Ada", 1), ("Ada", 2), ("Bo", 1)],
        [1, "Bo", (2.5, None)],
        [0.5, True, "base"],
        [1, "1", "base"],
    ],
)
def test_task_labels_of_any_kind_are_kept(rows, labels):
    X, y, tasks = rows
    expected = regressor().fit(X, y, tasks).predict(X, tasks)
    of_row = [label for label in labels for _ in range(10)]
    fitted = regressor().fit(X, y, of_row)
    assert_array_equal(fitted.predict(X, of_row), expected)
    assert set(fitted.tasks_) == set(labels) and len(fitted.tasks_) == len(labels)
    assert fitted.relatedness_.task.values.tolist() == list(fitted.tasks_)
    assert fitted.relatedness_.source.values.tolist() == [*fitted.tasks_, "base"]
    assert fitted.summary().index.tolist() == list(fitted.tasks_)
    ax = fitted.plot_relatedness()
    assert len({text.get_text() for text in ax.get_xticklabels()}) == 4


def test_containers_of_task_labels_are_the_same(rows):
    X, y, tasks = rows
    expected = regressor().fit(X, y, tasks).predict(X, tasks)
    numbers = np.repeat([0, 1, 2], 10)
    containers = [
        pd.Series(tasks),
        pd.Series(tasks, dtype="string"),
        pd.Categorical(tasks),
        pd.Series(tasks, dtype="category", index=range(100, 130)),
        tasks[:, None],
        tasks.astype(object),
        tuple(tasks),
        torch.tensor(numbers),
        list(torch.tensor(numbers)),  # each hashes as an object of its own
        list(numbers),
        numbers == 0,
    ]
    for labels in containers[:-1]:
        fitted = regressor().fit(X, y, labels)
        assert_array_equal(fitted.predict(X, labels), expected)
        assert len(fitted.tasks_) == 3
        assert not isinstance(fitted.tasks_[0], np.generic | torch.Tensor) or isinstance(
            fitted.tasks_[0], str
        )
    assert regressor().fit(X, y, containers[-1]).tasks_ == (False, True)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_a_missing_task_label_is_refused(rows, missing):
    X, y, tasks = rows
    with pytest.raises(ValueError, match="tasks has no label in row 2"):
        regressor().fit(X, y, ["Ada", "Ada", missing, *tasks[3:]])


@pytest.mark.parametrize(
    ("low", "high"),
    [("a", "b"), (3, 7), (False, True), (-1.0, 1.0), (np.str_("x"), np.str_("y"))],
)
def test_classes_of_any_kind_are_kept(rows, low, high):
    X, y, tasks = rows
    which = (y > 50).astype(int)
    expected = classifier().fit(X, which, tasks).predict_proba(X, tasks)
    labels = np.array([low, high])[which]
    as_objects = np.array([[low, high][i] for i in which], dtype=object)
    for given in (labels, labels.tolist(), pd.Series(labels), as_objects, pd.Categorical(labels)):
        fitted = classifier().fit(X, given, tasks)
        assert_array_equal(fitted.predict_proba(X, tasks), expected)
        assert_array_equal(fitted.classes_, [low, high])
        best = expected.argmax(1)
        assert_array_equal(fitted.predict(X, tasks), np.array([low, high])[best])
        assert fitted.score(X, given, tasks) == accuracy_score(which, best)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_rows_without_target_are_left_out_with_a_notice(rows, missing):
    X, y, tasks = rows
    known = np.r_[3:30]
    for kind, target in ((classifier, classes(y)), (classifier, y > 50), (regressor, y)):
        expected = kind().fit(X[known], target[known], tasks[known]).predict(X, tasks)
        given = [*[missing] * 3, *target[known].tolist()]
        with pytest.warns(DataWarning, match="3 rows without a target are not used: 3 in task 'Ad"):
            fitted = kind().fit(X, np.array(given, dtype=object), tasks)
        assert_array_equal(fitted.predict(X, tasks), expected)


def test_a_task_without_any_target_is_a_new_task(rows):
    X, y, tasks = rows
    y = np.where(tasks == "Bo", np.nan, y)
    with pytest.warns(DataWarning, match="'Bo' will be predicted as new tasks"):
        fitted = regressor().fit(X, y, tasks)
    assert fitted.tasks_ == ("Ada", "Cy") and fitted.task_sizes_ == (10, 10)
    with pytest.warns(DataWarning, match="'Bo': no such task"):
        assert np.isfinite(fitted.predict(X, tasks)).all()


def test_errors_name_the_rows_of_the_user(rows):
    """Also where rows before them are not used."""
    X, y, tasks = rows
    X, y = X.copy(), y.copy()
    y[:5] = np.nan
    X[20, 1] = np.inf
    with (
        pytest.warns(DataWarning),
        pytest.raises(ValueError, match=r"infinity in row 20, column 1 \(task 'Cy'\)"),
    ):
        regressor().fit(X, y, tasks)
    X[20, 1], y[29] = 0.0, np.inf
    with pytest.warns(DataWarning), pytest.raises(ValueError, match="y has inf in row 29"):
        regressor().fit(X, y, tasks)
    fitted = classifier().fit(X, classes(np.nan_to_num(y)), tasks)
    new = [None, "low", "lower"]
    with pytest.warns(DataWarning), pytest.raises(ValueError, match="class 'lower' in row 2"):
        fitted.add_task(X[:3], new, task="Dee")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"method": 3}, "method is 3, expected one of default"),
        ({"method": "shred"}, "method is 'shred', expected one of default"),
        ({"device": "cud"}, "device is 'cud', which cannot be used"),
        ({"random_state": None}, "random_state is None"),
        ({"likelihood": "gamma"}, "likelihood is 'gamma'"),
    ],
)
def test_wrong_settings_are_refused(rows, settings, match):
    with pytest.raises(ValueError, match=match):
        regressor(**settings).fit(*rows)


def test_checkpoints_may_be_a_string(rows, tmp_path):
    fitted = regressor().fit(*rows, checkpoints=str(tmp_path))
    again = regressor().fit(*rows, checkpoints=tmp_path)
    assert_array_equal(again.predict(rows[0], rows[2]), fitted.predict(rows[0], rows[2]))
    assert list(tmp_path.iterdir())


# Units


@pytest.mark.parametrize(
    ("factor", "shift"), [(3.0, 100.0), (1e12, 0.0), (1e-200, 0.0), (1e200, 0)]
)
def test_predictions_are_in_the_unit_of_the_targets(rows, factor, shift):
    X, y, tasks = rows
    asked = {"return_std": True, "quantiles": [0.1, 0.9]}
    mean, std, quantiles = regressor().fit(X, y, tasks).predict(X, tasks, **asked)
    new = regressor().fit(X, factor * y + shift, tasks).predict(X, tasks, **asked)
    assert_allclose((new[0] - shift) / factor, mean, **CLOSE)
    assert_allclose(new[1] / factor, std, **CLOSE)
    assert_allclose((new[2] - shift) / factor, quantiles, **CLOSE)


@pytest.mark.parametrize("kind", [regressor, classifier])
def test_the_units_of_features_do_not_matter(rows, kind):
    X, y, tasks = rows
    y = y if kind is regressor else classes(y)
    expected = kind().fit(X, y, tasks)
    for factor, shift in ((-1.0, 0.0), (1e12, 1e12), (1e-12, 0.0), (1e200, 0.0), (1e-200, 0.0)):
        given = X[:, [0]] * factor + shift
        given = np.concatenate([given, X[:, 1:]], axis=1)
        fitted = kind().fit(given, y, tasks)
        if factor > 0:
            assert_allclose(_all(fitted, given, tasks), _all(expected, X, tasks), **CLOSE)
        assert np.isfinite(_all(fitted, given, tasks)).all()


def _all(fitted, X, tasks):
    if isinstance(fitted, VMTLClassifier):
        return fitted.predict_proba(X, tasks)
    return np.column_stack(fitted.predict(X, tasks, return_std=True))


def test_a_constant_column_changes_nothing_but_draws_of_its_coefficient(rows):
    """Scaled it is 0 in every row, so that fits differ by the draws: by about a standard error."""
    X, y, tasks = rows
    method = quick("regression", 1000)
    mean, std = regressor(method=method).fit(X, y, tasks).predict(X, tasks, return_std=True)
    constant = np.column_stack([X, np.full(30, 1e9)])
    found = regressor(method=method).fit(constant, y, tasks).predict(constant, tasks)
    assert (np.abs(found - mean) < 0.5 * std).all()


def test_rows_far_from_all_others_are_predicted_with_numbers(rows):
    X, y, tasks = rows
    for kind, target in ((classifier, classes(y)), (regressor, y)):
        fitted = kind().fit(X, target, tasks)
        for factor in (1e30, 1e300):
            assert np.isfinite(_all(fitted, X * factor, tasks)).all()


# Weights of rows


@pytest.mark.parametrize("kind", [regressor, classifier])
@pytest.mark.parametrize("stacked", [False, True])
def test_weight_0_leaves_a_row_out(rows, kind, stacked):
    X, y, tasks = rows
    name = "regression" if kind is regressor else "classification"
    method = quick_stack(name) if stacked else quick(name)
    y = y if kind is regressor else classes(y)
    weight = np.where(np.arange(30) % 4 == 0, 0.0, 1.5)
    some = weight > 0
    fitted = kind(method=method).fit(X, y, tasks, sample_weight=weight)
    expected = kind(method=method).fit(X[some], y[some], tasks[some], sample_weight=weight[some])
    assert_array_equal(_all(fitted, X, tasks), _all(expected, X, tasks))
    assert fitted.task_sizes_ == expected.task_sizes_


@pytest.mark.parametrize("kind", [regressor, classifier])
def test_weight_2_is_a_row_twice(rows, kind):
    """Up to rounding, which steps with random numbers make larger."""
    X, y, tasks = rows
    y = y if kind is regressor else classes(y)
    method = quick("regression" if kind is regressor else "classification", 100)
    weight = np.where(np.arange(30) % 3 == 0, 2.0, 1.0)
    twice = np.repeat(np.arange(30), weight.astype(int))
    fitted = kind(method=method).fit(X, y, tasks, sample_weight=weight)
    expected = kind(method=method).fit(X[twice], y[twice], tasks[twice])
    once = kind(method=method).fit(X, y, tasks)
    found, by_copies, without = (_all(f, X, tasks) for f in (fitted, expected, once))
    apart = np.abs(found - by_copies).max()
    assert apart < 0.01 * by_copies.std() and np.abs(without - by_copies).max() > 10 * apart


def test_wrong_weights_are_refused(rows):
    for weight, match in (
        (-np.ones(30), "sample_weight has -1.0 in row 0"),
        (np.zeros(30), "Sample weights must contain at least one non-zero number"),
    ):
        with pytest.raises(ValueError, match=match):
            regressor().fit(*rows, sample_weight=weight)


# Validation data


@pytest.fixture
def fits(monkeypatch):
    """Rows of every fit of a preset."""
    calls, fit = [], Preset.fit

    def counted(self, data, **settings):
        calls.append(int(data.mask.sum()))
        return fit(self, data, **settings)

    def counted_together(problems, **settings):
        results = fit_jointly(problems, **settings)
        calls.extend(int(data.mask.sum()) for _, _, data in problems)
        return results

    monkeypatch.setattr(Preset, "fit", counted)
    monkeypatch.setattr(method_module, "fit_jointly", counted_together)
    return calls


def test_validation_data_are_held_out_and_each_member_is_fitted_once(rows, fits):
    X, y, tasks = rows
    train = np.arange(30) % 2 == 0
    method = quick_stack("regression")
    validation = X[~train], y[~train], tasks[~train]
    fitted = regressor(method=method).fit(
        X[train], y[train], tasks[train], validation_data=validation
    )
    assert fits == [15, 15]
    # other targets to validate on change the weights, and not the members
    other = regressor(method=method).fit(
        X[train], y[train], tasks[train], validation_data=(validation[0], y[train], validation[2])
    )
    assert other.fitted_.calibrations != fitted.fitted_.calibrations
    for name, member in fitted.fitted_.members.items():
        for a, b in zip(
            member.guide.parameters(), other.fitted_.members[name].guide.parameters(), strict=True
        ):
            assert torch.equal(a, b)
    del fits[:]
    regressor(method=method).fit(X, y, tasks)
    assert sorted(fits) == [15] * 4 + [30] * 2


def test_validation_rows_without_target_are_left_out(rows):
    X, y, tasks = rows
    method = quick_stack("classification")
    y = classes(y).astype(object)
    expected = classifier(method=method).fit(X, y, tasks, validation_data=(X[1:], y[1:], tasks[1:]))
    with pytest.warns(DataWarning, match="1 rows without a target"):
        fitted = classifier(method=method).fit(
            X, y, tasks, validation_data=(X, [None, *y[1:]], tasks)
        )
    assert_array_equal(fitted.predict_proba(X, tasks), expected.predict_proba(X, tasks))


def test_wrong_validation_data_are_refused(rows):
    X, y, tasks = rows
    with pytest.raises(ValueError, match="for weighing the members of a stack"):
        regressor().fit(X, y, tasks, validation_data=(X, y, tasks))
    method = quick_stack("regression")
    with pytest.raises(ValueError, match="rows of task 'Dee', which is not in the fit"):
        regressor(method=method).fit(X, y, tasks, validation_data=(X[:1], y[:1], ["Dee"]))
    with pytest.raises(ValueError, match=r"expected as \(X, y, tasks\)"):
        regressor(method=method).fit(X, y, tasks, validation_data=X)


# Tasks of unequal sizes


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_tasks_of_1_to_5000_rows(kind):
    sizes = [1, 3, 50, 5000]
    rng = np.random.default_rng(1)
    tasks = np.repeat(["a", "b", "c", "d"], sizes)
    X = rng.normal(size=(len(tasks), 2))
    y = X[:, 0] + 0.1 * rng.normal(size=len(tasks))
    y = y if kind == "regression" else y > 0
    method = quick_stack(kind)
    estimator = VMTLRegressor if kind == "regression" else VMTLClassifier
    fitted = estimator(method, num_samples=50).fit(X, y, tasks)
    assert fitted.task_sizes_ == tuple(sizes)
    assert fitted.score(X, y, tasks) > 0.9
    # half of a standard deviation of what the many rows of the others say
    assert fitted.score(X[-500:], y[-500:], ["b"] * 500) > (0.8 if kind != "regression" else 0.5)


def test_tasks_need_not_have_all_classes():
    """Task a has 0 and 1, task b 2 and 3, task c only 0: features tell classes apart."""
    rng = np.random.default_rng(2)
    y = np.r_[np.tile([0, 1], 20), np.tile([2, 3], 20), np.zeros(5, int)]
    X = np.eye(4)[y] + 0.1 * rng.normal(size=(85, 4))
    tasks = np.repeat(["a", "b", "c"], [40, 40, 5])
    fitted = classifier(method=quick("classification", 300)).fit(X, y, tasks)
    assert fitted.classes_.tolist() == [0, 1, 2, 3]
    proba = fitted.predict_proba(X, tasks)
    assert proba.shape == (85, 4) and (proba > 0).all()
    assert fitted.score(X, y, tasks) == 1.0


def test_without_tasks_all_rows_are_of_one(rows):
    X, y, _ = rows
    fitted = regressor().fit(X, y)
    assert fitted.tasks_ == ("all",)
    expected = regressor().fit(X, y, ["one"] * 30)
    assert_array_equal(fitted.predict(X), expected.predict(X, ["one"] * 30))
    assert_array_equal(expected.predict(X), fitted.predict(X))
    assert_array_equal(fitted.relatedness_["mean"], [[np.nan, 1.0]])
    assert fitted.summary().iloc[0].tolist()[:4] == [30, 0.0, None, 0.0]
    with pytest.raises(ValueError, match="tasks is missing, expected a label for each row: the fi"):
        regressor().fit(*rows).predict(X)


def test_one_row_is_enough(rows):
    X, y, _ = rows
    mean, std = regressor().fit(X[:1], y[:1]).predict(X, return_std=True)
    assert_allclose(mean[0], y[0], atol=3 * std[0])
    assert (std > 0).all()


def test_very_long_tasks_are_cut_with_a_notice(monkeypatch):
    """12 tasks of 2 rows and one of 100: padded to the longest they would be 13 times 100 rows."""
    rng = np.random.default_rng(0)
    tasks = np.r_[np.repeat(np.arange(12), 2), np.full(100, 12)]
    X = rng.normal(size=(124, 1))
    assert regressor().fit(X, X[:, 0], tasks).task_sizes_ == (*[2] * 12, 100)
    monkeypatch.setattr(rows_module, "MAX_PADDED", 13 * 2 * 30)
    with pytest.warns(DataWarning, match="30 rows, drawn at random, .* of 1 long tasks, .*12 .100"):
        fitted = regressor().fit(X, X[:, 0], tasks, sample_weight=np.ones(124))
    assert fitted.task_sizes_ == (*[2] * 12, 30)


def test_rows_are_cut_at_random_and_no_task_is_lost(monkeypatch):
    monkeypatch.setattr(rows_module, "MAX_PADDED", 0)
    labels = ["a"] * 1000 + ["b"] * 10 + ["c"] * 10
    with pytest.warns(DataWarning):
        kept = rows_module.limit_rows(labels, np.arange(1020), 1, seed=0)
    assert len(kept) == 680 + 20 and (np.diff(kept) > 0).all()
    assert (kept[-20:] == np.arange(1000, 1020)).all()
    # the mean of 680 of the numbers to 1000 has the standard error 289 / sqrt(680) * sqrt(0.32)
    assert kept[:680].mean() == pytest.approx(499.5, abs=4 * 6.3)


@pytest.mark.parametrize("kind", [regressor, classifier])
def test_batches_give_what_one_batch_gives(rows, kind, monkeypatch):
    """Batch by batch, as long as every batch has rows of all tasks: draws are the same."""
    X, y, tasks = rows
    fitted = kind().fit(X, y if kind is regressor else classes(y), tasks)
    whole = _all(fitted, X, tasks)
    monkeypatch.setattr(predicting, "MAX_NUMBERS", 3 * (50 * 2 + 3) * 4)
    assert len(list(predicting.prediction_batches(tasks.tolist(), fitted.tasks_, 3, 100))) == 3
    assert_allclose(_all(fitted, X, tasks), whole, rtol=1e-5)  # float32
    new = np.where(tasks == "Bo", "Dee", tasks)
    with pytest.warns(DataWarning):
        parts = _all(fitted, X, new)
    monkeypatch.undo()
    with pytest.warns(DataWarning):
        whole = _all(fitted, X, new)
    assert_allclose(parts, whole, rtol=1e-5)


def test_batches_have_every_row_once():
    rng = np.random.default_rng(0)
    labels = rng.choice(["a", "b", "c", "new"], p=[0.8, 0.1, 0.05, 0.05], size=500).tolist()
    seen = []
    for index, tasks in predicting.prediction_batches(
        labels, ("a", "b", "c", "unused"), 2, 100_000
    ):
        assert {labels[row] == "new" for row in index} == {tasks is None}
        seen += index.tolist()
    assert sorted(seen) == list(range(500))


def test_a_row_alone_is_predicted_as_among_others_of_its_task(rows):
    X, y, tasks = rows
    fitted = regressor().fit(X, y, tasks)
    whole = fitted.predict(X[:10], tasks[:10])
    alone = [fitted.predict(X[[i]], tasks[[i]])[0] for i in range(10)]
    assert_allclose(alone, whole, rtol=1e-5)  # float32


# Looking at it


def test_relatedness_has_labels_and_sums_to_1(rows):
    X, y, tasks = rows
    for method in (quick("regression"), quick_stack("regression")):
        found = regressor(method=method).fit(X, y, tasks).relatedness_
        assert found["mean"].dims == ("task", "source")
        assert_allclose(found["mean"].sum("source"), 1.0, rtol=1e-5)
        assert np.isnan(found["mean"].sel(task="Bo", source="Bo"))
        off = ~np.isnan(found["mean"].values)
        assert (found["lower"].values[off] <= found["upper"].values[off]).all()


def test_the_summary_is_made_of_the_relatedness(rows):
    X, y, tasks = rows
    fitted = regressor(method=quick_stack("regression")).fit(X[:-3], y[:-3], tasks[:-3])
    mean, table = fitted.relatedness_["mean"], fitted.summary()
    assert table["rows"].tolist() == [10, 10, 7]
    assert_allclose(table["borrowed"], 1 - mean.sel(source="base"), rtol=1e-5)
    for task in fitted.tasks_:
        of_task = mean.sel(task=task).drop_sel(source="base").fillna(0)
        stands_out = of_task.max() > 0.6 * of_task.sum()  # of two others
        assert table["nearest"][task] == (of_task.idxmax().item() if stands_out else None)
        assert table["share"][task] == pytest.approx(of_task.max().item())
    assert_allclose(table[["shared", "alone"]].sum(axis=1), 1.0, rtol=1e-5)


def test_the_nearest_task_is_none_where_nothing_is_borrowed(rows):
    fitted = regressor(method=quick("regression", shared=())).fit(*rows)
    assert fitted.summary()["nearest"].tolist() == [None] * 3


def test_the_picture_shows_the_relatedness(rows):
    fitted = regressor().fit(*rows)
    ax = fitted.plot_relatedness()
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert sorted(names) == ["Ada (10)", "Bo (10)", "Cy (10)"]  # with their numbers of rows
    order = [["Ada (10)", "Bo (10)", "Cy (10)"].index(name) for name in names]
    shown = np.ma.filled(ax.images[0].get_array(), np.nan)
    mean = fitted.relatedness_["mean"].values
    assert_allclose(shown, mean[order][:, order], rtol=1e-5)  # summed in 32 or 64 bits
    assert fitted.plot_relatedness(ax) is ax


def test_an_exported_tree_names_its_units(rows):
    for scaled, units in ((True, "standardized"), (False, "centred")):
        tree = regressor(scale_features=scaled).fit(*rows).to_datatree(*rows, num_samples=2)
        assert tree["posterior"].attrs["units"] == units


def test_the_history_is_that_of_the_fit(rows):
    assert regressor().fit(*rows).history_.loss.shape == (20,)


def test_scores_are_those_of_scikit_learn(rows):
    X, y, tasks = rows
    weight = np.arange(30.0)
    fitted = regressor().fit(X, y, tasks)
    by_hand = r2_score(y, fitted.predict(X, tasks), sample_weight=weight)
    assert fitted.score(X, y, tasks, sample_weight=weight) == by_hand
    fitted = classifier().fit(X, classes(y), tasks)
    by_hand = accuracy_score(classes(y), fitted.predict(X, tasks), sample_weight=weight)
    assert fitted.score(X, classes(y), tasks, sample_weight=weight) == by_hand


# Counts


def test_counts_are_predicted_as_whole_numbers():
    rng = np.random.default_rng(0)
    X, tasks = rng.normal(size=(300, 1)), np.repeat(["a", "b", "c"], 100)
    y = rng.poisson(np.exp(2 + 0.5 * X[:, 0]))
    method = quick("counts", 300)
    fitted = VMTLRegressor(method, likelihood="poisson").fit(X, y, tasks)
    mean, std, quantiles = fitted.predict(X, tasks, return_std=True, quantiles=[0.1, 0.9])
    # 100 rows of rate 8 give a log rate a standard error of 0.04
    assert_allclose(mean, np.exp(2 + 0.5 * X[:, 0]), rtol=0.25)
    assert (std**2 >= mean * 0.99).all()
    assert_array_equal(quantiles, np.round(quantiles))
    inside = (quantiles[:, 0] <= y) & (y <= quantiles[:, 1])
    assert 0.75 < inside.mean() < 0.95
    with pytest.raises(ValueError, match=r"y has 0.5 in row 1, expected a count"):
        VMTLRegressor(method, likelihood="poisson").fit(X[:2], [1, 0.5])


@pytest.mark.slow
def test_the_default_with_validation_data(rows):
    """Noise has variance 1, the line 16: R² is 0.94 where all is known."""
    X, y, tasks = rows
    rng = np.random.default_rng(5)
    other = rng.normal(size=(300, 3)) * [1, 10, 0.1] + [0, 5, 3]
    y_other, of_other = 50 + 4 * other[:, 0] + rng.normal(size=300), np.resize(tasks, 300)
    part = slice(0, 30)
    fitted = VMTLRegressor().fit(
        X, y, tasks, validation_data=(other[part], y_other[part], of_other[part])
    )
    assert fitted.score(other[30:], y_other[30:], of_other[30:]) > 0.9
    low, high = fitted.predict(other, of_other, quantiles=[0.05, 0.95])[1].T
    assert 0.8 < ((low < y_other) & (y_other < high)).mean() < 0.98
