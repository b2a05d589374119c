"""Simulation-based calibration, with exact posteriors and with wrong ones on purpose."""

import matplotlib as mpl
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from pyro.infer.autoguide import AutoNormal
from scipy.stats import binom, norm

from pyro_vmtl import TaskData, fit, share, temper
from pyro_vmtl.analysis import az, rank_uniformity, simulate_ranks
from pyro_vmtl.analysis.calibration.ranks import uniform_limits
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.models import LinearClassifier, LinearRegressor, TaskNoise, ZeroMeanNormal

mpl.use("agg")

T, N = 150, 4
WRONG = {
    "calibrated": {},
    "too narrow": {"width": 0.6},
    "too wide": {"width": 1.6},
    "biased up": {"shift": 0.6},
    "biased down": {"shift": -0.6},
}


def normal_means(y):
    """T tasks with means N(0, 1) and N targets N(mean, 1) each."""
    with pyro.plate("task", len(y), dim=-2):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", y.shape[1], dim=-1):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def posterior(shift=0.0, width=1.0):
    """A pipeline with the exact posterior, or one that is off by some standard deviations."""

    def fit_guide(model, y):
        scale = (1 + y.shape[1]) ** -0.5

        def guide(y):
            with pyro.plate("task", len(y), dim=-2):
                mean = y.sum(1, keepdim=True) * scale**2
                pyro.sample("mean", dist.Normal(mean + shift * scale, width * scale))

        return guide

    return fit_guide


def ranks_of(fit_guide, *, num_tasks=T, **settings):
    settings = {"num_simulations": 1, "num_samples": 100, **settings}
    return simulate_ranks(normal_means, fit_guide, torch.zeros(num_tasks, N), **settings)


def tree(**sites):
    sizes = {1: ("simulation",), 2: ("simulation", "task")}
    made = {name: (sizes[values.ndim], values) for name, values in sites.items()}
    return xr.DataTree.from_dict({"prior_sbc": xr.Dataset(made)})


@pytest.fixture(autouse=True)
def closed():
    yield
    mpl.pyplot.close("all")


@pytest.mark.parametrize("verdict", WRONG)
@pytest.mark.parametrize("seed", range(4))
def test_every_wrong_posterior_has_its_own_verdict(verdict, seed):
    wrong = WRONG[verdict]
    table = rank_uniformity(ranks_of(posterior(**wrong), seed=seed), ci_prob=0.999)
    row = table.loc["mean"]
    assert row["verdict"] == verdict and row["ranks"] == row["effective"] == T
    # As if normal: the bias is in standard deviations of the posterior, known to about 1 / sqrt(T)
    # = 0.08 of right ones, and the width to 1 / sqrt(2 T) = 0.06 of itself; here to 4 of these.
    # Ranks among 100 draws cannot be farther out than 1 / 101, which makes width 0.6 some 0.66.
    width = wrong.get("width", 1.0)
    assert row["bias"] == pytest.approx(wrong.get("shift", 0.0), abs=0.33 / min(width, 1))
    assert row["width"] == pytest.approx(max(width, 0.63), rel=0.25)


def test_right_posteriors_pass_as_often_as_said():
    p = [
        rank_uniformity(ranks_of(posterior(), num_tasks=40, seed=seed)).loc["mean", "p_value"]
        for seed in range(120)
    ]
    for level in (0.1, 0.01):
        faults = sum(value <= level for value in p)
        # Bands are steps, and alarms of 40 ranks up to a tenth rarer than said.
        assert binom.ppf(0.001, 120, 0.9 * level) <= faults <= binom.ppf(0.999, 120, level)


def test_ranks_of_one_task_that_are_alike_count_for_fewer():
    alarms, numbers, apart = 0, [], []
    for seed in range(60):
        random = np.random.default_rng(seed)
        common = random.normal(size=(100, 1))  # correlation 0.8 among the 5 numbers of a task
        u = norm.cdf(0.8**0.5 * common + 0.2**0.5 * random.normal(size=(100, 5)))
        row = rank_uniformity(tree(w=u), sample_dims=["simulation"], ci_prob=0.9).loc["w"]
        alarms += row["verdict"] != "calibrated"
        numbers.append(row["effective"])
        apart.append(np.abs(u[:, 0] - u[:, 1]).mean())
    assert binom.ppf(0.001, 60, 0.05) <= alarms <= binom.ppf(0.999, 60, 0.1)
    # Whether two of a task lie below a place has the correlation 1 - 3 E|u - v|, over all places.
    alike = 1 - 3 * np.mean(apart)
    # Five times as many would count without it. The error of each number is about a tenth.
    assert np.mean(numbers) == pytest.approx(500 / (1 + 4 * alike), rel=0.05)


