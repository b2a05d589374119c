"""Alone, pooled, hierarchical, shared: four ways to learn many tasks, by name."""

import numpy as np
import pytest

from pyro_vmtl import VMTLRegressor

METHODS = ("alone", "pooled", "hierarchical", "shared")
LEVELS = np.array([-2.0, 0.0, 1.0, 3.0])
SIZES = [3, 40, 40, 40]


@pytest.fixture(scope="module")
def levels():
    """Predicted levels of four tasks by each method; the first has three rows."""
    rng = np.random.default_rng(0)
    tasks = np.repeat(np.arange(4), SIZES)
    x = rng.normal(size=(len(tasks), 1))
    y = LEVELS[tasks] + x[:, 0] + 0.5 * rng.normal(size=len(tasks))
    own = np.array([(y - x[:, 0])[tasks == t].mean() for t in range(4)])
    fits = {name: VMTLRegressor(name).fit(x, y, tasks=tasks) for name in METHODS}
    zeros = np.zeros((4, 1))
    return own, {name: fit.predict(zeros, tasks=range(4)) for name, fit in fits.items()}


def test_pooled_is_one_line_for_all(levels):
    pooled = levels[1]["pooled"]
    np.testing.assert_allclose(pooled, pooled[0], atol=1e-5)


def test_alone_is_each_task_s_own(levels):
    own, found = levels
    # the mean of 40 rows of noise 0.5, whose slope is estimated, too: 3 standard errors
    np.testing.assert_allclose(found["alone"][1:], own[1:], atol=0.24)


def test_hierarchical_is_between_and_the_small_task_moves_most(levels):
    _, found = levels
    move = found["hierarchical"] - found["alone"]
    assert move[0] > 0 and np.abs(move).argmax() == 0  # the lowest is drawn upwards
    assert found["alone"][0] < found["hierarchical"][0] < found["pooled"][0]
