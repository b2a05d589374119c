"""Simulation-based calibration of the regression members of the default, and of wrong ones."""

import pytest

from benchmarks.simulation_calibration import WRONG, Pipeline, Regressions, rows
from pyro_vmtl.analysis import rank_uniformity, simulate_ranks


@pytest.mark.slow
@pytest.mark.parametrize(("member", "num_groups"), [("mixed-model", 0), ("shared", 4)])
def test_coefficients_by_linear_response_are_calibrated_and_wrong_ones_found(member, num_groups):
    pipeline, data = Pipeline(member), rows(8, 40, 4)
    program, verdicts = Regressions(num_groups), {}
    for kind, (width, shift) in WRONG.items():
        guide = pipeline.distorted(width, shift)
        ranks = simulate_ranks(program, guide, data, sites=["w"], num_simulations=15)
        row = rank_uniformity(ranks, ci_prob=0.99).loc["w"]
        assert row["ranks"] == 15 * 8 * 4
        verdicts[kind] = row["verdict"]
    assert verdicts == {kind: kind for kind in WRONG}
