"""Covariances by linear response, against exact ones, refits, and finite differences."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugate_programs import NOISE, PRIOR, programs
from problems import F64
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import nn

from pyro_vmtl import LinearResponse, MeanFieldELBO, TaskData, fit, share, temper
from pyro_vmtl.analysis import from_pyro_svi
from pyro_vmtl.guides import ConjugateNormal, FullRankNormal, MeanFieldNormal
from pyro_vmtl.inference.elbo import evaluate
from pyro_vmtl.linear_response import curvature
from pyro_vmtl.models import (
    HierarchicalNormal,
    LinearClassifier,
    LinearRegressor,
    LogNormalNoise,
    ZeroMeanNormal,
)

POINTS = MeanFieldELBO(num_points=8)


def regression(num_tasks=2, num_features=3, num_rows=8, *, far=0.0, seed=0):
    """Rows with correlated features; two groups of tasks that are ``far`` apart."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_tasks, num_rows, num_features, generator=generator, dtype=F64)
    x[..., 1:] += x[..., :1]
    w = 0.2 * torch.randn(num_tasks, num_features, generator=generator, dtype=F64)
    w[::2] += far
    noise = NOISE * torch.randn(num_tasks, num_rows, generator=generator, dtype=F64)
    y = (x @ w[..., None])[..., 0] + noise
    tasks = torch.arange(num_tasks).repeat_interleave(num_rows).tolist()
    return TaskData.regression(x.flatten(0, 1), y.flatten(), tasks)


def minimise(model, guide, *args, elbo=POINTS, tolerance=1e-9, tilt=None, free=None):
    """Go to the optimum, much nearer than a fit does; of the loss less ``tilt . means``.

    Numbers that are not ``free``, of all, are held.
    """
    loss_of = elbo(model, guide)
    with torch.no_grad():
        loss_of(*args)
    parameters = [p for p in loss_of.parameters() if p.requires_grad]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=1000,
        history_size=50,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss = evaluate(elbo, model, guide, *args).loss
        if tilt is not None:
            loss = loss - (tilt * guide.program.locs["w"]).sum()
        loss.backward()
        if free is not None:
            parts = free.split([p.numel() for p in parameters])
            for p, part in zip(parameters, parts, strict=True):
                p.grad *= part.view_as(p)
        return loss

    optimizer.step(closure)


def known_programs(data, kind=MeanFieldNormal):
    """Regression with known noise and prior, at the optimum of its guide."""
    model, _ = programs(data)
    guide = kind({"w": [data.num_features]}, data.num_tasks).double()
    minimise(model, guide, data)
    return model, guide


def exact_covariance(data, power=1.0):
    precision = power * data.x.mT @ data.x / NOISE**2
    return torch.linalg.inv(precision + torch.eye(data.num_features, dtype=F64) / PRIOR**2)


@pytest.mark.parametrize("kind", [MeanFieldNormal, FullRankNormal])
def test_the_covariance_of_linear_regression_is_exact(kind):
    data = regression()
    model, guide = known_programs(data, kind)
    exact = exact_covariance(data)
    own = guide.posterior("w").variance[:, 0].detach()
    narrower = (own < 0.8 * exact.diagonal(dim1=1, dim2=2)).any()
    assert narrower == (kind is MeanFieldNormal)  # or it would show nothing
    response = LinearResponse(model, guide, data, elbo=POINTS)
    assert response.distance < 1e-3
    found = response.covariance("w")[:, 0, :, :, 0]
    for t in range(2):
        torch.testing.assert_close(found[t, :, t], exact[t], rtol=1e-5, atol=1e-9)
    assert found[0, :, 1].abs().max() < 1e-9  # nothing is shared
    row = data.x[1, 0]
    var = response.stddev(lambda means: means["w"][1, 0] @ row) ** 2
    assert var.item() == pytest.approx((row @ exact[1] @ row).item(), rel=1e-5)


