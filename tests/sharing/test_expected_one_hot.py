"""Source weights as probabilities: the expectation over a choice among the sources."""

import pytest
import torch
from problems import F64
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from pyro_vmtl import LogarithmicPool
from pyro_vmtl.handlers.schedules import Constant
from pyro_vmtl.sharing.expected_one_hot import ExpectedOneHot
from pyro_vmtl.sharing.sources import Sources

LOGITS = torch.tensor([[0.3, -1.0, 2.0], [0.0, 0.0, -4.0]], dtype=F64)


def test_its_kl_is_that_of_the_categorical_distribution():
    other = LOGITS.flip(0)
    found = kl_divergence(ExpectedOneHot(LOGITS), ExpectedOneHot(other))
    expected = kl_divergence(Categorical(logits=LOGITS), Categorical(logits=other))
    torch.testing.assert_close(found, expected)


def test_a_difference_of_log_densities_at_its_value_is_the_kl():
    one, other = ExpectedOneHot(LOGITS), ExpectedOneHot(torch.zeros_like(LOGITS))
    value = one.rsample()
    torch.testing.assert_close(
        one.log_prob(value) - other.log_prob(value), kl_divergence(one, other)
    )


def test_an_expanded_one_is_computed_once():
    one = ExpectedOneHot(LOGITS).expand([5, 2])
    other = ExpectedOneHot(torch.zeros_like(LOGITS)).expand([5, 2])
    value = one.rsample()
    assert value.shape == (5, 2, 3) and value.stride(0) == 0
    expected = kl_divergence(Categorical(logits=LOGITS), Categorical(logits=LOGITS * 0)).expand(
        5, 2
    )
    torch.testing.assert_close(kl_divergence(one, other), expected)
    torch.testing.assert_close(one.log_prob(value) - other.log_prob(value), expected)
    assert one.log_prob(value[:1]).shape == (5, 2)


def test_the_pool_at_the_probabilities_is_the_expected_kl_from_the_chosen_source():
    loc, scale = torch.randn(3, 2, dtype=F64), torch.rand(3, 2, dtype=F64) + 0.2
    posterior = Independent(Normal(loc, scale), 1)
    base = Independent(Normal(torch.zeros(2, dtype=F64), torch.ones(2, dtype=F64)), 1)
    weights = torch.tensor([[0.0, 0.5, 0.2, 0.3], [0.1, 0.0, 0.6, 0.3], [0.0, 0.9, 0.0, 0.1]])
    pool = LogarithmicPool(weights.to(F64), posterior, base)
    each = [kl_divergence(posterior, Independent(Normal(loc[i], scale[i]), 1)) for i in range(3)]
    each.append(kl_divergence(posterior, base))
    expected = (weights * torch.stack(each, 1)).sum(1)
    torch.testing.assert_close(kl_divergence(posterior, pool), expected)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_base_has_the_weight_of_one_in_the_effective_number_of_tasks(weight):
    sources = Sources(6, None, base=True, temperature=Constant(0.5), weights="categorical")
    with torch.no_grad():  # task 0 borrows from 1 and 2 alike, the others from all
        sources.logits[0, 2:] = -40.0
        sources.logits[0, -1] = weight * -40.0
    found = sources.location
    least = 1 / 3
    share_of_base = (1 - weight) / 3
    expected = (1 - least) * share_of_base + least
    torch.testing.assert_close(found[0, -1], torch.tensor(expected))
    torch.testing.assert_close(found[0, 1:3], torch.full((2,), (1 - expected) / 2))
    torch.testing.assert_close(found[1:, -1], torch.full((5,), 1 / 6 + 5 / 6 / 6))
