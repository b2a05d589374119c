"""The start of a linear model's fit against autograd and the exact posterior."""

from dataclasses import replace

import pyro.distributions as dist
import pytest
import torch
from problems import F64

from pyro_vmtl import MeanFieldELBO, TaskData, temper
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.inference.initialization import least_squares_start
from pyro_vmtl.models import LinearRegressor, StandardNormal, TaskNoise


@pytest.mark.parametrize("num_features", [2, 9])  # fewer and more than rows in a task
@pytest.mark.parametrize("kl_weight", [1.0, 0.2])
def test_real_targets_start_at_the_optimum(ragged, num_features, kl_weight):
    x = torch.randn(3, 5, num_features, generator=torch.Generator().manual_seed(0), dtype=F64)
    data = replace(ragged, x=x * ragged.mask[..., None], classes=None)
    data = replace(data, y=torch.sin(torch.arange(15.0, dtype=F64)).reshape(3, 5) * data.mask)
    model = LinearRegressor(StandardNormal([num_features]), TaskNoise(3)).double()
    guide = MeanFieldNormal({"w": [num_features]}, 3, common_scale=True).double()
    guide.start_at("w", *least_squares_start(data, kl_weight=kl_weight))
    # E (y - w x)^2 by hand, as a draw's gradient is noisy
    normal = guide.posterior("w").base_dist
    mean = (data.x @ normal.mean.mT).squeeze(-1)
    variance = (data.x**2 @ normal.variance.mT).squeeze(-1)
    misfit = 0.5 * (((data.y - mean) ** 2 + variance) * data.mask).sum()
    prior = dist.Normal(torch.zeros((), dtype=F64), 1.0)
    loss = misfit + kl_weight * torch.distributions.kl_divergence(normal, prior).sum()
    gradients = torch.autograd.grad(loss, list(guide.parameters()))
    assert all(gradient.abs().max() < 1e-10 for gradient in gradients)
    # and that is the ELBO, up to the constant of the noise
    elbo = MeanFieldELBO(20_000)
    torch.manual_seed(0)
    pair = temper(model, guide, kl_weights={"w": kl_weight})
    constant = 0.5 * torch.log(torch.tensor(2 * torch.pi)) * data.mask.sum()
    estimate = elbo(*pair)(data) - constant
    assert estimate.item() == pytest.approx(loss.item(), rel=0.02)  # 20,000 draws of about 1/2 nat


def test_classes_start_at_the_first_newton_step(ragged):
    ragged = replace(ragged, x=ragged.x * ragged.mask[..., None])
    loc, scale = least_squares_start(ragged, kl_weight=0.3)
    assert loc.shape == scale.shape == (3, 3, 3)
    for t in range(3):
        x, y = ragged.x[t, ragged.mask[t]], ragged.y[t, ragged.mask[t]]

        def loss(w, x=x, y=y):
            misfit = torch.nn.functional.cross_entropy(x @ w.reshape(3, 3).T, y, reduction="sum")
            return misfit + 0.5 * 0.3 * (w**2).sum()

        zero = torch.zeros(9, dtype=F64)
        gradient = torch.func.grad(loss)(zero)
        hessian = torch.func.hessian(loss)(zero)
        newton = -torch.linalg.solve(hessian, gradient).reshape(3, 3)
        torch.testing.assert_close(loc[t], newton)
        torch.testing.assert_close(scale[t].flatten() ** -2, hessian.diagonal() / 0.3)


def test_targets_are_needed(ragged):
    with pytest.raises(ValueError, match="have no targets"):
        least_squares_start(ragged.without_targets())


def test_a_task_without_rows_starts_at_the_prior():
    data = TaskData.regression([[1.0, 2.0]], [3.0], ["a"])
    data = replace(
        data, x=data.x.repeat(2, 1, 1), y=data.y.repeat(2, 1), mask=data.mask.repeat(2, 1)
    )
    data = replace(data, x=data.x * torch.tensor([1.0, 0.0])[:, None, None])
    loc, scale = least_squares_start(data, kl_weight=0.5)
    assert loc[1].tolist() == [0.0, 0.0] and scale[1].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("size", [1e3, 1e6, 1e12])
def test_large_and_collinear_features_have_a_start(size):
    X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)).abs() * size
    X[:, 1] = 2 * X[:, 0]
    data = TaskData.regression(X, X[:, 2] / size, ["a", "b"] * 20)
    for value in least_squares_start(data.with_intercept(), kl_weight=0.2):
        assert torch.isfinite(value).all()
