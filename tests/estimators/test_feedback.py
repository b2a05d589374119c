"""Estimators of several outputs: scikit-learn's checks, what is known, missing values, files."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.utils.estimator_checks import parametrize_with_checks

from pyro_vmtl import FeedbackClassifier, FeedbackEstimator, FeedbackRegressor


@parametrize_with_checks(
    [
        FeedbackClassifier(num_steps=20, num_samples=5),
        FeedbackRegressor(num_steps=20, num_samples=5),
    ]
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def table():
    """Weather by two features; people stay in when it rains, and umbrellas are sold."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(300, 2)), columns=["pressure", "wind"])
    chance = 1 / (1 + np.exp(6 * X["pressure"]))
    rain = rng.random(300) < chance
    mood = np.where(rng.random(300) < chance, "low", np.where(X["wind"] > 0, "fair", "high"))
    sales = 20 * chance + rng.normal(size=300) + 100
    y = pd.DataFrame({"rain": rain, "mood": mood, "sales": sales})
    return X, y


@pytest.fixture(scope="module")
def fitted(table):
    return FeedbackEstimator(num_steps=400).fit(*table)


def test_outputs_of_different_kinds_are_predicted_in_their_units(table, fitted):
    X, y = table
    found = fitted.predict(X)
    assert found.columns.tolist() == ["rain", "mood", "sales"]
    assert (found["rain"] == y["rain"]).mean() > 0.8
    assert set(found["mood"]) <= {"low", "fair", "high"}
    assert np.corrcoef(found["sales"], y["sales"])[0, 1] > 0.9
    rain, mood = fitted.predict_proba(X)
    assert rain.shape == (300, 2) and mood.shape == (300, 3)
    np.testing.assert_allclose(mood.sum(1), 1, rtol=1e-12)
    assert [c.tolist() for c in fitted.classes_] == [[False, True], ["fair", "high", "low"]]


def test_real_outputs_have_standard_deviations(table, fitted):
    X, y = table
    mean, std = fitted.predict(X, return_std=True)
    assert std[["rain", "mood"]].isna().all().all()
    inside = (y["sales"] - mean["sales"]).abs() < 1.645 * std["sales"]
    assert 0.85 < inside.mean() < 0.95  # noise is 1; a standard error of 300 rows is 0.017
    _, given = fitted.predict(X, known={"sales": y["sales"]}, return_std=True)
    assert (given["sales"] == 0).all()


def test_gates_are_labelled_and_the_iteration_contracts(fitted):
    gates = fitted.gates_
    assert gates.dims == ("from", "to", "gate")
    assert gates["from"].values.tolist() == ["rain", "mood", "sales"]
    sums = gates.sum("gate").values
    np.testing.assert_allclose(sums, 1 - np.eye(3), atol=1e-6)
    assert 0 <= fitted.spectral_radius_ <= 0.9


def test_iterations_begin_with_what_each_output_says_alone(table, fitted):
    X, _ = table
    found = fitted.iterations(X[:4], num_iterations=8)
    names = ["rain", "mood=fair", "mood=high", "mood=low", "sales"]
    assert found.dims == ("row", "iteration", "output") and found["output"].values.tolist() == names
    steps = np.abs(found.diff("iteration")).max(("row", "output")).values
    assert steps[-1] < 0.01  # they have settled
    rain = fitted.predict_proba(X[:4])[0][:, 1]
    np.testing.assert_allclose(found.sel(iteration=3, output="rain"), rain, atol=1e-6)


def test_what_is_known_is_returned_and_informs_the_others(table, fitted):
    X, _ = table
    known = pd.DataFrame({"sales": np.where(np.arange(300) < 150, 160.0, np.nan)})
    found = fitted.predict(X, known=known)
    assert (found["sales"][:150] == 160).all() and (found["sales"][150:] != 160).all()
    _, mood = fitted.predict_proba(X, known={"mood": ["low"] * 300})
    np.testing.assert_array_equal(mood, np.tile([0.0, 0.0, 1.0], (300, 1)))
    if float(fitted.gates_.sel({"from": "sales", "gate": "output"}).max()) > 0.5:
        before, after = (fitted.predict_proba(X[:150], known=k) for k in (None, known[:150]))
        assert max(np.abs(a - b).max() for a, b in zip(before, after, strict=True)) > 0.01
    table_of_all = pd.DataFrame({"rain": [None] * 300, "mood": None, "sales": known["sales"]})
    np.testing.assert_array_equal(
        fitted.predict(X, known=table_of_all.to_numpy())["rain"], found["rain"]
    )
    with pytest.raises(ValueError, match="known has 2 columns, expected 3"):
        fitted.predict(X, known=np.zeros((300, 2)))


def test_missing_outputs_are_not_learned_from(table):
    """The same fit as where a wrong value is marked as missing."""
    X, y = table
    holes = np.arange(300) % 3 == 0
    with_none = y.astype(object)
    with_none.loc[holes, "rain"] = None
    fits = [
        FeedbackEstimator(num_steps=30, num_samples=5).fit(X, outputs)
        for outputs in (with_none, with_none.where(with_none.notna(), np.nan))
    ]
    one, other = (fit.predict_proba(X)[0] for fit in fits)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("settings", [{}, {"hidden_size": 5}, {"num_iterations": 0}])
def test_a_file_predicts_the_same(table, settings, tmp_path):
    X, y = table
    fitted = FeedbackEstimator(num_steps=30, num_samples=5, **settings).fit(X, y)
    fitted.save(tmp_path / "fit")
    loaded = FeedbackEstimator.load(tmp_path / "fit")
    pd.testing.assert_frame_equal(loaded.predict(X), fitted.predict(X))
    assert loaded.get_params() == fitted.get_params()
    assert loaded.gates_.equals(fitted.gates_)
    assert torch.equal(loaded.history_.loss, fitted.history_.loss)
    assert {path.suffix for path in (tmp_path / "fit").iterdir()} == {".json", ".safetensors"}
    with pytest.raises(ValueError, match=r"holds a FeedbackEstimator.*Use FeedbackEstimator.load"):
        FeedbackRegressor.load(tmp_path / "fit")


def test_a_changed_file_is_refused(table, tmp_path):
    X, y = table
    FeedbackEstimator(num_steps=2, num_samples=2).fit(X, y).save(tmp_path / "fit")
    path = tmp_path / "fit" / "outputs.json"
    config = json.loads(path.read_text())
    config["outputs"][0]["name"] = "snow"
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="is not what was saved"):
        FeedbackEstimator.load(tmp_path / "fit")
    config["code"] = "import os"
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="cannot be read"):
        FeedbackEstimator.load(tmp_path / "fit")


def test_uncertainty_of_real_outputs_is_in_their_units():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    noise = rng.normal(size=(400, 2)) * [3.0, 0.1]
    y = X @ [[10.0, 0.5], [0.0, 0.2]] + noise + [50.0, 0.0]
    mean, std = FeedbackRegressor(num_steps=800).fit(X, y).predict(X, return_std=True)
    np.testing.assert_allclose(std.mean(0), [3.0, 0.1], rtol=0.15)
    assert np.sqrt(((mean - y) ** 2).mean(0)) == pytest.approx([3.0, 0.1], rel=0.15)
