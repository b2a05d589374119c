"""What is borrowed: shares of posterior means, comparable between methods."""

from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch.distributions import Independent, Normal

from pyro_vmtl import (
    GaussianSumPool,
    LinearPool,
    LogarithmicPool,
    MeanFieldELBO,
    Programs,
    TaskData,
    add_task,
    share,
)
from pyro_vmtl.methods.borrowing import Borrowing
from pyro_vmtl.methods.presets import ALONE, HIERARCHICAL, POOLED, SHARED


def quick(preset, **changes):
    fitting = {**preset.fitting, "num_steps": 300}
    return replace(preset, fitting=fitting, kl_weights={}, **changes)


def lines(slopes, sizes, noise=0.5):
    generator = torch.Generator().manual_seed(0)
    tasks = [t for t, size in enumerate(sizes) for _ in range(size)]
    X = torch.randn(len(tasks), 1, generator=generator)
    y = X[:, 0] * torch.tensor(slopes)[tasks]
    return TaskData.regression(X, y + noise * torch.randn(len(tasks), generator=generator), tasks)


@pytest.fixture
def data():
    return lines([1.0, 1.1, 0.9, 1.0], [30, 20, 10, 20])


def set_prior_scale(fitted, scale):
    """Set the prior's scale of a hierarchical fit, and its posterior to the exact one."""
    with torch.no_grad():
        for name, value in fitted.model.named_parameters():
            if name.endswith("raw_scale") and "mean" not in name:
                value.fill_(torch.tensor(scale).log())


def hierarchical_shares(data, scale):
    """Shares where each posterior is the exact one given a prior N(m, scale²), m nearly known."""
    fitted = quick(HIERARCHICAL).fit(data)
    set_prior_scale(fitted, scale)
    guide = next(m for m in fitted.guide.modules() if hasattr(m, "locs"))
    with torch.no_grad():
        precision = (data.x[..., 0] ** 2).sum(1) / 0.25 + 1 / scale**2
        guide.raw_scales["w"].copy_(precision.rsqrt().log()[:, None, None])
        guide.raw_common_scales["w"].zero_()
        guide.raw_scales["w_mean"].fill_(-9.0)
    borrowing = Borrowing.of_programs(fitted.model, fitted.guide, data, data.rows_per_task)
    ratio = 1 / scale**2 / precision
    return borrowing, ratio


@pytest.mark.parametrize("scale", [1e-4, 0.2, 1e4])
def test_hierarchical_shares_are_those_of_the_normal_posterior(data, scale):
    """By hand: the prior's part of the mean, a quarter of it from each of four tasks."""
    borrowing, ratio = hierarchical_shares(data, scale)
    expected = (ratio / 4)[:, None] * (1 - torch.eye(4))
    # w_mean's own prior counts for exp(-18) of it
    found = borrowing.draw(None, num_samples=1)[0, :, :-1]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_hierarchical_is_between_alone_and_pooled(data):
    near, _ = hierarchical_shares(data, 1e-4)
    far, _ = hierarchical_shares(data, 1e4)
    alone, pooled = (quick(preset).fit(data).member.borrowing for preset in (ALONE, POOLED))
    near, far, alone, pooled = (b.draw(None, num_samples=1)[0] for b in (near, far, alone, pooled))
    assert (alone[:, :-1] == 0).all() and far[:, :-1].max() < 1e-6
    # pooled in proportion to rows, hierarchical evenly; both borrow all but their own part
    of_rows = data.rows_per_task / data.rows_per_task.sum()
    expected = of_rows.expand(4, 4) * (1 - torch.eye(4))
    torch.testing.assert_close(pooled[:, :-1], expected, rtol=0, atol=0.01)
    borrowed = near[:, :-1].sum(1)
    assert borrowed.min() > 0.74 and borrowed.max() < 0.7501


def normals(loc, scale):
    return dist.Normal(loc, scale).to_event(1)


