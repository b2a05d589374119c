"""The pools against naive double loops, Monte Carlo, and their limiting cases."""

import pyro.distributions as dist
import pytest
import torch
from problems import F64, normal_kl, normal_log_density, random_normal, random_weights
from torch.distributions import kl_divergence

from pyro_vmtl import ExpectedLogarithmicPool, GaussianSumPool, LinearPool, LogarithmicPool

POOLS = [LinearPool, LogarithmicPool, ExpectedLogarithmicPool, GaussianSumPool]
CLOSED = POOLS[1:]
T, EVENT = 4, (2, 3)


def make(pool, *, rest=(1,), weights=None, transfer=True, sources=None, seed=0):
    """A pool over T tasks with random numbers; arguments replace parts of it."""
    if weights is None:
        weights = random_weights(T, seed=seed)
    if sources is None:
        sources = random_normal(T, *rest, *EVENT, event_dim=2, seed=seed + 1)
    base = random_normal(*EVENT, event_dim=2, seed=seed + 2)
    generator = torch.Generator().manual_seed(seed)
    transfer_var = torch.rand(T, 1, 1, 1, generator=generator, dtype=F64) if transfer else 0.0
    return pool(weights, sources, base, transfer_var)


def flat_components(pool):
    """Means, variances and transfer variances of sources and base, each (T + 1, R, P)."""
    loc = pool.sources.mean.reshape(T, -1, 6)
    var = pool.sources.variance.reshape(T, -1, 6)
    transfer = torch.as_tensor(pool.transfer_var, dtype=F64).expand_as(pool.sources.mean)
    base_loc = pool.base.mean.reshape(1, 1, 6).expand(1, loc.shape[1], 6)
    base_var = pool.base.variance.reshape(1, 1, 6).expand(1, loc.shape[1], 6)
    return (
        torch.cat([loc, base_loc]),
        torch.cat([var, base_var]),
        torch.cat([transfer.reshape(T, -1, 6), torch.zeros_like(base_var)]),
    )


def naive_log_prob(pool, value):
    """A double loop over tasks and components, straight from the formulas."""
    loc, var, transfer = flat_components(pool)
    value = value.reshape(T, -1, 6)
    cells = value.shape[1]
    out = torch.zeros(T, cells, dtype=F64)
    for t in range(T):
        for r in range(cells):
            a = pool.weights[t]
            if isinstance(pool, GaussianSumPool):
                mean = sum(a[i] * loc[i, r] for i in range(T + 1))
                variance = sum(a[i] ** 2 * var[i, r] + a[i] * transfer[i, r] for i in range(T + 1))
                out[t, r] = normal_log_density(value[t, r], mean, variance)
                continue
            logs = [
                normal_log_density(value[t, r], loc[i, r], var[i, r] + transfer[i, r])
                for i in range(T + 1)
            ]
            if isinstance(pool, LinearPool):
                out[t, r] = sum(a[i] * logs[i].exp() for i in range(T + 1)).log()
            else:
                out[t, r] = sum(a[i] * (logs[i] - width(pool, i, r)) for i in range(T + 1))
    return out


def width(pool, i, r=0):
    """What the expectation over source i takes from its log density: half its share of variance."""
    _, var, transfer = flat_components(pool)
    if i == T or not isinstance(pool, ExpectedLogarithmicPool):
        return 0.0
    return 0.5 * (var[i, r] / (var[i, r] + transfer[i, r])).sum()


def posterior_of(pool, seed=9):
    return random_normal(*pool.batch_shape, *EVENT, event_dim=2, seed=seed)


