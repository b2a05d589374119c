"""Pictures and tables of influence, against the numbers they are of."""

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib import pyplot as plt

from pyro_vmtl.analysis import (
    harmful_rows,
    plot_influence_against_refits,
    plot_influence_between_tasks,
    plot_influential_rows,
    read_netcdf,
    relatedness_datatree,
    write_netcdf,
    write_report,
)
from pyro_vmtl.analysis.influence.influence_section import influence_section


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


def as_saved(found, **content):
    """What a run keeps, with features of the rows."""
    names = {"feature": ["hours", "<b>"], **{k: found[k].astype(str) for k in ("task", "row_task")}}
    features = ("row", "feature"), 10.0 + np.arange(8).reshape(4, 2)
    found = found.assign(features=features, refitted=("row", [False] * 4)).assign_coords(names)
    return xr.DataTree(found.assign(content).assign_attrs(method="newton"))


def test_a_report_has_what_harms_whom(found, tmp_path):
    refitted = "row", [False, True, True, False]
    tree = as_saved(found, refitted=refitted, estimate=2 * found["influence"])
    write_netcdf(tree, tmp_path / "influence.nc")
    section = influence_section(
        xr.DataTree.from_dict({"influence": read_netcdf(tmp_path / "influence.nc").to_dataset()})
    )
    (table,) = section.tables
    assert table.frame.index.tolist() == [11, 13]  # by -1.8 and -0.5 over both tasks
    assert table.frame.loc[11].tolist() == ["b", -1.8, 0.1, 12.0, 13.0]
    titles = [picture.title for picture in section.pictures]
    assert titles[1:3] == ["Which rows help or harm b?", "Which rows help or harm a?"]
    estimates, refits = section.pictures[-1].draw().collections[0].get_offsets().T
    np.testing.assert_allclose(estimates, [-4.0, 1.0])  # of rows that are refitted, on their own
    np.testing.assert_allclose(refits, [-2.0, 0.5])
    page = write_report(tmp_path, [section], title="T", summary=[], footer="").read_text()
    assert "&lt;b&gt;" in page and "<b>x" not in page and "newton" in page
    assert (tmp_path / "pictures" / "influential-rows-2.png").exists()


def test_weights_and_influence_have_the_tasks_in_one_order(found):
    draws = torch.tensor([[[0.0, 0.6, 0.4], [0.7, 0.0, 0.3]]]).expand(9, -1, -1)
    fit = relatedness_datatree(draws, ["a", "b"])
    fit["influence"] = as_saved(found)
    ax = influence_section(fit).pictures[0].draw()
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [label.get_text() for label in ax.figure.axes[0].get_yticklabels()]
    sums = dict(zip(names, ax.images[0].get_array().sum(1), strict=True))
    assert sums == pytest.approx({"a": 0.4, "b": -1.05})