def regression(num_tasks=150, num_rows=8):
    """Tasks with orthogonal features, of which a mean-field posterior is exact."""
    random = np.random.default_rng(0)
    x = [2 * np.linalg.qr(random.normal(size=(num_rows, 2)))[0] for _ in range(num_tasks)]
    tasks = np.arange(num_tasks).repeat(num_rows).tolist()
    X = torch.as_tensor(np.concatenate(x), dtype=torch.float32)
    data = TaskData.regression(X, torch.zeros(len(X)), tasks)
    prior = ZeroMeanNormal([2], init_scale=1.5)
    model = LinearRegressor(prior, TaskNoise(num_tasks))
    return model.requires_grad_(False), data


def mean_field(kl_weight=1.0):
    def fit_guide(model, data):
        guide = MeanFieldNormal({"w": [2]}, data.num_tasks)
        fit(*temper(model, guide, kl_weights={"w": kl_weight}), data, num_steps=400)
        return guide

    return fit_guide


def test_a_fit_with_another_target_is_warned_of():
    model, data = regression()

    def tempered(model, data):
        guide = MeanFieldNormal({"w": [2]}, data.num_tasks)
        return temper(model, guide, kl_weights=0.5)[1]

    with pytest.warns(UserWarning, match="learning rate of the likelihood is 2.0"):
        simulate_ranks(model, tempered, data, num_simulations=1, num_samples=5)


def test_a_fit_of_many_tasks_is_many_simulations():
    model, data = regression()
    ranks = simulate_ranks(model, mean_field(), data, num_simulations=1)
    assert ranks["prior_sbc"]["w"].sizes == {"simulation": 1, "task": 150, "feature": 2}
    assert ranks["prior_sbc"].attrs["sample_dims"] == ["simulation", "task"]
    row = rank_uniformity(ranks).loc["w"]
    assert row["verdict"] == "calibrated" and row["effective"] > 250
    assert (data.y == 0).all()  # what was given stays
    # A KL weight of 0.2 counts every row five times. With precision 4 + 1 / 1.5^2 of the rows and
    # the prior, the standard deviation is sqrt(4.44 / 20.44) = 0.47 of the right one.
    row = rank_uniformity(simulate_ranks(model, mean_field(0.2), data, num_simulations=1)).loc["w"]
    assert row["verdict"] == "too narrow"
    assert row["width"] == pytest.approx(0.47, rel=0.25)


def test_autonormal_is_ranked_too():
    def fit_guide(model, y):
        guide = AutoNormal(model, init_scale=0.3)
        guide(y)
        fit(model, guide, y, num_steps=300)
        return guide

    table = rank_uniformity(ranks_of(fit_guide))
    assert table.loc["mean", "verdict"] == "calibrated" and table.loc["mean", "ranks"] == T


def test_simulations_come_again_and_change_nothing_global():
    before = torch.get_rng_state()
    first, again = (ranks_of(posterior(), num_simulations=2, seed=3) for _ in range(2))
    xr.testing.assert_identical(first, again)
    assert torch.equal(torch.get_rng_state(), before)
    ranks = first["prior_sbc"]["mean"]
    assert ranks.sizes == {"simulation": 2, "task": T}
    assert not np.allclose(ranks[0], ranks[1])
    assert ((ranks > 0) & (ranks < 1)).all()


def test_shared_and_common_sites_are_independent_by_simulation_only():
    data = TaskData.classification(torch.randn(12, 2), [0, 1, 2] * 4, list("aabb") * 3)
    model = LinearClassifier(ZeroMeanNormal((3, 2), init_scale=1.0))

    def shared(model, data):
        _, guide = share(model, MeanFieldNormal({"w": (3, 2)}, data.num_tasks), sites=["w"])
        guide(data)
        return guide

    ranks = simulate_ranks(model, shared, data, num_simulations=2, num_samples=10)
    assert ranks["prior_sbc"].attrs["sample_dims"] == ["simulation"]
    sizes = {"simulation": 2, "task": 2, "class": 3, "feature": 2}
    assert ranks["prior_sbc"]["w"].sizes == sizes
    assert ranks["prior_sbc"]["w"].coords["task"].values.tolist() == ["a", "b"]

    def with_common(y):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("task", 3, dim=-2):
            mean = pyro.sample("mean", dist.Normal(0.0, scale))
            with pyro.plate("data", 4, dim=-1):
                pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    def prior_draws(model, y):
        draws = np.random.default_rng(0).normal(size=(1, 20, 3))
        sites = {
            "mean": (("chain", "draw", "task"), draws),
            "scale": (("chain", "draw"), draws[..., 0]),
        }
        return xr.DataTree.from_dict({"posterior": xr.Dataset(sites)})

    ranks = simulate_ranks(with_common, prior_draws, torch.zeros(3, 4), num_simulations=2)
    assert ranks["prior_sbc"].attrs["sample_dims"] == ["simulation"]
    assert set(ranks["prior_sbc"].data_vars) == {"mean", "scale"}
    only = simulate_ranks(
        with_common, prior_draws, torch.zeros(3, 4), num_simulations=1, sites="mean"
    )
    assert list(only["prior_sbc"].data_vars) == ["mean"]