def test_tempering_all_sites_gives_the_generalised_posterior():
    data = regression()
    model, guide = programs(data)
    model, guide = temper(model, guide, kl_weights={"w": 0.25})
    minimise(model, guide, data)
    response = LinearResponse(model, guide, data, elbo=POINTS)
    exact = exact_covariance(data, power=4)
    torch.testing.assert_close(
        response.stddev("w")[:, 0], exact.diagonal(dim1=1, dim2=2).sqrt(), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("autoguide", [AutoNormal, AutoMultivariateNormal])
def test_a_positive_site_of_any_autoguide_is_taken_by_its_logarithm(autoguide):
    def model():
        pyro.sample("tau", dist.LogNormal(torch.tensor(0.3, dtype=F64), 0.5))

    guide = autoguide(model)
    guide()
    guide.double()
    minimise(model, guide)
    response = LinearResponse(model, guide, elbo=POINTS)
    assert response.stddev("tau").item() == pytest.approx(0.5, rel=1e-6)
    corrected = response.correct("tau")
    torch.manual_seed(0)
    draws = torch.stack([corrected()["tau"].detach() for _ in range(2000)]).log()
    # means and standard deviations of 2000 draws, to 4 standard errors
    assert draws.mean().item() == pytest.approx(0.3, abs=4 * 0.5 / 2000**0.5)
    assert draws.std().item() == pytest.approx(0.5, rel=4 / 4000**0.5)


SPREAD, MEAN_SCALE = 0.7, 1.5


class Means(nn.Module):
    """Normal means about a common mean, all scales known."""

    def forward(self, y):
        mean = pyro.sample("mean", dist.Normal(torch.zeros((), dtype=F64), MEAN_SCALE))
        with pyro.plate("task", len(y)):
            w = pyro.sample("w", dist.Normal(mean, SPREAD))
            pyro.sample("y", dist.Normal(w, NOISE), obs=y)


def exact_means(num_tasks):
    """Covariance of (mean, w_1, ..., w_T)."""
    precision = torch.zeros(num_tasks + 1, num_tasks + 1, dtype=F64)
    precision[0, 0] = MEAN_SCALE**-2 + num_tasks * SPREAD**-2
    precision[0, 1:] = precision[1:, 0] = -(SPREAD**-2)
    precision[1:, 1:].diagonal().fill_(SPREAD**-2 + NOISE**-2)
    return torch.linalg.inv(precision)


@pytest.mark.parametrize("autoguide", [AutoNormal, AutoMultivariateNormal])
def test_covariances_between_tasks_are_exact(autoguide):
    y, model = torch.tensor([0.3, 1.0, -2.0], dtype=F64), Means()
    guide = autoguide(model)
    guide(y)
    guide.double()
    minimise(model, guide, y)
    response = LinearResponse(model, guide, y, elbo=POINTS)

    def everything(means):
        return torch.cat([means["mean"][None], means["w"]])

    exact = exact_means(3)
    torch.testing.assert_close(response.covariance(everything), exact, rtol=1e-5, atol=1e-8)
    difference = response.stddev(lambda means: means["w"][0] - means["w"][1])
    var = exact[1, 1] + exact[2, 2] - 2 * exact[1, 2]
    assert difference.item() ** 2 == pytest.approx(var.item(), rel=1e-5)
    corrected = response.correct("w", "mean")
    draws = from_pyro_svi(model, corrected, y, num_samples=4000)["posterior"]
    # 4000 draws: standard deviations to 1.1 %
    assert draws["mean"].std().item() == pytest.approx(exact[0, 0].sqrt().item(), rel=0.05)
    stds = torch.as_tensor(draws["w"].std(("chain", "draw")).values)
    torch.testing.assert_close(stds, exact.diagonal()[1:].sqrt(), rtol=0.05, atol=0)


def conjugate(data, *, known):
    """A mixed model."""
    prior = HierarchicalNormal((data.num_features,), latent_scales=True)
    model, guide = LinearRegressor(prior, LogNormalNoise()), ConjugateNormal(data)
    fit(model, guide, data, elbo=MeanFieldELBO(), optimizer="lbfgs")
    for module in (model, guide):
        module.requires_grad_(not known)
    return model.double(), guide.double()


def test_the_conjugate_guide_has_the_exact_covariance_of_the_common_mean_too():
    data = regression(num_tasks=3)
    model, guide = conjugate(data, known=True)
    with torch.no_grad():  # what the guide takes for known
        precision = guide.scale.log_precision().exp()
        noise = guide.noise.log_precision().exp()[..., None]
        mean_precision = (-2 * guide.raw_mean_scale).exp()
    size, blocks = 3, torch.diag(precision)
    joint = torch.block_diag(torch.zeros(size, size), *(noise * data.x.mT @ data.x + blocks))
    joint[:size, :size] = mean_precision * torch.eye(size) + 3 * blocks
    joint[:size, size:] = -blocks.repeat(1, 3)
    joint[size:, :size] = -blocks.repeat(3, 1)
    response = LinearResponse(model, guide, data)
    found = response.covariance(
        lambda means: torch.cat([means["w_mean"][None], means["w"][:, 0]]).flatten()
    )
    torch.testing.assert_close(found, torch.linalg.inv(joint), rtol=1e-6, atol=1e-9)


def test_what_is_not_known_of_the_scales_widens_the_conjugate_posterior():
    data = regression(num_tasks=3)
    model, guide = conjugate(data, known=False)
    response = LinearResponse(model, guide, data)
    ratio = response.stddev("w") / guide.posterior("w").variance.sqrt()
    assert ratio.min() > 1 and 1.01 < ratio.max() < 1.5
    assert response.stddev("w_scale").shape == (3,)  # log-normal, hence of its logarithm


def shared_programs(data):
    prior = ZeroMeanNormal([data.num_features])
    model = LinearRegressor(prior, LogNormalNoise(spread=0.3)).double()
    guide = MeanFieldNormal(
        {"w": [data.num_features], "noise_scale": []}, data.num_tasks, positive=["noise_scale"]
    ).double()
    guide.start_at(
        "w", torch.linalg.lstsq(data.x, data.y).solution, torch.full_like(data.x[:, 0], 0.1)
    )
    settings = {"transfer": "dimension", "weights": "categorical", "start": "nearest"}
    return share(model, guide, sites=["w"], **settings)


@pytest.fixture(scope="module")
def shared():
    """Four tasks in two groups far apart, at the optimum."""
    data = regression(4, 2, num_rows=10, far=2.0)
    model, guide = shared_programs(data)
    fit(model, guide, data, elbo=POINTS, optimizer="lbfgs")
    minimise(model, guide, data, tolerance=1e-5)
    return model, guide, data


def test_a_shared_fit_responds_as_refits_of_tilted_models_do(shared):
    model, guide, data = shared
    response = LinearResponse(model, guide, data, elbo=POINTS)
    assert response.curvature.descent < 1e-6 and response.curvature.residual < 1e-4
    predicted = response.covariance("w")[..., 0, 0, 1]
    direction = torch.zeros_like(guide.program.locs["w"])
    direction[0, 0, 1] = 1.0
    step, means = 2e-2, []
    for sign in (1, -1):
        refit = copy.deepcopy((model, guide))
        # weights of unused sources would go on running
        tilt = sign * step * direction
        minimise(*refit, data, tolerance=1e-5, tilt=tilt, free=response.curvature.free)
        means.append(refit[1].program.locs["w"].detach())
    found = (means[0] - means[1]) / (2 * step)
    assert found[2, 0].abs().max() > 0.01 * found[0, 0].abs().max()  # siblings respond
    torch.testing.assert_close(predicted, found, rtol=0.02, atol=1e-2 * found.max().item())


def test_conjugate_gradients_solve_as_the_factor_does(shared, monkeypatch):
    model, guide, data = shared
    dense = LinearResponse(model, guide, data, elbo=POINTS)
    monkeypatch.setattr(curvature, "MOST_DENSE", 0)
    iterative = LinearResponse(model, guide, data, elbo=POINTS)
    assert iterative.curvature.residual <= 1e-6
    torch.testing.assert_close(iterative.stddev("w"), dense.stddev("w"), rtol=1e-4, atol=0)
    assert iterative.distance == pytest.approx(dense.distance, abs=1e-4)


def test_the_hessian_is_that_of_finite_differences(shared):
    model, guide, data = shared
    found = LinearResponse(model, guide, data, elbo=POINTS)
    size = len(found.curvature.gradient)
    hessian = found.curvature.times(torch.eye(size, dtype=F64))
    assert (hessian - hessian.T).abs().max() < 1e-8 * hessian.abs().max()
    parameters, free = found.curvature.parameters, found.curvature.free
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(len(free), generator=generator, dtype=F64) * free

    def gradient(step):
        parts = direction.split([p.numel() for p in parameters])
        with torch.no_grad():
            for p, part in zip(parameters, parts, strict=True):
                p.add_(step * part.reshape(p.shape))
        loss = evaluate(POINTS, found._model, found._guide, data).loss
        grads = torch.autograd.grad(loss, parameters, materialize_grads=True, allow_unused=True)
        return torch.cat([grad.flatten() for grad in grads])[free]

    expected = (gradient(1e-5) - gradient(-2e-5)) / 2e-5  # one step up, and one down from the start
    scale = expected.abs().max().item()
    torch.testing.assert_close(hessian @ direction[free], expected, rtol=1e-5, atol=1e-6 * scale)


def test_held_logits_do_not_matter(shared, monkeypatch):
    model, guide, data = shared
    usual = LinearResponse(model, guide, data, elbo=POINTS)
    logits = guide.state["w"].logits
    assert len(usual.curvature.gradient) < sum(p.numel() for p in usual.curvature.parameters)
    with torch.no_grad():
        logits.add_(3.0)
    moved = LinearResponse(model, guide, data, elbo=POINTS)
    with torch.no_grad():
        logits.sub_(3.0)
    torch.testing.assert_close(moved.stddev("w"), usual.stddev("w"), rtol=1e-6, atol=0)
    monkeypatch.setattr("pyro_vmtl.linear_response.response.LEAST_WEIGHT", 1e-3)
    more = LinearResponse(model, guide, data, elbo=POINTS)
    torch.testing.assert_close(more.stddev("w"), usual.stddev("w"), rtol=0.02, atol=0)


def test_corrected_draws_of_a_shared_fit_have_the_covariances(shared):
    model, guide, data = shared
    response = LinearResponse(model, guide, data, elbo=POINTS)
    corrected = response.correct("w", "noise_scale")
    tree = from_pyro_svi(model, corrected, data, num_samples=4000)
    draws = torch.as_tensor(tree["posterior"]["w"].values[0], dtype=F64)
    for t in range(4):
        block = response.covariance("w")[t, 0, :, t, 0]
        scale = block.diagonal().sqrt()
        found = torch.cov(draws[:, t].T) / (scale[:, None] * scale)
        # correlations of 4000 draws: standard error at most 0.02
        torch.testing.assert_close(found, block / (scale[:, None] * scale), rtol=0, atol=0.08)
    logs = torch.as_tensor(tree["posterior"]["noise_scale"].values[0], dtype=F64).log()
    torch.testing.assert_close(
        logs.std(0), response.stddev("noise_scale").flatten(), rtol=0.06, atol=0
    )
    assert tree["posterior"]["w_sources"].shape == (1, 4000, 4, 5)


def grid_moments(log_density, size=601, width=3.0, centre=(0.0, 0.0)):
    """Mean and covariance of two numbers, by summing over a grid."""
    axes = [torch.linspace(c - width, c + width, size, dtype=F64) for c in centre]
    points = torch.cartesian_prod(*axes)
    weights = log_density(points).softmax(0)
    mean = weights @ points
    apart = points - mean
    return mean, (weights[:, None] * apart).T @ apart


def test_counts_against_a_grid():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(30, 2, generator=generator, dtype=F64)
    x[:, 1] = 0.8 * x[:, 0] + 0.6 * x[:, 1]
    y = torch.poisson((1 + x @ torch.tensor([0.3, -0.2], dtype=F64)).exp(), generator=generator)

    def model(y):
        w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=F64), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Poisson((1 + (w * x).sum(-1)).exp()), obs=y)

    _, exact = grid_moments(
        lambda w: (
            dist.Normal(0.0, 1.0).log_prob(w).sum(1)
            + dist.Poisson((1 + w @ x.T).exp()).log_prob(y).sum(1)
        ),
        width=1.0,
    )
    guide = AutoNormal(model)
    guide(y)
    guide.double()
    elbo = MeanFieldELBO(num_points=64)
    minimise(model, guide, y, elbo=elbo)
    response = LinearResponse(model, guide, y, elbo=elbo)
    own = guide.quantiles([0.8413], y)["w"][0].detach() - guide.median(y)["w"].detach()
    assert (own / exact.diagonal().sqrt()).max() < 0.75  # mean field is too narrow
    # means of q move nearly as those of the posterior do
    torch.testing.assert_close(response.covariance("w"), exact, rtol=0.04, atol=0)


