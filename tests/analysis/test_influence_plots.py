"""Pictures and tables of influence, against the numbers they are of."""

import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt

from pyro_vmtl.analysis import (
    harmful_rows,
    plot_influence_against_refits,
    plot_influence_between_tasks,
    plot_influential_rows,
)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def dataset(values, tasks, of):
    return xr.Dataset(
        {"influence": (["row", "task"], values), "step": ("row", np.arange(len(of)) / 10)},
        {"row": 10 + np.arange(len(of)), "task": tasks, "row_task": ("row", of)},
    )


@pytest.fixture
def found():
    values = np.array([[1.0, 0.1], [-2.0, 0.2], [0.05, 0.5], [-0.1, -0.4]])
    return dataset(values, ["b", "a"], ["b", "b", "a", "a"])


def test_rows_are_added_up_by_task(found):
    ax = plot_influence_between_tasks(found)
    image = ax.images[0].get_array()
    np.testing.assert_allclose(image, [[-1.0, -0.05], [0.3, 0.1]])  # predicted b, a; rows of b, a
    assert [label.get_text() for label in ax.get_xticklabels()] == ["b", "a"]
    assert {text.get_text() for text in ax.texts} >= {"-1", "-0.05", "0.3", "0.1"}


def test_each_row_has_a_dot_in_its_task(found):
    ax = plot_influential_rows(found, "b")
    dots = ax.collections[0].get_offsets()
    np.testing.assert_allclose(dots[:, 0], [1.0, -2.0, 0.05, -0.1])
    assert np.round(dots[:, 1]).tolist() == [0, 0, 1, 1]
    assert {text.get_text() for text in ax.texts} >= {"10", "11"}


def test_own_and_other_tasks_are_apart(found):
    refit = found.isel(row=[3, 1, 2])
    own, others = plot_influence_against_refits(found, refit)
    np.testing.assert_allclose(own.collections[0].get_offsets()[:, 0], [-0.4, -2.0, 0.5])
    np.testing.assert_allclose(others.collections[0].get_offsets()[:, 0], [-0.1, 0.2, 0.05])
    assert any("Correlation 1.00" in text.get_text() for text in own.texts)


def test_the_rows_that_harm_most_come_with_their_features(found):
    X = np.arange(30).reshape(15, 2)
    table = harmful_rows(found, X)
    assert table.index.tolist() == [11, 13]
    np.testing.assert_allclose(table["influence"], [-1.8, -0.5])
    assert table.loc[11, ["0", "1"]].tolist() == [22, 23]
    assert harmful_rows(found, task="a", number=1).index.tolist() == [13]
