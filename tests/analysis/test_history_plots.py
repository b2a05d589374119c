"""Data on the plots of the steps of a fit."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
import xarray as xr
from history_trees import tree_of_history

from pyro_vmtl import History
from pyro_vmtl.analysis import plot_elbo, plot_elbo_terms

mpl.use("agg")


@pytest.fixture
def data():
    """Two tasks, of 4 and 1 rows."""
    history = History(
        loss=torch.linspace(10, 1, 100),
        step=torch.tensor([0, 50, 99]),
        log_likelihood={"y": torch.tensor([[-8.0, -9.0], [-4.0, -3.0], [-4.0, -2.0]])},
        kl={"w_sources": torch.rand(3, 2), "w": torch.rand(3, 2), "v": torch.zeros(3, 2)}
        | {"m": torch.rand(3)},
    )
    return tree_of_history(history, ["a", "b"], ["b", "a", "a", "a", "a"])


def test_the_loss_is_shown_step_by_step_and_smoothed(data):
    ax = plot_elbo(data)
    each, smooth = (line.get_ydata() for line in ax.lines)
    np.testing.assert_allclose(each, data["history"]["loss"])
    assert smooth[50] == pytest.approx(np.median(each[25:76]))
    assert ax.get_title(loc="left").endswith(f"{np.median(each[74:]):.2f} nats at the end")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "nats")


def test_the_log_likelihood_is_shown_per_row_of_each_task(data):
    ax = plot_elbo_terms(data)
    a, b = ax.lines
    # the running median of 9 notes is here that of all three
    np.testing.assert_allclose(a.get_ydata(), [-1.0] * 3)
    np.testing.assert_allclose(b.get_ydata(), [-3.0] * 3)
    assert [text.get_text() for text in ax.texts] == ["b", "a"] and ax.get_legend() is None
    assert ax.get_ylabel() == "nats per row"
    del data["observed_data"]
    ax = plot_elbo_terms(data)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [-4.0] * 3)
    assert ax.get_ylabel() == "nats per task"


def test_a_kl_is_shown_by_site(data):
    ax = plot_elbo_terms(data, term="kl")
    assert "KL of w:" in ax.get_title(loc="left")  # source weights come last
    ax = plot_elbo_terms(data, term="kl", site="m")
    expected = np.median(data["history"]["kl_m"])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), expected)
    assert ax.get_ylabel() == "nats"
    with pytest.raises(ValueError, match=r"no variable 'kl_x' in a group 'history', found .*'kl_m"):
        plot_elbo_terms(data, term="kl", site="x")


def test_many_tasks_are_shown_as_bands():
    values = np.random.default_rng(0).random((40, 50)).cumsum(0)
    history = {"loss": ("step", np.arange(400.0)), "kl_w": (("term_step", "task"), values)}
    data = xr.DataTree.from_dict({"history": xr.Dataset(history)})
    ax = plot_elbo_terms(data, term="kl")
    assert len(ax.lines) == 1 and len(ax.collections) == 2
    assert ax.lines[0].get_ydata()[20] == pytest.approx(
        np.median(np.median(values[16:25], axis=0)), rel=1e-12
    )
    assert {t.get_text() for t in ax.texts} == {"median task", "1 in 2 tasks", "9 in 10 tasks"}


def test_a_pooled_fit_has_the_history_of_one_task():
    history = History(torch.ones(5), torch.tensor([0, 4]), {"y": torch.ones(2, 1)}, {})
    data = tree_of_history(history, ["a", "b"], ["a", "b", "b"])
    ax = plot_elbo_terms(data)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 1 / 3)
    assert ax.texts[0].get_text() == "all tasks"