def test_a_lognormal_scale_against_a_grid():
    y = torch.tensor([0.4, -1.0, 0.7, 1.9, -0.3, 0.2, -1.2, 0.8], dtype=F64)

    def model(y):
        mean = pyro.sample("mean", dist.Normal(torch.zeros((), dtype=F64), 1.0))
        scale = pyro.sample("scale", dist.LogNormal(torch.zeros((), dtype=F64), 0.5))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, scale), obs=y)

    def log_density(points):
        mean, log_scale = points[:, :1], points[:, 1:]
        prior = dist.Normal(0.0, 1.0).log_prob(mean) + dist.Normal(0.0, 0.5).log_prob(log_scale)
        return prior[:, 0] + dist.Normal(mean, log_scale.exp()).log_prob(y).sum(1)

    _, exact = grid_moments(log_density, width=2.5)
    for kind in ("own", "auto"):
        if kind == "own":
            guide = MeanFieldNormal({}, 1, common={"mean": [], "scale": []}, positive=["scale"])
        else:
            guide = AutoNormal(model)
            guide(y)
        guide.double()
        elbo = MeanFieldELBO(num_points=64)
        minimise(model, guide, y, elbo=elbo)
        response = LinearResponse(model, guide, y, elbo=elbo)
        found = response.covariance(lambda means: torch.stack([means["mean"], means["scale"]]))
        torch.testing.assert_close(
            found.diagonal().sqrt(), exact.diagonal().sqrt(), rtol=0.1, atol=0
        )
        corrected = response.correct("scale")
        with pyro.plate("draws", 4000, dim=-3), torch.no_grad():
            logs = corrected(y)["scale"].log()
        assert logs.std().item() == pytest.approx(found[1, 1].sqrt().item(), rel=0.05)


