"""Draws by the jackknife, beside Student's t and known proportions."""

import pytest
import torch
from scipy import stats
from torch.nn import functional

from pyro_vmtl.methods.jackknife import jackknife_draws, rake


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(without, num_draws, generator, num_groups=None, estimate=None):
    estimate = without.mean(0) if estimate is None else estimate
    num_groups = num_groups or len(without)
    settings = {"num_groups": num_groups, "num_draws": num_draws, "generator": generator}
    return jackknife_draws(without, estimate, **settings)


def test_draws_have_the_jackknife_variance_and_a_t_distribution():
    without = torch.tensor([0.42, 0.43, 0.415, 0.45, 0.44], dtype=torch.float64)
    both = torch.stack([without, 1 - without], -1)
    estimate = torch.tensor([0.43, 0.57], dtype=torch.float64)
    drawn = draws(both, 40_000, seeded(), estimate=estimate)[:, 0]
    scale = (0.8 * (without - without.mean()).square().sum()).sqrt()  # (K - 1) / K
    found = (drawn - 0.43) / scale
    found = found[found.abs() < 15]  # beyond, proportions end: of t, 0.0001
    assert stats.kstest(found.numpy(), stats.t(df=4).cdf).pvalue > 0.01


@pytest.mark.parametrize("num_known", [5, 4, 3, 2])
def test_intervals_hold_proportions_as_often_as_they_say(num_known):
    """Three kinds of 300 rows in five groups, 600 times; without some of the groups, too."""
    truth, generator = torch.tensor([0.1, 0.3, 0.6]), seeded(1)
    held = []
    for _ in range(600):
        kind = torch.multinomial(truth, 300, replacement=True, generator=generator)
        count = functional.one_hot(kind, 3).float().unflatten(0, (5, 60)).sum(1)
        without, estimate = ((count.sum(0) - count) / 240)[:num_known], count.sum(0) / 300
        drawn = draws(without, 400, generator, num_groups=5, estimate=estimate)
        low, high = drawn.quantile(torch.tensor([0.05, 0.95]), 0)
        held.append((low <= truth) & (truth <= high))
    # three standard errors of 600 tries, and one percent for quantiles of 400 draws
    assert torch.stack(held).float().mean(0).numpy() == pytest.approx(0.9, abs=0.047)


def test_draws_are_on_the_simplex_and_zeros_stay():
    without = torch.rand(4, 2, 3, generator=seeded()) * torch.tensor([1.0, 0.0, 1.0])
    without = without / without.sum(-1, keepdim=True)
    drawn = draws(without, 50, seeded())
    assert (drawn[..., 1] == 0).all() and (drawn >= 0).all()
    torch.testing.assert_close(drawn.sum(-1), torch.ones(50, 2))


def test_one_group_says_nothing_of_the_spread():
    without = torch.tensor([[[0.25, 0.75]]])
    estimate = torch.tensor([[0.3, 0.7]])
    drawn = draws(without, 3, seeded(), num_groups=5, estimate=estimate)
    assert torch.equal(drawn, estimate.expand(3, 1, 2))


def test_raked_draws_have_a_given_mean_and_stay_on_the_simplex():
    """Small proportions about which draws below 0 were cut off."""
    mean = torch.tensor([[0.01, 0.02, 0.97], [0.3, 0.3, 0.4], [0.0, 0.1, 0.9]])
    noise = 0.05 * torch.randn(200, 3, 3, generator=seeded())
    drawn = (mean + noise - noise.mean(-1, keepdim=True)).clamp_min(0.0)
    drawn = drawn / drawn.sum(-1, keepdim=True)
    assert drawn.mean(0)[0, 2] < 0.96
    raked = rake(drawn, mean)
    torch.testing.assert_close(raked.mean(0), mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(raked.sum(-1), torch.ones(200, 3))
    # as many are above their mean by much: what was cut off is not put elsewhere
    assert raked[:, 1].std(0).numpy() == pytest.approx(drawn[:, 1].std(0).numpy(), rel=0.05)


def test_a_draw_that_is_raked_away_is_the_mean():
    drawn = torch.tensor([[1.0, 0.0], [0.2, 0.8]])
    raked = rake(drawn, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(raked, torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
