"""The bound on the spectral radius, and what it tells those weights that are scaled by it."""

import pytest
import torch

from pyro_vmtl.outputs.couplings import MAX_RADIUS, Couplings
from pyro_vmtl.outputs.iteration import spectral_radius


def two_outputs(scale):
    torch.manual_seed(0)
    couplings = Couplings((3, 2), (0.5, 0.5), {}, gates="on").double()
    with torch.no_grad():
        couplings.loc.copy_(scale * torch.randn(5, 5))
    return couplings


def drawn(couplings):
    torch.manual_seed(1)
    return couplings.draw({})


@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_weights_are_scaled_to_the_bound_where_they_exceed_it(scale):
    couplings = two_outputs(scale)
    weight, radius = drawn(couplings).weight.detach(), drawn(couplings).radius
    norms = [torch.linalg.svdvals(block)[0] / 2 for block in (weight[:3, 3:], weight[3:, :3])]
    gains = torch.tensor([[0.0, norms[0]], [norms[1], 0.0]], dtype=torch.float64)
    assert (radius > MAX_RADIUS) == (scale == 3)
    expected = min(float(radius), MAX_RADIUS)
    assert float(spectral_radius(gains)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_the_gradient_counts_what_a_weight_costs_the_others(scale):
    """By finite differences of drawn weights, also where all of them are scaled."""
    couplings = two_outputs(scale)
    direction = torch.randn(5, 5, dtype=torch.float64)
    (drawn(couplings).weight * direction).sum().backward()
    for place in ((0, 3), (1, 4), (3, 0), (4, 2)):
        found = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                couplings.loc[place] += step
                found.append(float((drawn(couplings).weight * direction).sum()))
                couplings.loc[place] -= step
        expected = (found[0] - found[1]) / 2e-5
        assert float(couplings.loc.grad[place]) == pytest.approx(expected, rel=1e-5, abs=1e-7)
