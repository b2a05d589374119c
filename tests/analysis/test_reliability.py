"""What can be relied on: each verdict follows its own check, and only that."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from pyro_vmtl.analysis import assess_reliability

ROWS = 400


def tree(*, pit=None, proba=None, y=None, weights=None, z=None):
    """A tree with only what the checks look at."""
    groups = {}
    if pit is not None:
        groups["predictions"] = xr.Dataset({"pit": ("row", pit), "y": ("row", np.zeros(len(pit)))})
    if proba is not None:
        groups["predictions"] = xr.Dataset({"proba": (("row", "class"), proba), "y": ("row", y)})
    if weights is not None:
        dims = ("task", "member")
        names = {"member": ["shared", "alone"]}
        groups["stack"] = xr.Dataset({"member_weights": (dims, np.tile(weights, (3, 1)))}, names)
        for name, site in (("shared", "w_sources"), ("alone", "w")):
            groups[f"{name}/posterior"] = xr.Dataset({site: (("chain", "draw"), np.zeros((1, 2)))})
    if z is not None:  # 20 standard normals a task, whose target has a scale of z for each task
        draws = np.random.default_rng(0).normal(size=(1, 2000, 20, len(z)))
        log_p = stats.norm.logpdf(draws, scale=z).sum(2)
        log_q = stats.norm.logpdf(draws).sum(2)
        dims = ("chain", "draw", "task")
        groups["sample_stats"] = xr.Dataset(
            {
                "log_p_task": (dims, log_p),
                "log_q_task": (dims, log_q),
                "log_p": (dims[:2], log_p.sum(2)),
                "log_q": (dims[:2], log_q.sum(2)),
            }
        )
    return xr.DataTree.from_dict(groups)


def verdict(what, **given):
    return assess_reliability(tree(**given)).loc[what]


def test_nothing_is_reliable_that_was_not_tested():
    table = assess_reliability(tree())
    assert list(table.index) == ["predictions", "relatedness", "coefficients"]
    assert (table["reliable"] == "not tested").all()
    assert table["otherwise"].str.len().min() > 20


@pytest.mark.parametrize(("width", "expected"), [(1.0, "yes"), (0.6, "no"), (1.6, "no")])
def test_intervals_that_hold_are_reliable(width, expected):
    """Targets of scale 1 under predictive distributions of another scale."""
    u = (np.arange(ROWS) + 0.5) / ROWS
    pit = stats.norm.cdf(stats.norm.ppf(u) / width)
    found = verdict("predictions", pit=pit)
    assert found["reliable"] == expected
    inside = np.abs(stats.norm.ppf(u)) <= stats.norm.ppf(0.95) * width
    assert f"{inside.mean():.1%} of 400 targets" in found["because"]


@pytest.mark.parametrize(("right", "expected"), [(320, "yes"), (312, "yes"), (240, "no")])
def test_probabilities_that_hold_are_reliable(right, expected):
    proba = np.tile([0.8, 0.2], (ROWS, 1))
    y = (np.arange(ROWS) >= right).astype(int)
    assert verdict("predictions", proba=proba, y=y)["reliable"] == expected


def test_few_rows_are_no_evidence_against():
    """8 of 10 where 9 should be: the p-value is 0.26, and 0.003 of ten times as many."""
    pit = np.array([0.5] * 8 + [0.01] * 2)
    assert verdict("predictions", pit=pit)["reliable"] == "yes"
    assert verdict("predictions", pit=np.repeat(pit, 10))["reliable"] == "no"


@pytest.mark.parametrize(("share", "expected"), [(0.8, "yes"), (0.3, "no")])
def test_relatedness_is_reliable_where_it_predicts(share, expected):
    found = verdict("relatedness", weights=[share, 1 - share])
    assert found["reliable"] == expected and f"{share:.0%}" in found["because"]


@pytest.mark.parametrize(
    ("wrong", "expected", "good"), [(0, "yes", 10), (1, "yes", 9), (5, "in part", 5), (10, "no", 0)]
)
def test_coefficients_are_reliable_where_importance_ratios_are_even(wrong, expected, good):
    """In 20 dimensions, draws half as wide as their target have large weights in the tails."""
    z = np.array([2.0] * wrong + [1.0] * (10 - wrong))
    found = verdict("coefficients", z=z)
    assert found["reliable"] == expected and f"{good} of 10 tasks" in found["because"]
