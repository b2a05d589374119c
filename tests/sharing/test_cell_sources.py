"""Pools of a cell's own sources against a loop over cells."""

import pytest
import torch
from problems import F64, normal_kl, normal_log_density, random_normal, random_weights

from pyro_vmtl import GaussianSumPool, LinearPool, LogarithmicPool
from pyro_vmtl.sharing.components import LEAST_WEIGHT

T, N, D = 4, 3, 2
POOLS = [LinearPool, LogarithmicPool, GaussianSumPool]


@pytest.fixture
def parts():
    """Weights, sources, base, transfer variances and presence, some of it missing."""
    present = torch.ones(T, N, T - 1, dtype=torch.bool)
    present[0, 1, 2] = False  # one source
    present[2, 0] = False  # all sources of a cell
    return (
        random_weights(T),
        random_normal(T, N, T - 1, D, event_dim=1, seed=1),
        random_normal(D, event_dim=1, seed=2),
        torch.rand(T, 1, 1, generator=torch.Generator().manual_seed(3), dtype=F64),
        present,
    )


def cell(parts, t, n):
    """Weights (K + 1), means and variances (K + 1, D) of what there is, the base last."""
    weights, sources, base, transfer_var, present = parts
    others = [i for i in range(T) if i != t]
    k = [k for k in range(T - 1) if present[t, n, k]]
    a = torch.stack([*(weights[t, others[j]] for j in k), weights[t, T]])
    loc = torch.stack([*(sources.mean[t, n, j] for j in k), base.mean])
    var = torch.stack([*(sources.variance[t, n, j] for j in k), base.variance])
    transfer = torch.stack([*(transfer_var[others[j], 0] for j in k), torch.zeros(1, dtype=F64)])
    if len(k) < T - 1:  # what is added where some are missing
        a = a + torch.tensor([LEAST_WEIGHT] * len(k) + [0.0 if k else 1.0], dtype=F64)
    return a / a.sum(), loc, var, transfer


def cells():
    return [(t, n) for t in range(T) for n in range(N)]


@pytest.mark.parametrize("pool_class", POOLS)
def test_log_density_in_every_cell(parts, pool_class):
    pool = pool_class(*parts)
    assert pool.batch_shape == (T, N) and pool.event_shape == (D,)
    value = torch.randn(5, T, N, D, generator=torch.Generator().manual_seed(4), dtype=F64)
    log_prob = pool.log_prob(value)
    for t, n in cells():
        a, loc, var, transfer = cell(parts, t, n)
        z = value[:, t, n]
        each = torch.stack(
            [normal_log_density(z, m, v + s) for m, v, s in zip(loc, var, transfer, strict=True)]
        )
        expected = {
            LinearPool: (each.exp() * a[:, None]).sum(0).log(),
            LogarithmicPool: (each * a[:, None]).sum(0),
            GaussianSumPool: normal_log_density(
                z, a @ loc, a**2 @ var + (a[:, None] * transfer).sum(0)
            ),
        }[pool_class]
        torch.testing.assert_close(log_prob[:, t, n], expected)


@pytest.mark.parametrize("pool_class", [LogarithmicPool, GaussianSumPool])
def test_closed_form_kl_in_every_cell(parts, pool_class):
    pool = pool_class(*parts)
    posterior = random_normal(T, N, D, event_dim=1, seed=5)
    kl = torch.distributions.kl_divergence(posterior, pool)
    assert kl.shape == (T, N)
    for t, n in cells():
        a, loc, var, transfer = cell(parts, t, n)
        q = posterior.mean[t, n], posterior.variance[t, n]
        if pool_class is LogarithmicPool:
            expected = a @ normal_kl(*q, loc, var + transfer)
        else:
            expected = normal_kl(*q, a @ loc, a**2 @ var + (a[:, None] * transfer).sum(0))
        torch.testing.assert_close(kl[t, n], expected)


