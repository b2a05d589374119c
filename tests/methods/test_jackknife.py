"""Draws by the jackknife, beside Student's t and known proportions."""

import pytest
import torch
from scipy import stats

from pyro_vmtl.methods.jackknife import jackknife_draws


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_draws_have_the_jackknife_variance_and_a_t_distribution():
    without = torch.tensor([0.42, 0.43, 0.415, 0.45, 0.44], dtype=torch.float64)
    both = torch.stack([without, 1 - without], -1)
    drawn = jackknife_draws(both, num_draws=40_000, generator=seeded())[:, 0]
    scale = (0.8 * (without - without.mean()).square().sum()).sqrt()  # (K - 1) / K
    found = (drawn - without.mean()) / scale
    found = found[found.abs() < 10]  # beyond, proportions end: 0.0006 of all
    assert stats.kstest(found.numpy(), stats.t(df=4).cdf).pvalue > 0.01


def test_intervals_hold_proportions_as_often_as_they_say():
    """Three kinds of rows, 300 of them in five groups, 600 times."""
    truth, generator = torch.tensor([0.1, 0.3, 0.6]), seeded(1)
    held = []
    for _ in range(600):
        kind = torch.multinomial(truth, 300, replacement=True, generator=generator)
        count = torch.nn.functional.one_hot(kind, 3).float().unflatten(0, (5, 60)).sum(1)
        without = (count.sum(0) - count) / 240
        drawn = jackknife_draws(without, num_draws=400, generator=generator)
        low, high = drawn.quantile(torch.tensor([0.05, 0.95]), 0)
        held.append((low <= truth) & (truth <= high))
    # three standard errors of 600 tries, and one percent for quantiles of 400 draws
    assert torch.stack(held).float().mean(0).numpy() == pytest.approx(0.9, abs=0.047)


def test_draws_are_on_the_simplex_and_zeros_stay():
    without = torch.rand(4, 2, 3, generator=seeded()) * torch.tensor([1.0, 0.0, 1.0])
    without = without / without.sum(-1, keepdim=True)
    drawn = jackknife_draws(without, num_draws=50, generator=seeded())
    assert (drawn[..., 1] == 0).all() and (drawn >= 0).all()
    torch.testing.assert_close(drawn.sum(-1), torch.ones(50, 2))


def test_one_group_says_nothing_of_the_spread():
    without = torch.tensor([[[0.25, 0.75]]])
    drawn = jackknife_draws(without, num_draws=3, generator=seeded())
    assert torch.equal(drawn, without.expand(3, 1, 2))
