"""Estimators hand further columns of rows over to programs of one's own."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import sklearn
import torch
from pyro.infer.autoguide import AutoNormal
from sklearn.model_selection import cross_val_score

from pyro_vmtl import Programs, Stack, VMTLClassifier, VMTLRegressor, share

CITIES = ["Ulm", "Bonn", "Kiel"]


def poisson(data):
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1))
        rate = (data.x @ w.mT).squeeze(-1).exp() * data.columns["exposure"]
        with pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Poisson(rate), obs=data.y)


def programs(data):
    return share(poisson, AutoNormal(poisson), sites=["w"])


METHOD = Programs(programs, {"num_steps": 300})


def cases(num, seed=0):
    """Counts at rates that differ by a factor of e^2, over hours that differ by one of 40."""
    rng = np.random.default_rng(seed)
    X, tasks = rng.uniform(-1, 1, (num, 1)), np.array(CITIES)[np.arange(num) % 3]
    columns = pd.DataFrame({"exposure": rng.uniform(0.5, 20, num)})
    mean = np.exp(1 + X[:, 0]) * columns["exposure"].to_numpy()
    return X, rng.poisson(mean), tasks, columns, mean


@pytest.fixture(scope="module")
def fitted():
    X, y, tasks, columns, _ = cases(120)
    reg = VMTLRegressor(METHOD, likelihood="poisson", num_samples=100)
    return reg.fit(X, y, tasks=tasks, columns=columns)


def test_predictions_follow_the_exposures(fitted):
    X, y, tasks, columns, mean = cases(60, seed=1)
    found, high = fitted.predict(X, tasks, columns=columns, quantiles=[0.9])
    # 120 counts of 27 on average estimate each city's two coefficients to some 0.03
    assert np.abs(np.log(found / mean)).max() < 0.15
    assert 0.75 < np.mean(y <= high[:, 0]) <= 1  # 0.9 with a standard error of 0.04
    assert fitted.score(X, y, tasks, columns=columns) > 0.8
    assert fitted.log_density(X, y, tasks, columns=columns).mean() > -4
    doubled = fitted.predict(X, tasks, columns={"exposure": 2 * columns["exposure"]})
    np.testing.assert_allclose(doubled, 2 * found, rtol=1e-4)


def test_they_do_not_depend_on_the_order_of_rows(fitted):
    X, y, tasks, columns, _ = cases(120)
    order = np.random.default_rng(0).permutation(120)
    again = VMTLRegressor(METHOD, likelihood="poisson", num_samples=100).fit(
        X[order], y[order], tasks=tasks[order], columns=columns.iloc[order]
    )
    np.testing.assert_array_equal(
        again.predict(X, tasks, columns=columns), fitted.predict(X, tasks, columns=columns)
    )


def test_a_missing_column_is_named(fitted):
    X, _, tasks, _, _ = cases(6)
    for columns in (None, {}):
        with pytest.raises(ValueError, match="columns has no 'exposure'"):
            fitted.predict(X, tasks, columns=columns)
    with pytest.raises(ValueError, match="columns has 'hours'"):
        fitted.predict(X, tasks, columns={"exposure": np.ones(6), "hours": np.ones(6)})
    with pytest.raises(ValueError, match=r"'exposure'\] has shape \(5,\), expected 6 rows"):
        fitted.predict(X, tasks, columns={"exposure": np.ones(5)})


def test_they_are_saved_and_exported(fitted, tmp_path):
    X, y, tasks, columns, _ = cases(120)
    fitted.save(tmp_path / "cases")
    again = VMTLRegressor.load(tmp_path / "cases", method=METHOD)
    expected = fitted.predict(X, tasks, columns=columns)
    np.testing.assert_array_equal(again.predict(X, tasks, columns=columns), expected)
    with pytest.raises(ValueError, match="columns has no 'exposure'"):
        again.predict(X, tasks)
    rows = X[:9], y[:9], tasks[:9], None, columns[:9]
    tree = again.to_datatree(X, y, tasks, columns=columns, rows=rows, num_samples=50)
    np.testing.assert_allclose(tree["constant_data"]["exposure"], columns["exposure"], rtol=1e-6)
    np.testing.assert_allclose(tree["predictions"]["mean"], expected[:9], rtol=0.1)


def test_folds_have_their_own():
    X, y, tasks, columns, mean = cases(120)
    method = Stack({"own": METHOD}, num_folds=2)
    reg = VMTLRegressor(method, likelihood="poisson", num_samples=50)
    held_out = X[60:], y[60:], tasks[60:], None, columns[60:]
    reg.fit(X[:60], y[:60], tasks[:60], columns=columns[:60], validation_data=held_out)
    found = reg.predict(X, tasks, columns=columns)
    assert np.abs(np.log(found / mean)).max() < 0.3
    with sklearn.config_context(enable_metadata_routing=True):
        scores = cross_val_score(
            VMTLRegressor(METHOD, likelihood="poisson", num_samples=50),
            *(X, y),
            cv=2,
            params={"tasks": tasks, "columns": columns},
        )
    assert (scores > 0.8).all()


def grades(data):
    """Graded answers, of which a column says how hard the question was."""
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1))
        level = (data.x @ w.mT).squeeze(-1) - data.columns["hardness"]
        with pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
            cuts = torch.tensor([-1.0, 1.0]).expand(*data.mask.shape, 2)
            pyro.sample("y", dist.OrderedLogistic(level, cuts), obs=data.y)


def test_a_classifier_has_them_too():
    rng = np.random.default_rng(0)
    X, tasks = rng.normal(size=(150, 1)), np.array(CITIES)[np.arange(150) % 3]
    columns = {"hardness": rng.normal(size=150)}
    level = 2 * X[:, 0] - columns["hardness"] + rng.logistic(size=150)
    y = np.array(["a bad", "b fair", "c good"])[np.digitize(level, [-1, 1])]
    method = Programs(lambda data: (grades, AutoNormal(grades)), {"num_steps": 200})
    clf = VMTLClassifier(method, num_samples=50).fit(X, y, tasks, columns=columns)
    hard, easy = (
        clf.predict_proba([[0.0]], ["Ulm"], columns={"hardness": [h]})[0] for h in (3.0, -3.0)
    )
    assert hard[0] > 0.7 > 0.1 > hard[2] and easy[2] > 0.7
    assert clf.score(X, y, tasks, columns=columns) > 0.5
    assert len(clf.predict(X[:2], tasks[:2], columns={"hardness": [0, 0]})) == 2


def test_targets_can_be_left_as_they_are():
    X, y, tasks, columns, mean = cases(60)
    reg = VMTLRegressor(METHOD, scale_targets=False, num_samples=50)
    reg.fit(X, y, tasks, columns=columns)
    assert (reg.target_mean_, reg.target_scale_) == (0.0, 1.0)
    assert np.abs(np.log(reg.predict(X, tasks, columns=columns) / mean)).max() < 0.3
