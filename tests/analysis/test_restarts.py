"""Differences between restarts, against numbers computed by hand."""

import numpy as np
import pytest
import xarray as xr
from conjugate_trees import problem, tree

from pyro_vmtl.analysis import restart_spread


@pytest.fixture
def fits():
    """Three restarts, of which the last has moved by three widths, and is 9 nats worse."""
    made = {}
    for i, (off, loss) in enumerate([(0.0, 100.0), (0.01, 100.5), (0.3, 109.0)]):
        data = tree(problem(), num_samples=400)
        w = data["posterior"]["w"]
        scale = w.std(("chain", "draw"))
        weights = np.full((1, 400, 2, 3), 0.5 + 0.1 * i)
        dims = ("chain", "draw", "task", "source")
        data["posterior"] = xr.DataTree(
            xr.Dataset({"w": w + 10 * off * scale, "w_sources": (dims, weights)})
        )
        losses = np.concatenate([np.full(100, 900.0), loss + np.tile([-3.0, 3.0], 25)])
        data["history"] = xr.DataTree(xr.Dataset({"loss": ("step", losses)}))
        made[f"seed {i}"] = data
    return made


def test_the_spread_between_restarts_is_in_widths_of_the_posterior(fits):
    spread = restart_spread(fits)
    np.testing.assert_allclose(spread["elbo"], [-100.0, -100.5, -109.0])
    np.testing.assert_allclose(spread["distance"], [0.0, 0.1, 3.0], rtol=1e-9)
    np.testing.assert_allclose(spread["spread_w"], np.std([0, 0.1, 3], ddof=1), rtol=1e-9)
    assert spread["spread_w"].dims == ("task",)
    np.testing.assert_allclose(spread["spread_w_sources"], 0.1)
    assert spread["spread_w_sources"].dims == ("task", "source")
    with pytest.raises(ValueError, match="at least two restarts"):
        restart_spread({"one": fits["seed 0"]})
    with pytest.raises(ValueError, match=r"no variable 'v' in a group 'posterior', found .*'w'"):
        restart_spread(fits, "v")