@pytest.mark.parametrize("kind", [LinearPool, LogarithmicPool, GaussianSumPool])
def test_shares_of_pools_are_derivatives_of_the_pull_on_a_task(kind):
    """Against autograd: how the gradient at a task's mean moves with the mean of a source.

    The responsibilities of a mixture move, too; that is left out of its shares.
    """
    torch.manual_seed(0)
    num_tasks, size = 4, 3
    loc = torch.randn(num_tasks, 1, size, dtype=torch.float64, requires_grad=True)
    scale = torch.rand(num_tasks, 1, size, dtype=torch.float64) + 0.2
    weights = torch.rand(num_tasks, num_tasks + 1, dtype=torch.float64)
    weights[:, :-1].fill_diagonal_(0.0)
    weights = weights / weights.sum(1, keepdim=True)
    base = normals(torch.zeros(size, dtype=torch.float64), torch.ones(size, dtype=torch.float64))
    posterior = normals(loc.detach(), scale)
    pool = kind(weights, normals(loc, scale), base, 0.3)
    found = pool.shares(posterior)
    at = loc.detach().clone().requires_grad_(True)
    if kind is LinearPool:
        variance = scale[:, 0] ** 2 + 0.3
        each = Independent(Normal(loc.detach()[:, 0], variance.sqrt()), 1)
        log_probs = each.log_prob(at.detach().expand(num_tasks, num_tasks, size))
        responsibility = (log_probs - pool.log_prob(at)).exp().detach()
        ratio = (scale[:, :1] ** 2 / variance).mean(-1).reshape(num_tasks, num_tasks)
        expected = weights[:, :-1] * responsibility * ratio
    else:
        (pull,) = torch.autograd.grad(pool.log_prob(at).sum(), at, create_graph=True)
        expected = torch.zeros(num_tasks, num_tasks, dtype=torch.float64)
        for t in range(num_tasks):
            for j in range(size):
                (moves,) = torch.autograd.grad(pull[t, 0, j], loc, retain_graph=True)
                expected[t] += moves[:, 0, j] * scale[t, 0, j] ** 2 / size
    torch.testing.assert_close(found, expected.detach())


def test_shares_of_a_shared_fit_are_weights_by_variances(data):
    fitted = quick(SHARED).fit(data)
    member = fitted.member
    drawn = member.borrowing.draw(member.guide, num_samples=4)
    torch.testing.assert_close(drawn.sum(-1), torch.ones(4, 4))
    per_weight = member.borrowing.shares_per_weight["w"]
    # a source is at least as wide as its posterior: nobody borrows more than by its variance
    guide = next(m for m in fitted.guide.modules() if hasattr(m, "locs"))
    var = guide.posterior("w").variance.detach().flatten(1)
    assert (per_weight <= (var[:, None] / var).mean(-1) + 1e-6).all()


def test_mean_shares_of_few_tasks_hardly_depend_on_draws(data):
    """Ten seeds differ by the error of 20,000 draws, in units of their standard deviation."""
    member = quick(SHARED).fit(data).member
    means = [member.borrowing.mean(member.guide, seed=seed) for seed in range(10)]
    error = member.borrowing.draw(member.guide, num_samples=20_000).std(0) / 20_000**0.5
    spread = torch.stack(means).std(0)
    assert (spread > 0).any()
    # a standard deviation of ten is below twice the truth but for 1 in 10,000
    assert (spread <= 2 * error + 1e-6).all()


def test_precise_tasks_borrow_less():
    """The more rows of its own, the smaller the share of others."""
    data = lines([1.0] * 4, [5, 20, 80, 320])
    for preset in (SHARED, HIERARCHICAL):
        shares = quick(preset).fit(data).relatedness(num_samples=300).mean(0)
        borrowed = shares[:, :-1].sum(1)
        assert (borrowed[:-1] > borrowed[1:]).all()


@pytest.mark.parametrize("dim", [-1, -3])
def test_programs_with_any_plates_have_shares(dim):
    """A plate in the last place, and one more inside: neither may end a fit with an error."""

    def model(data):
        with pyro.plate("task", data.num_tasks, dim=dim):
            rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))  # not a real site: left out
            if dim == -1:
                mean = pyro.sample("mean", dist.Normal(torch.zeros(()), 1.0))
            else:
                with pyro.plate("group", 2, dim=-2):
                    mean = pyro.sample("mean", dist.Normal(torch.zeros(()), 1.0)).sum(-2)
        mean, rate = (v.reshape(data.num_tasks, 1) for v in (mean, rate))
        rows = pyro.plate("rows", data.num_tasks, dim=-2)
        with rows, pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
            pyro.sample("y", dist.Normal(mean, rate), obs=data.y)

    def programs(data):
        return share(model, AutoNormal(model), sites=["mean"])

    data = TaskData.regression([[0.0]] * 6, [1.0, 1.2, 0.9, 1.0, -4.0, -4.2], list("aabbcc"))
    fitted = Programs(programs, {"num_steps": 100, "elbo": MeanFieldELBO(max_plate_nesting=3)}).fit(
        data
    )
    shares = fitted.relatedness(num_samples=50)
    torch.testing.assert_close(shares.sum(-1), torch.ones(50, 3))
    assert 0.01 < shares[:, :, :-1].sum(-1).mean() < 1


def test_a_task_that_is_added_to_a_single_pooled_one_borrows_all_from_it():
    one = lines([1.0], [40])
    new = replace(lines([1.0], [5]), task_labels=("new",))
    shares = add_task(quick(POOLED).fit(one), new).relatedness(num_samples=1)[0]
    assert shares[0, 1] == 0 and shares[1, 0] > 0.95