def test_a_site_that_is_not_ranked_is_common_to_tasks_all_the_same():
    def common_mean(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        with pyro.plate("task", len(y), dim=-2):
            w = pyro.sample("w", dist.Normal(mu, 1.0))
            with pyro.plate("data", 4, dim=-1):
                pyro.sample("y", dist.Normal(w, 3.0), obs=y)

    def exact(model, y):
        # Means of tasks given mu are N(mu, 1 + 9 / 4): mu has a normal posterior, and w given it.
        precision = 1 / 9 + len(y) / 3.25
        at = y.mean(1).sum() / 3.25 / precision

        def guide(y):
            mu = pyro.sample("mu", dist.Normal(at, precision**-0.5))
            scale = (1 + 4 / 9) ** -0.5
            with pyro.plate("task", len(y), dim=-2):
                mean = scale**2 * (mu + y.sum(1, keepdim=True) / 9)
                pyro.sample("w", dist.Normal(mean, scale))

        return guide

    y, settings = torch.zeros(400, 4), {"sites": ("w",), "num_samples": 50}
    faults = 0
    for seed in range(20):
        ranks = simulate_ranks(common_mean, exact, y, num_simulations=1, seed=seed, **settings)
        assert ranks["prior_sbc"].attrs["sample_dims"] == ["simulation"]
        faults += rank_uniformity(ranks).loc["w", "verdict"] != "calibrated"
    assert faults <= binom.ppf(0.999, 20, 0.01)


@pytest.mark.parametrize("number", [5, 10, 50, 1000])
@pytest.mark.parametrize("ci_prob", [0.5, 0.9, 0.99])
def test_bands_are_left_at_most_as_often_as_said(number, ci_prob):
    counts = np.random.default_rng(1).multinomial(number, np.full(100, 0.01), size=10_000)
    # 4 standard errors of the 4000 draws of a band and of these.
    most = 1 - ci_prob + 4 * (ci_prob * (1 - ci_prob) * (1 / 4000 + 1 / 10_000)) ** 0.5
    low, high = uniform_limits(number, ci_prob)
    below = counts.cumsum(1)[:, :-1] / number
    assert ((below < low - 1e-9) | (below > high + 1e-9)).any(1).mean() <= most
    # It is no wider than it must be: a count less on both sides is left more often than said.
    narrower = (below < low + 1 / number - 1e-9) & (low > 0) | (below > high - 1 / number + 1e-9)
    assert narrower.any(1).mean() > 1 - ci_prob - (most - 1 + ci_prob)


def test_arviz_plots_the_ranks():
    ranks = ranks_of(posterior(width=0.6))
    plots = az.plot_ecdf_pit(ranks, sample_dims=["simulation", "task"], backend="matplotlib")
    assert "mean" in plots.viz["ecdf_lines"]


def test_what_is_wrong_with_the_call_is_said():
    y = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"sites has \['w'\].*latent sites are \['mean'\]"):
        simulate_ranks(normal_means, posterior(), y, sites=["w"])
    with pytest.raises(ValueError, match="num_simulations is 0"):
        simulate_ranks(normal_means, posterior(), y, num_simulations=0)

    def other_targets(y):
        normal_means(y + 1.0)

    with pytest.raises(ValueError, match="targets of site 'y' are not among the arguments"):
        simulate_ranks(other_targets, posterior(), y)
    with pytest.raises(ValueError, match="has no site 'mean', found"):
        simulate_ranks(normal_means, lambda model, y: lambda y: None, y)
    with pytest.raises(ValueError, match="no group 'prior_sbc'"):
        rank_uniformity(xr.DataTree())

    def broken(model, y):
        raise RuntimeError("no fit")

    with pytest.raises(RuntimeError, match="no fit") as error:
        simulate_ranks(normal_means, broken, y, seed=7)
    assert error.value.__notes__ == ["In simulation 1 of 100, seed 7."]