def test_draws_of_classes_have_the_shape_of_the_site():
    data = TaskData.classification(torch.randn(40, 3), [0, 1, 2, 1] * 10, ["a", "b"] * 20)
    model, guide = LinearClassifier(ZeroMeanNormal((3, 3))), MeanFieldNormal({"w": (3, 3)}, 2)
    fit(model, guide, data, elbo=POINTS, optimizer="lbfgs")
    corrected = LinearResponse(model, guide, data, elbo=POINTS).correct("w")
    draws = torch.stack([corrected(data)["w"] for _ in range(5)])
    assert draws.shape == (5, 2, 1, 3, 3) and draws.dtype == torch.float32
    assert draws.std(0).min() > 0


def test_bare_parameters_are_refused():
    def guide(y):
        loc = pyro.param("loc", lambda: torch.zeros(()))
        pyro.sample("mean", dist.Normal(loc, 1.0))

    def model(y):
        pyro.sample("y", dist.Normal(pyro.sample("mean", dist.Normal(0.0, 1.0)), 1.0), obs=y)

    with pytest.raises(ValueError, match=r"pyro\.param\('loc'\)"):
        LinearResponse(model, guide, torch.tensor(1.0))
    assert "loc" not in pyro.get_param_store()


def test_losses_that_depend_on_draws_are_refused():
    data = regression()
    model, guide = known_programs(data)
    with pytest.raises(ValueError, match="draws"):
        LinearResponse(model, guide, data)


