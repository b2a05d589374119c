"""The page about pools: its plain code against the classes."""

import re
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from problems import F64, random_normal, random_weights
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from torch.distributions import kl_divergence

from pyro_vmtl import (
    ExpectedLogarithmicPool,
    GaussianSumPool,
    LinearPool,
    LogarithmicPool,
    Pool,
    TaskData,
    fit,
    predict_moments,
    share,
)

PAGE = Path(__file__).parents[2] / "docs" / "pools.md"
T, P = 4, 3


@pytest.fixture(scope="module")
def page():
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
    return names


@pytest.fixture(scope="module")
def parts():
    """Weights, sources, base and transfer variances of T tasks at a site of P numbers."""
    generator = torch.Generator().manual_seed(5)
    return (
        random_weights(T, seed=1),
        random_normal(T, 1, P, event_dim=1, seed=2),
        random_normal(P, event_dim=1, seed=3),
        torch.rand(T, 1, P, generator=generator, dtype=F64),
    )


def of_task(t, weights, sources, base, transfer_var):
    """What the page calls a, loc, sd and s, of one task: its sources in order, and the base."""
    others = [i for i in range(T) if i != t]
    return (
        torch.cat([weights[t, others], weights[t, -1:]]),
        torch.cat([sources.mean[others, 0], base.mean[None]]),
        torch.cat([sources.stddev[others, 0], base.stddev[None]]),
        torch.cat([transfer_var[others, 0].sqrt(), torch.zeros(1, P, dtype=F64)]),
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (LinearPool, "linear_pool"),
        (LogarithmicPool, "logarithmic_pool"),
        (ExpectedLogarithmicPool, "expected_logarithmic_pool"),
        (GaussianSumPool, "gaussian_sum_pool"),
    ],
)
def test_log_densities(page, parts, kind, name):
    value = random_normal(T, 1, P, event_dim=1, seed=4).mean
    expected = [page[name](value[t, 0], *of_task(t, *parts)) for t in range(T)]
    torch.testing.assert_close(kind(*parts).log_prob(value)[:, 0], torch.stack(expected))


@pytest.mark.parametrize(
    ("kind", "name"), [(LogarithmicPool, "logarithmic_kl"), (GaussianSumPool, "gaussian_sum_kl")]
)
def test_closed_kls(page, parts, kind, name):
    posterior = random_normal(T, 1, P, event_dim=1, seed=6)
    expected = [
        page[name](posterior.mean[t, 0], posterior.stddev[t, 0], *of_task(t, *parts))
        for t in range(T)
    ]
    torch.testing.assert_close(kl_divergence(posterior, kind(*parts))[:, 0], torch.stack(expected))


def test_a_pool_of_ones_own_has_its_arguments_in_all_copies(page, parts):
    value = random_normal(T, 1, P, event_dim=1, seed=4).mean
    linear, tempered = LinearPool(*parts), page["TemperedPool"](*parts, power=0.5)
    root = parts[0].sqrt() / parts[0].sqrt().sum(1, keepdim=True)
    expected = linear.with_weights(root).log_prob(value)
    torch.testing.assert_close(tempered.log_prob(value), expected)
    assert not torch.allclose(tempered.log_prob(value), linear.log_prob(value))
    many = tempered.expand(torch.Size([5, T, 1]))
    torch.testing.assert_close(many.log_prob(value), expected.expand(5, T, 1))
    again = tempered.with_weights(root)
    assert again.power == 0.5 and not torch.allclose(again.log_prob(value), expected)
    with pytest.raises(NotImplementedError):
        kl_divergence(parts[1], tempered)
    with pytest.raises(NotImplementedError, match="TemperedPool has no `draw`"):
        tempered.sample()


def test_it_is_fitted_by_share(page):
    def model(data):
        with pyro.plate("task", data.num_tasks, dim=-2):
            w = pyro.sample("w", dist.Normal(torch.zeros(()), 1.0))
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
                pyro.sample("y", dist.Normal(w, 0.5), obs=data.y)

    data = TaskData.regression(
        torch.zeros(9, 1), [1.0, 1.2, 0.9] * 2 + [-3.0] * 3, list("aaabbbccc")
    )
    pair = share(model, AutoNormal(model), sites=["w"], pool=page["pool"])
    fit(*pair, data, num_steps=300)
    assert predict_moments(*pair, data)[0][0, 0] == pytest.approx(1.0, abs=0.3)
    with pytest.raises(ValueError, match="'categorical' with TemperedPool"):
        share(model, AutoNormal(model), sites=["w"], pool=page["pool"], weights="categorical")


def test_closed_kl_of_a_subclass_is_used(parts):
    class Constant(Pool):
        def log_density(self, value):
            return torch.zeros(self.batch_shape)

        def kl_from(self, posterior):
            return self.per_cell(self.to_rows(posterior.mean).sum(-1))

    posterior = random_normal(T, 1, P, event_dim=1, seed=6)
    torch.testing.assert_close(kl_divergence(posterior, Constant(*parts)), posterior.mean.sum(-1))
