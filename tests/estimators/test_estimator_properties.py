"""Estimators on random problems: numbers, or an error that says what to do."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from pyro_vmtl.estimators import VMTLClassifier, VMTLRegressor
from pyro_vmtl.methods.presets import presets

quickly = settings(
    max_examples=6,  # `python -m benchmarks.fuzz` tries many more
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # to shrink an example would take minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def estimator(kind):
    method = replace(presets(kind)["shared"].many_features, fitting={"num_steps": 15})
    if kind == "classification":
        return VMTLClassifier(method, num_samples=20)
    likelihood = "poisson" if kind == "counts" else "normal"
    return VMTLRegressor(method, likelihood=likelihood, num_samples=20)


@st.composite
def problems(draw, kind):
    """Rows of 1 to 6 tasks, of which columns may be alike, constant, huge or tiny."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(1, 30), min_size=1, max_size=6))
    num_features = draw(st.integers(1, 5))
    X = rng.normal(size=(sum(sizes), num_features))
    for column in range(num_features):
        what = draw(st.sampled_from(["plain", "same", "constant", "huge", "tiny", "one", "far"]))
        if what == "same":
            X[:, column] = X[:, 0]
        elif what == "constant":
            X[:, column] = draw(st.sampled_from([0.0, 7.0, -1e30]))
        elif what == "one":
            X[:, column] = np.arange(len(X)) == 0
        elif what == "far":
            X[:, column] += 1e9
        else:
            X[:, column] *= {"plain": 1.0, "huge": 1e200, "tiny": 1e-200}[what]
    tasks = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    if kind == "classification":
        y = rng.integers(draw(st.integers(2, 4)), size=len(X))
    elif kind == "counts":
        y = rng.poisson(draw(st.sampled_from([0.3, 5.0, 1e6])), size=len(X))
    else:
        y = rng.normal(size=len(X)) * draw(st.sampled_from([1.0, 1e100, 1e-100]))
        y = y + draw(st.sampled_from([0.0, 10.0]))
    return X, y, tasks


def fitted_to(kind, X, y, tasks):
    """Fit, or None where all targets are alike."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return estimator(kind).fit(X, y, tasks)
        except ValueError as error:
            assert "in all" in str(error)  # rows one class, or the same target
            return None


def check(kind, fitted, X, tasks, shift=0.0):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "classification":
            proba = fitted.predict_proba(X, tasks)
            assert (proba >= 0).all()
            assert_allclose(proba.sum(1), 1.0, rtol=1e-12)
            return
        mean, std, quantiles = fitted.predict(
            X, tasks, return_std=True, quantiles=[0.01, 0.5, 0.99]
        )
    for values in (mean, std, quantiles):
        assert np.isfinite(values).all()
    assert (std > 0).all() and (np.diff(quantiles, axis=1) >= 0).all()
    if kind == "counts":
        assert (mean >= 0).all() and (quantiles >= 0).all()


KINDS = ["regression", "classification", "counts"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@quickly
@given(data=st.data())
def test_predictions_are_numbers(kind, data):
    """For rows of the fit, of others, of new tasks, and after adding one."""
    X, y, tasks = data.draw(problems(kind))
    fitted = fitted_to(kind, X, y, tasks)
    if fitted is None:
        return
    assert sum(fitted.task_sizes_) == len(X)
    check(kind, fitted, X, tasks)
    check(kind, fitted, -3 * X[::-1] + 1, tasks)
    check(kind, fitted, X, np.full(len(X), "new"))
    added = data.draw(st.integers(1, len(X)))
    fitted.add_task(X[:added], y[:added], task="added")
    check(kind, fitted, X, np.full(len(X), "added"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@quickly
@given(data=st.data())
def test_the_order_of_rows_and_names_of_tasks_do_not_matter(kind, data):
    """Other names change no bit, and the order of rows no more than rounding.

    Sums in float32 differ by 1e-7 of their largest terms, which 15 steps of Adam, whose first steps
    are by the sign of gradients, make 1e-3 of a standard deviation at worst.
    """
    X, y, tasks = data.draw(problems(kind))
    fitted = fitted_to(kind, X, y, tasks)
    if fitted is None:
        return
    names = data.draw(st.permutations(["Ada", "Bo", "Cy", ("Dee", 1), 5, 0.5]))
    named = [names[task] for task in tasks]
    again = fitted_to(kind, X, y, named)
    assert set(again.tasks_) == {names[task] for task in fitted.tasks_}
    assert_array_equal(again.predict(X, named), fitted.predict(X, tasks))
    order = np.random.default_rng(0).permutation(len(X))
    other = fitted_to(kind, X[order], y[order], tasks[order])
    if kind == "classification":
        found, expected = (f.predict_proba(X, tasks) for f in (other, fitted))
        assert_allclose(found, expected, atol=1e-2)
    else:
        found = other.predict(X, tasks)
        expected, std = fitted.predict(X, tasks, return_std=True)
        assert (np.abs(found - expected) <= 1e-2 * std).all()