@pytest.mark.parametrize("rest", [(1,), (), (3,)])
@pytest.mark.parametrize("pool_class", POOLS)
def test_log_prob_is_that_of_the_double_loop(pool_class, rest):
    transfer = len(rest) == 1
    pool = make(pool_class, rest=rest, transfer=transfer)
    value = posterior_of(pool).sample()
    expected = naive_log_prob(pool, value)
    # float64 sums of 30 terms of size about 100: 1e-10 leaves three digits
    torch.testing.assert_close(
        pool.log_prob(value), expected.reshape(T, *rest), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("pool_class", CLOSED)
def test_kl_is_that_of_the_double_loop(pool_class):
    pool = make(pool_class)
    posterior = posterior_of(pool)
    loc, var, transfer = (m[:, 0] for m in flat_components(pool))
    q_loc, q_var = posterior.mean.reshape(T, 6), posterior.variance.reshape(T, 6)
    expected = torch.zeros(T, dtype=F64)
    for t in range(T):
        a = pool.weights[t]
        if pool_class is GaussianSumPool:
            mean = (a[:, None] * loc).sum(0)
            variance = (a[:, None] ** 2 * var + a[:, None] * transfer).sum(0)
            expected[t] = normal_kl(q_loc[t], q_var[t], mean, variance)
        else:
            for i in range(T + 1):
                kl = normal_kl(q_loc[t], q_var[t], loc[i], var[i] + transfer[i])
                expected[t] += a[i] * (kl + width(pool, i))
    kl = kl_divergence(posterior, pool)
    torch.testing.assert_close(kl, expected[:, None], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("pool_class", CLOSED)
def test_kl_agrees_with_monte_carlo(pool_class):
    torch.manual_seed(0)
    pool = make(pool_class)
    posterior = posterior_of(pool)
    num = 4000
    draws = posterior.sample([num])
    log_ratio = posterior.log_prob(draws) - torch.stack([pool.log_prob(w) for w in draws])
    error = log_ratio.std(0) / num**0.5
    gap = (log_ratio.mean(0) - kl_divergence(posterior, pool)).abs()
    assert (gap < 4 * error).all()  # 4 standard errors: 1 in 4,000 by chance, with T values


def test_logarithmic_kl_is_an_upper_bound_of_the_linear_kl():
    torch.manual_seed(0)
    for seed in range(5):
        linear = make(LinearPool, seed=seed)
        logarithmic = make(LogarithmicPool, seed=seed)
        posterior = posterior_of(linear, seed=seed)
        draws = posterior.sample([2000])
        log_ratio = posterior.log_prob(draws) - torch.stack([linear.log_prob(w) for w in draws])
        error = log_ratio.std(0) / 2000**0.5
        assert (kl_divergence(posterior, logarithmic) >= log_ratio.mean(0) - 4 * error).all()
        # Draw by draw the log density of the geometric mean is below that of the mixture.
        assert (logarithmic.log_prob(draws[0]) <= linear.log_prob(draws[0]) + 1e-12).all()


@pytest.mark.parametrize("pool_class", POOLS)
@pytest.mark.parametrize("chosen", [0, 2, T])
def test_one_hot_weights_give_that_source(pool_class, chosen):
    weights = torch.zeros(T, T + 1, dtype=F64)
    weights[:, chosen] = 1.0
    pool = make(pool_class, weights=weights)
    value = posterior_of(pool).sample()
    loc, var, transfer = (m[chosen, 0] for m in flat_components(pool))
    expected = normal_log_density(value.reshape(T, 6), loc, var + transfer) - width(pool, chosen)
    torch.testing.assert_close(pool.log_prob(value), expected[:, None], rtol=1e-10, atol=1e-10)


def test_the_variance_that_fits_best_is_the_mean_square_of_the_differences():
    loc = torch.tensor([[0.0, 0.5, 1.0], [2.0, 2.5, 2.0]], dtype=F64)
    posterior = dist.Normal(loc, 0.6).to_event(1)
    base = dist.Normal(torch.zeros(3, dtype=F64), 1.0).to_event(1)
    weights = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], dtype=F64)
    raw = torch.zeros(1, 3, dtype=F64, requires_grad=True)
    optimizer = torch.optim.LBFGS([raw], line_search_fn="strong_wolfe", max_iter=100)

    def closure():
        optimizer.zero_grad()
        pool = ExpectedLogarithmicPool(weights, posterior, base, raw.exp())
        kl = kl_divergence(posterior, pool).sum()
        kl.backward()
        return kl

    optimizer.step(closure)
    differences = (loc[0] - loc[1]) ** 2 + 2 * 0.6**2
    torch.testing.assert_close(0.6**2 + raw.exp()[0], differences, rtol=1e-5, atol=0)


@pytest.mark.parametrize("pool_class", POOLS)
def test_log_densities_are_linear_in_the_weights_where_they_say_so(pool_class):
    first, second = (make(pool_class, weights=random_weights(T, seed=s)) for s in (1, 2))
    value = posterior_of(first).sample()
    between = make(pool_class, weights=(first.weights + second.weights) / 2).log_prob(value)
    mean = (first.log_prob(value) + second.log_prob(value)) / 2
    assert torch.allclose(between, mean) == pool_class.linear_in_weights