@pytest.mark.parametrize("pool_class", POOLS)
def test_draws_have_the_density_s_moments(parts, pool_class):
    torch.manual_seed(0)
    num = 20_000
    draws = pool_class(*parts).sample((num,))
    assert draws.shape == (num, T, N, D)
    for t, n in cells():
        a, loc, var, transfer = cell(parts, t, n)
        if pool_class is LogarithmicPool:
            precision = (a[:, None] / (var + transfer)).sum(0)
            mean = (a[:, None] * loc / (var + transfer)).sum(0) / precision
            variance = 1 / precision
        elif pool_class is LinearPool:
            mean = a @ loc
            variance = a @ (var + transfer + loc**2) - mean**2
        else:
            mean, variance = a @ loc, a**2 @ var + (a[:, None] * transfer).sum(0)
        # 5 standard errors; the variance of a variance is at most about 3 var^2 / num here
        error = 5 * (variance / num).sqrt().max().item()
        torch.testing.assert_close(draws[:, t, n].mean(0), mean, rtol=0, atol=error)
        torch.testing.assert_close(
            draws[:, t, n].var(0), variance, rtol=5 * (3 / num) ** 0.5, atol=0
        )


@pytest.mark.parametrize("pool_class", POOLS)
def test_gradients_with_missing_sources_are_finite(parts, pool_class):
    weights, sources, base, transfer_var, present = parts
    weights.requires_grad_()
    pool = pool_class(weights, sources, base, transfer_var, present)
    pool.log_prob(torch.zeros(T, N, D, dtype=F64)).sum().backward()
    assert torch.isfinite(weights.grad).all()


@pytest.mark.parametrize("pool_class", POOLS)
def test_sources_with_no_weight_share_it_when_the_others_are_missing(parts, pool_class):
    weights, sources, base, transfer_var, present = parts
    weights = weights.clone()
    weights[:, T] = 0.0
    present = present.clone()
    present[0, 0] = torch.tensor([False, True, True])
    weights[0] = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])  # all of it on the one that is missing
    weights.requires_grad_()
    log_prob = pool_class(weights, sources, base, transfer_var, present).log_prob(
        torch.zeros(T, N, D, dtype=F64)
    )
    even = weights.detach().clone()
    even[0] = torch.tensor([0.0, 0.0, 0.5, 0.5, 0.0])
    expected = pool_class(even, sources, base, transfer_var, present).log_prob(
        torch.zeros(T, N, D, dtype=F64)
    )
    torch.testing.assert_close(log_prob[0, 0], expected[0, 0], rtol=1e-5, atol=0)
    log_prob.sum().backward()
    assert torch.isfinite(weights.grad).all()


@pytest.mark.parametrize("pool_class", [LogarithmicPool, GaussianSumPool])
def test_the_kl_of_expanded_particles_is_that_of_each(parts, pool_class):
    posterior = random_normal(T, N, D, event_dim=1, seed=5)
    one = torch.distributions.kl_divergence(posterior, pool_class(*parts))
    many = torch.distributions.kl_divergence(
        posterior.expand((7, T, N)), pool_class(*parts).expand((7, T, N))
    )
    assert many.shape == (7, T, N)
    torch.testing.assert_close(many, one.expand(7, T, N))
    weights = torch.stack([random_weights(T, seed=s) for s in range(7)])
    differ = torch.distributions.kl_divergence(
        posterior.expand((7, T, N)), pool_class(weights, *parts[1:])
    )
    for s in range(7):
        alone = torch.distributions.kl_divergence(posterior, pool_class(weights[s], *parts[1:]))
        torch.testing.assert_close(differ[s], alone)


@pytest.mark.parametrize("pool_class", POOLS)
def test_an_expanded_pool_has_draws_and_densities_of_its_own(parts, pool_class):
    torch.manual_seed(0)
    pool = pool_class(*parts).expand((5, T, N))
    draws = pool.sample((6,))
    assert draws.shape == (6, 5, T, N, D) and len(draws.unique()) == draws.numel()
    assert pool.log_prob(draws).shape == (6, 5, T, N)
    assert pool.log_prob(draws[0, :1]).shape == (5, T, N)
    torch.testing.assert_close(pool.log_prob(draws)[2, 3], pool_class(*parts).log_prob(draws[2, 3]))
