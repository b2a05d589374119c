"""Which output feeds which is found where it is known, and nothing where there is nothing."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pyro_vmtl import FeedbackClassifier

T, FEATURES = 6, 8


def problem(seed, *, feeds, num_rows=2000, num_test=1000):
    """Draw rows of six binary outputs after three iterations of seven known edges, or of none."""
    rng = np.random.default_rng(seed)
    heads = rng.normal(size=(FEATURES, T))
    heads *= 5 / np.linalg.norm(heads, axis=0)
    X = rng.normal(size=(num_rows + num_test, FEATURES))
    weight = np.zeros((T, T))
    if feeds:
        pairs = [(s, t) for s in range(T) for t in range(T) if s != t]
        for pair in rng.permutation(len(pairs))[:7]:
            weight[pairs[pair]] = 8 * rng.choice([-1, 1])
        radius = np.abs(np.linalg.eigvals(np.abs(weight) / 4)).max()
        weight *= min(1, 0.9 / max(radius, 1e-9))
    static = X @ heads
    eta = static
    for _ in range(3):
        eta = static + (1 / (1 + np.exp(-eta)) - 0.5) @ weight
    y = (rng.random(eta.shape) < 1 / (1 + np.exp(-eta))).astype(int)
    return (X[:num_rows], y[:num_rows]), (X[num_rows:], y[num_rows:]), weight != 0


def open_gates(fitted):
    return 1 - fitted.gates_.sel(gate="none").values[~np.eye(T, dtype=bool)]


def nll(fitted, X, y):
    p = np.stack([proba[:, 1] for proba in fitted.predict_proba(X)], 1).clip(1e-6, 1 - 1e-6)
    return -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(1)


def recovery(seed):
    train, test, edges = problem(seed, feeds=True)
    fitted = FeedbackClassifier(num_steps=1500).fit(*train)
    return roc_auc_score(edges[~np.eye(T, dtype=bool)], open_gates(fitted)), fitted, train, test


def independence(seed):
    train, test, _ = problem(seed, feeds=False)
    fed, static = (FeedbackClassifier(num_steps=1500, num_iterations=k).fit(*train) for k in (3, 0))
    difference = nll(fed, *test) - nll(static, *test)
    error = difference.std() / len(difference) ** 0.5
    return (open_gates(fed) > 0.5).mean(), difference.mean(), error


@pytest.mark.slow
def test_known_edges_are_found_and_help():
    torch.set_num_threads(1)
    auc, fitted, train, test = recovery(2)
    assert auc >= 0.95
    static = FeedbackClassifier(num_steps=800, num_iterations=0).fit(*train)
    difference = nll(fitted, *test) - nll(static, *test)
    assert difference.mean() < -2 * difference.std() / len(difference) ** 0.5


@pytest.mark.slow
def test_independent_outputs_feed_nothing():
    share, difference, error = independence(0)
    assert share <= 0.05
    assert difference <= max(error, 1e-6)  # with all gates shut only float32 rounding is left