@pytest.mark.parametrize("pool_class", [LinearPool, LogarithmicPool])
def test_identical_sources_with_even_weights_give_that_source(pool_class):
    one = random_normal(1, 1, *EVENT, event_dim=2, seed=3)
    sources = dist.Normal(one.mean.expand(T, 1, *EVENT), one.stddev.expand(T, 1, *EVENT)).to_event(
        2
    )
    weights = torch.full((T, T + 1), 1 / (T - 1), dtype=F64)
    weights[:, :T].fill_diagonal_(0.0)
    weights[:, -1] = 0.0
    pool = make(pool_class, sources=sources, weights=weights, transfer=False)
    value = posterior_of(pool).sample()
    torch.testing.assert_close(
        pool.log_prob(value), sources.log_prob(value), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("pool_class", POOLS)
def test_permuting_tasks_permutes_everything(pool_class):
    pool = make(pool_class)
    order = torch.tensor([2, 0, 3, 1])
    permuted = pool_class(
        pool.weights[order][:, [*order.tolist(), T]],
        dist.Normal(pool.sources.mean[order], pool.sources.stddev[order]).to_event(2),
        pool.base,
        pool.transfer_var[order],
    )
    value = posterior_of(pool).sample()
    torch.testing.assert_close(
        permuted.log_prob(value[order]), pool.log_prob(value)[order], rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("pool_class", POOLS)
def test_particles_are_separate_pools(pool_class):
    weights = torch.stack([random_weights(T, seed=s) for s in range(5)])
    pool = make(pool_class, weights=weights)
    assert pool.batch_shape == (5, T, 1)
    values = posterior_of(pool).sample()
    for s in range(5):
        single = make(pool_class, weights=weights[s])
        torch.testing.assert_close(pool.log_prob(values)[s], single.log_prob(values[s]))
    expanded = make(pool_class).expand([5, T, 1])
    assert expanded.log_prob(values).shape == (5, T, 1)


@pytest.mark.parametrize("pool_class", POOLS)
def test_gradients_against_finite_differences(pool_class):
    pool = make(pool_class)
    value = posterior_of(pool).sample()
    posterior = posterior_of(pool)

    def results(raw, loc, scale, transfer, base_loc, base_scale):
        masked = raw.masked_fill(pool.weights == 0, -torch.inf)
        other = pool_class(
            masked.softmax(-1),
            dist.Normal(loc, scale).to_event(2),
            dist.Normal(base_loc, base_scale).to_event(2),
            transfer,
        )
        if pool_class is LinearPool:
            return other.log_prob(value)
        return other.log_prob(value), kl_divergence(posterior, other)

    inputs = [
        pool.weights.clamp_min(1e-3).log(),
        pool.sources.mean,
        pool.sources.stddev,
        pool.transfer_var,
        pool.base.mean,
        pool.base.stddev,
    ]
    # gradcheck's own tolerances for float64: step 1e-6, absolute 1e-5, relative 1e-3
    assert torch.autograd.gradcheck(results, [i.clone().requires_grad_() for i in inputs])


@pytest.mark.parametrize("cell", [0, 1])
@pytest.mark.parametrize("pool_class", POOLS)
def test_samples_have_the_pool_s_moments(pool_class, cell):
    torch.manual_seed(0)
    pool = make(pool_class, rest=(2,), transfer=False)
    num = 20_000
    draws = pool.sample([num])
    assert draws.shape == (num, T, 2, *EVENT)
    draws = draws[:, :, cell].reshape(num, T, 6)
    a = pool.weights
    loc, var, transfer = (m[:, cell] for m in flat_components(pool))
    if issubclass(pool_class, LogarithmicPool):
        precision = a @ (1 / (var + transfer))
        mean, variance = (a @ (loc / (var + transfer))) / precision, 1 / precision
    elif pool_class is GaussianSumPool:
        mean, variance = a @ loc, a**2 @ var + a @ transfer
    else:
        mean = a @ loc
        variance = a @ (var + transfer + loc**2) - mean**2
    assert ((draws.mean(0) - mean).abs() < 5 * (variance / num).sqrt()).all()
    # a sample variance has a relative error of about sqrt(2 / num) = 1 %, mixtures a little more
    torch.testing.assert_close(draws.var(0), variance, rtol=0.06, atol=0)


@pytest.mark.parametrize("pool_class", [LinearPool, LogarithmicPool])
def test_float32_keeps_its_digits_when_groups_lie_far_apart(pool_class):
    generator = torch.Generator().manual_seed(0)
    group = 5 * torch.randn(2, 1, 1, 300, generator=generator)
    loc = group[[0, 0, 1, 1]].reshape(T, 1, 300)
    scale = torch.full_like(loc, 1e-3)
    weights = torch.zeros(T, T + 1)
    weights[[0, 1, 2, 3], [1, 0, 3, 2]] = 1.0  # each task borrows from its twin
    base = dist.Normal(torch.zeros(300), 1.0).to_event(1)
    sources = dist.Normal(loc, scale).to_event(1)
    pool = pool_class(weights, sources, base)
    value = sources.sample()
    # the twins are equal: the density is a task's own, and the KL is 0; float32 sums of 300 terms
    # of size 10 are exact to 1e-2
    torch.testing.assert_close(pool.log_prob(value), sources.log_prob(value), rtol=0, atol=0.02)
    if pool_class is LogarithmicPool:
        assert kl_divergence(sources, pool).abs().max() < 0.02


@pytest.mark.parametrize("pool_class", POOLS)
def test_a_random_base_is_each_particle_s_own(pool_class):
    weights = torch.stack([random_weights(T, seed=s) for s in range(3)])
    sources = random_normal(T, 1, *EVENT, event_dim=2, seed=1)
    base = random_normal(3, 1, 1, *EVENT, event_dim=2, seed=2)
    pool = pool_class(weights, sources, base)
    value = posterior_of(pool).sample()
    posterior = posterior_of(pool)
    for s in range(3):
        own = dist.Normal(base.mean[s], base.stddev[s]).to_event(2)
        single = pool_class(weights[s], sources, own)
        torch.testing.assert_close(pool.log_prob(value)[s], single.log_prob(value[s]))
        if pool_class is not LinearPool:
            one = dist.Normal(posterior.mean[s], posterior.stddev[s]).to_event(2)
            torch.testing.assert_close(
                kl_divergence(posterior, pool)[s], kl_divergence(one, single)
            )
