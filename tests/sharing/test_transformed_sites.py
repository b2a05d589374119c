"""Sites that are bijections of a normal are pooled as the normal; the task plate has any name."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from problems import F64, normal_kl
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch.distributions.transforms import AffineTransform, ExpTransform, SigmoidTransform

from pyro_vmtl import (
    ExpectedLogarithmicPool,
    GaussianSumPool,
    LinearPool,
    LogarithmicPool,
    MeanFieldELBO,
    RandomTasks,
    TaskData,
    fit,
    predict_moments,
    relatedness,
    sample_posterior,
    share,
    unwrap,
)
from pyro_vmtl.analysis import from_pyro_svi
from pyro_vmtl.data.plates import some_tasks
from pyro_vmtl.guides import MeanFieldNormal
from pyro_vmtl.inference.elbo import evaluate
from pyro_vmtl.sharing.transformed import pool_of

POOLS = [LogarithmicPool, ExpectedLogarithmicPool, LinearPool, GaussianSumPool]


@pytest.fixture
def data():
    x = torch.linspace(0.0, 1.0, 11)[:, None]
    rate = torch.tensor([1.0, 1.1, 3.0])[torch.arange(11) % 3]
    return TaskData.regression(x, 1 + rate * x[:, 0], list("abc" * 4)[:11])


def curves(prior, value_of=lambda w: w, plate="task"):
    """Lines with positive coefficients."""

    def model(data):
        with pyro.plate(plate, data.num_tasks, dim=-2):
            w = value_of(pyro.sample("w", prior))
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
                mean = w[..., 0] + w[..., 1] * data.x[..., 0]
                pyro.sample("y", dist.Normal(mean, 0.5), obs=data.y)

    return model


def log_normal(plate="task"):
    return curves(dist.LogNormal(torch.zeros(2), 1.0).to_event(1), plate=plate)


def log_odds():
    normal = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    return curves(dist.TransformedDistribution(normal, [SigmoidTransform()]))


def normal(value_of):
    return curves(dist.Normal(torch.zeros(2), 1.0).to_event(1), value_of)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(("of", "value_of"), [(log_normal, torch.exp), (log_odds, torch.sigmoid)])
def test_an_autoguide_learns_as_of_the_normal_itself(data, pool, of, value_of):
    results = []
    for model in (of(), normal(value_of)):
        pair = share(model, AutoNormal(model), sites=["w"], pool=pool)
        history = fit(*pair, data, num_steps=40).history
        numbers = [history.loss, predict_moments(*pair, data)[0], relatedness(pair[1], "w").mean(0)]
        results.append(numbers)
    for transformed, plain in zip(*results, strict=True):
        torch.testing.assert_close(transformed, plain, rtol=2e-4, atol=2e-4)


def test_the_guides_of_the_library_do(data):
    model = log_normal()
    losses = []
    for program, positive in ((model, ["w"]), (normal(torch.exp), [])):
        guide = MeanFieldNormal({"w": (2,)}, 3, positive=positive)
        pair = share(program, guide, sites=["w"])
        losses.append(fit(*pair, data, num_steps=40).history.loss)
        points = evaluate(MeanFieldELBO(num_points=8), *pair, data).loss
        losses.append(points)
    torch.testing.assert_close(losses[0], losses[2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(losses[1], losses[3], rtol=1e-4, atol=1e-4)


def random_pair():
    """A sharing pair in float64 whose posterior and source weights are known numbers."""
    torch.manual_seed(0)
    prior = dist.LogNormal(torch.zeros(2, dtype=F64), 1.0).to_event(1)
    loc, scale = torch.randn(3, 1, 2, dtype=F64), 0.2 + torch.rand(3, 1, 2, dtype=F64)

    def model():
        with pyro.plate("task", 3, dim=-2):
            pyro.sample("w", prior)

    def guide():
        with pyro.plate("task", 3, dim=-2):
            pyro.sample("w", dist.LogNormal(loc, scale).to_event(1))

    pair = share(model, guide, sites=["w"], transfer=None, weights="even", min_base_weight=0.0)
    return pair, loc[:, 0], scale[:, 0] ** 2


def test_the_kl_is_that_of_the_normals():
    pair, loc, var = random_pair()
    [(model_trace, _)] = evaluate(MeanFieldELBO(), *pair).traces
    assert isinstance(pool_of(model_trace.nodes["w"]["fn"]), LogarithmicPool)
    base = normal_kl(loc, var, torch.zeros(2, dtype=F64), torch.ones(2, dtype=F64))
    for t in range(3):
        others = [normal_kl(loc[t], var[t], loc[i], var[i]) for i in range(3) if i != t]
        base[t] = (base[t] + sum(others)) / 3
    torch.testing.assert_close(evaluate(MeanFieldELBO(), *pair).terms.kl["w"], base)
    torch.testing.assert_close(evaluate(TraceMeanField_ELBO(), *pair).loss, base.sum())


def test_it_is_the_mean_of_what_draws_estimate():
    pair, _, _ = random_pair()
    exact = evaluate(MeanFieldELBO(), *pair).loss
    torch.manual_seed(2)
    draws = [
        evaluate(Trace_ELBO(num_particles=2000, vectorize_particles=True), *pair).loss
        for _ in range(10)
    ]
    mean, error = torch.stack(draws).mean(), torch.stack(draws).std() / 10**0.5
    assert (mean - exact).abs() < 4 * error and error < 0.1 * exact


def test_steps_on_some_tasks_find_all_sources(data):
    posterior = MeanFieldNormal({"w": (2,)}, 3, positive=["w"])

    class Guide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.posterior = posterior

        def forward(self, data):
            with pyro.plate("school", 3, dim=-2):
                sample_posterior("w", self.posterior.posterior("w"))

    def model(data):
        with pyro.plate("school", data.num_tasks, dim=-2):
            w = pyro.sample("w", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))
            x, y, mask = (
                pyro.subsample(v, event_dim=0) for v in (data.x[..., 0], data.y, data.mask)
            )
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=mask):
                pyro.sample("y", dist.Normal(w[..., 0] + w[..., 1] * x, 0.5), obs=y)

    pair = share(model, Guide(), sites=["w"], plate="school")
    fit(*pair, data, num_steps=1)
    whole = evaluate(MeanFieldELBO(num_points=8), *pair, data).terms.kl["w"].sum()
    parts = []
    for left_out in range(3):
        tasks = torch.tensor([t for t in range(3) if t != left_out])
        with some_tasks(tasks):
            terms = evaluate(MeanFieldELBO(num_points=8), *pair, data).terms
        parts.append(terms.kl["w"].sum())
    torch.testing.assert_close(torch.stack(parts).mean(), whole, rtol=1e-4, atol=1e-4)
    fit(*pair, data, num_steps=10, tasks=RandomTasks(2))


def test_a_plate_of_any_name_is_that_of_tasks(data):
    results = []
    for plate in ("task", "school"):
        model = log_normal(plate)
        pair = share(model, AutoNormal(model), sites=["w"], plate=plate)
        history = fit(*pair, data, num_steps=30).history
        assert history.kl["w"].shape[1] == 3
        tree = from_pyro_svi(*pair, data, history=history, num_samples=20)
        assert tree["posterior"]["w"].dims[2] == "task"
        results.append([history.loss, predict_moments(*pair, data)[0]])
        alone = predict_moments(*map(unwrap, pair), data)[0]
        assert alone.shape == (3, 4)
    for school, task in zip(*results, strict=True):
        assert torch.equal(school, task)


def test_what_cannot_be_pooled_is_named(data):
    model = log_normal("school")
    with pytest.raises(ValueError, match=r"inside the plates \['school'\].*share\(\.\.\., plate="):
        fit(*share(model, AutoNormal(model), sites=["w"]), data, num_steps=1)
    half = curves(dist.HalfNormal(torch.ones(2)).to_event(1))
    with pytest.raises(ValueError, match="is HalfNormal in the model, expected Normal"):
        fit(*share(half, AutoNormal(half), sites=["w"]), data, num_steps=1)
    guide = MeanFieldNormal({"w": (2,)}, 3)
    with pytest.raises(ValueError, match=r"by \['ExpTransform'\] in the model and by \[\]"):
        fit(*share(log_normal(), guide, sites=["w"]), data, num_steps=1)
    other = dist.TransformedDistribution(
        dist.Normal(torch.zeros(2), 1.0).to_event(1), [AffineTransform(1.0, 2.0), ExpTransform()]
    )
    with pytest.raises(ValueError, match=r"'AffineTransform', 'ExpTransform'.*same transforms"):
        fit(*share(curves(other), AutoNormal(curves(other)), sites=["w"]), data, num_steps=1)