def test_detached_sources_are_refused():
    data = regression(3)
    model, guide = share(*programs(data), sites=["w"], detach_sources=True)
    guide(data)
    with pytest.raises(ValueError, match="detach_sources=False"):
        LinearResponse(model, guide, data, elbo=POINTS)


@pytest.mark.parametrize("weight", [0.5, 0.0])
def test_different_kl_weights_are_refused(weight, shared):
    model, guide, data = shared
    tempered = temper(model, guide, kl_weights={"w": weight})
    with pytest.raises(ValueError, match="Use the same for all"):
        LinearResponse(*tempered, data, elbo=POINTS)


def test_unknown_sites_are_refused():
    data = regression()
    model, guide = known_programs(data)
    response = LinearResponse(model, guide, data, elbo=POINTS)
    with pytest.raises(ValueError, match=r"found \['w'\]"):
        response.stddev("y")


def test_a_fit_that_ended_early_is_told():
    data = regression()
    model, guide = programs(data)
    with pytest.warns(UserWarning, match="standard deviations away"):
        response = LinearResponse(model, guide, data, elbo=POINTS)
    assert response.distance > 1


def test_the_fit_is_left_alone(shared):
    model, guide, data = shared
    before = {name: p.clone() for name, p in guide.named_parameters()}
    state = torch.get_rng_state()
    LinearResponse(model, guide, data, elbo=POINTS).correct("w")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, before[name]) for name, p in guide.named_parameters())
