"""Comparing methods over splits: means, errors, ranks, and the figure of them."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from benchmarks.comparison import plot_comparison, summarise
from pyro_vmtl.analysis import ALL_TASKS


@pytest.fixture
def results():
    """Two methods on three splits, one of them ahead on two."""
    values = {"good": [0.9, 0.8, 0.7], "bad": [0.5, 0.6, 0.75]}
    rows = [
        {"data_set": "d", "split": "random", "seed": seed, "method": method, "task": task}
        | {"metric": metric, "value": sign * value + offset, "seconds": 1.0 + seed}
        for method, numbers in values.items()
        for seed, value in enumerate(numbers)
        for task, offset in (("x", 0.1), (ALL_TASKS, 0.0))
        for metric, sign in (("accuracy", 1), ("nll", -1))
    ]
    return pd.DataFrame(rows)


def test_the_summary_has_means_errors_and_ranks(results):
    summary = summarise(results)
    assert list(summary.index) == ["good", "bad"]
    good = summary.loc["good"]
    assert good["accuracy", "mean"] == pytest.approx(0.8)
    assert good["accuracy", "se"] == pytest.approx(0.1 / 3**0.5)
    assert good["accuracy", "rank"] == pytest.approx(4 / 3)  # first, first, second
    assert good["nll", "rank"] == pytest.approx(4 / 3)  # less is better there
    assert good["seconds", "mean"] == 2.0 and good["runs", "count"] == 3


def test_a_missing_run_is_the_last_and_does_not_count(results):
    lost = (results["method"] == "good") & (results["seed"] == 0)
    summary = summarise(results[~lost])
    assert summary.loc["good", ("runs", "count")] == 2
    assert summary.loc["good", ("accuracy", "rank")] == pytest.approx((2 + 1 + 2) / 3)
    assert summary.loc["bad", ("accuracy", "rank")] == pytest.approx((1 + 2 + 1) / 3)


def test_the_comparison_shows_means_and_every_split(results):
    ax = Figure().subplots()
    plot_comparison(results, "accuracy", ax)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["bad", "good"]  # the best on top
    grey = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 3]
    np.testing.assert_allclose(sorted(grey[1]), [0.7, 0.8, 0.9])
    assert "higher is better" in ax.get_xlabel()
    far = pd.concat(
        [results.assign(method=f"m{i}") for i in range(3)]
        + [results[results["method"] == "bad"].assign(method="far", value=99.0)]
    )
    ax = Figure().subplots()
    plot_comparison(far, "nll", ax)
    assert any("99" in text.get_text() for text in ax.texts) and ax.get_xlim()[1] < 99
