"""L-BFGS finds the optimum that Adam finds, and says where it cannot be used."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.optimize
import torch
from torch import nn

from pyro_vmtl import MeanFieldELBO, TaskData, fit, share
from pyro_vmtl.data.row_batches import RandomRows
from pyro_vmtl.guides import ConjugateNormal, MeanFieldNormal
from pyro_vmtl.inference import lbfgs
from pyro_vmtl.inference.elbo import evaluate
from pyro_vmtl.models import HierarchicalNormal, LinearRegressor, LogNormalNoise, ZeroMeanNormal
from pyro_vmtl.models.task_noise import TaskNoise


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 2, generator=generator)
    slopes = torch.tensor([[1.0, -1.0], [1.2, -1.1], [0.7, -0.9]]).repeat_interleave(20, 0)
    y = (x * slopes).sum(1) + 0.3 * torch.randn(60, generator=generator)
    return TaskData.regression(x, y, [t for t in "abc" for _ in range(20)]).with_intercept()


def make_programs(data):
    prior = HierarchicalNormal([data.num_features], latent_scales=True)
    return LinearRegressor(prior, LogNormalNoise()), ConjugateNormal(data)


def test_it_reaches_the_optimum_of_adam_in_fewer_steps(data):
    pairs = make_programs(data), make_programs(data)
    quick = fit(*pairs[0], data, optimizer="lbfgs")
    slow = fit(*pairs[1], data, learning_rate=0.02, num_steps=3000)
    losses = [evaluate(MeanFieldELBO(), *pair, data).loss.item() for pair in pairs]
    assert quick.stopped == "settled"
    # both stop within about a twentieth of a nat of the optimum
    assert losses[0] < losses[1] + 0.1
    assert len(quick.history.loss) < len(slow.history.loss) / 5
    w, other = (guide.posterior("w") for _, guide in pairs)
    torch.testing.assert_close(w.mean, other.mean, rtol=0, atol=0.02)


def test_the_history_is_of_evaluations(data):
    result = fit(*make_programs(data), data, optimizer="lbfgs", num_steps=30)
    assert result.stopped == "steps"
    assert 30 <= len(result.history.loss) <= 30 + 13 * 10  # up to the end of ten iterations
    assert result.history.loss[-1] < result.history.loss[0]
    assert set(result.history.kl) == {"w", "w_mean", "w_scale", "noise_scale"}


def test_the_same_fit_gives_the_same_numbers(data):
    guides = [make_programs(data) for _ in range(2)]
    for pair in guides:
        fit(*pair, data, optimizer="lbfgs")
    assert torch.equal(*(guide.posterior("w").mean for _, guide in guides))


def test_a_fit_that_was_done_is_read(data, tmp_path):
    path = tmp_path / "fit.pt"
    first, again = make_programs(data), make_programs(data)
    done = fit(*first, data, optimizer="lbfgs", checkpoint=path)
    read = fit(*again, data, optimizer="lbfgs", checkpoint=path)
    assert torch.equal(read.history.loss, done.history.loss)
    assert torch.equal(again[1].posterior("w").mean, first[1].posterior("w").mean)


def test_a_loss_that_depends_on_draws_is_refused(data):
    model = LinearRegressor(ZeroMeanNormal([3]), TaskNoise(3))
    with pytest.raises(ValueError, match=r"two losses at the same parameters .*optimizer='adam'"):
        fit(model, MeanFieldNormal({"w": (3,)}, 3), data, optimizer="lbfgs")


@pytest.mark.parametrize(
    "settings", [{"optimizer": "sgd"}, {"optimizer": "lbfgs", "batches": RandomRows(5)}]
)
def test_settings_that_do_not_go_together_are_refused(data, settings):
    with pytest.raises(ValueError, match="expected 'adam', or 'lbfgs' with all rows"):
        fit(*make_programs(data), data, **settings)


def test_a_fit_starts_at_another(data):
    """The first loss is the last of the other fit, and parameters of other shapes start anew."""
    first, again = make_programs(data), make_programs(data)
    done = fit(*first, data, optimizer="lbfgs")
    more = fit(*again, data, optimizer="lbfgs", start=first)
    best = done.history.loss.min().item()
    assert more.history.loss[0].item() == pytest.approx(
        best, abs=0.05
    )  # the last may be of a line search
    assert len(more.history.loss) < len(done.history.loss)
    wide = TaskData.regression(data.x[data.mask].repeat(1, 2), data.unpad(data.y), list("abc") * 20)
    other, same = make_programs(wide), make_programs(wide)
    losses = [
        fit(*pair, wide, optimizer="lbfgs", num_steps=20, **start).history.loss[0]
        for pair, start in ((other, {}), (same, {"start": first}))
    ]
    assert math.isfinite(losses[1]) and losses[1] != losses[0]  # noise is of the same shape


def test_a_start_keeps_the_source_weights():
    """What is known of groups is not found anew, under Adam neither."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 2, generator=generator)
    slope = torch.tensor([[3.0, 0.0], [3.0, 0.0], [0.0, -3.0], [0.0, -3.0]]).repeat_interleave(
        20, 0
    )
    y = (x * slope).sum(1) + 0.1 * torch.randn(80, generator=generator)
    rows = TaskData.regression(x, y, [t for t in range(4) for _ in range(20)])

    def programs():
        model = LinearRegressor(ZeroMeanNormal([2]), LogNormalNoise())
        guide = MeanFieldNormal.for_model(model, rows)
        return share(model, guide, sites=["w"], transfer="dimension")

    points = MeanFieldELBO(num_points=4)
    first = programs()
    fit(*first, rows, elbo=points, optimizer="lbfgs")
    (logits,) = (v for name, v in first[1].named_parameters() if name.endswith("logits"))
    for settings in ({"optimizer": "lbfgs"}, {"learning_rate": 1e-9}):
        pair = programs()
        fit(*pair, rows, elbo=points, num_steps=1, start=first, **settings)
        (same,) = (v for name, v in pair[1].named_parameters() if name.endswith("logits"))
        # ten iterations of L-BFGS move them a little; a start from the nearest sources would by 8
        torch.testing.assert_close(same, logits, rtol=0, atol=0.5)


class Points(nn.Module):
    """A point for each site, so that the loss is minus the log density of the model."""

    def __init__(self, **values):
        super().__init__()
        self.values = nn.ParameterDict({site: nn.Parameter(v) for site, v in values.items()})

    def forward(self, *args):
        for site, value in self.values.items():
            pyro.sample(site, dist.Delta(value).to_event(1))


def test_tensors_of_other_scales_are_fitted_in_a_few_evaluations():
    """Two normals, of standard deviations 0.001 and 0.5: curvatures of a million and of 4."""
    mean = torch.linspace(-1, 1, 6)
    scale = {"a": torch.tensor(0.001), "b": torch.tensor(0.5)}

    def model():
        for site, std in scale.items():
            pyro.sample(site, dist.Normal(mean, std).to_event(1))

    guide = Points(a=mean + 0.3, b=torch.zeros(6))
    result = fit(model, guide, optimizer="lbfgs")
    # in units of their own 27 evaluations, in common ones 39
    assert len(result.history.loss) <= 30
    for site, value in guide.values.items():
        # what is left is rounding of the sixth digit
        assert (0.5 * ((value - mean) / scale[site]) ** 2).sum() < 1e-5


def test_it_finds_the_optimum_that_scipy_finds():
    """Logistic regression with features of scales from 0.1 to 10 in one tensor."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 6)) * np.geomspace(0.1, 10, 6)
    y = (rng.random(80) < 0.7).astype(float)

    def loss(w):
        logits = x @ w
        return np.logaddexp(0, logits).sum() - y @ logits + 0.5 * w @ w

    def model():
        w = pyro.sample("w", dist.Normal(torch.zeros(6), 1.0).to_event(1))
        with pyro.plate("data", 80):
            logits = torch.as_tensor(x, dtype=torch.float32) @ w
            targets = torch.as_tensor(y, dtype=torch.float32)
            pyro.sample("y", dist.Bernoulli(logits=logits), obs=targets)

    guide = Points(w=torch.full((6,), 2.0))
    result = fit(model, guide, optimizer="lbfgs")
    assert result.stopped == "settled"
    best = scipy.optimize.minimize(loss, np.zeros(6), tol=1e-10).fun
    assert loss(guide.values["w"].detach().double().numpy()) < best + 1e-3


def test_steps_into_places_without_a_loss_are_shortened():
    """The loss is x - log(x), with its minimum at 1, and nan below 0."""

    def model():
        pyro.sample("x", dist.Gamma(torch.full((1,), 2.0), 1.0).to_event(1))

    guide = Points(x=torch.tensor([0.01]))
    result = fit(model, guide, optimizer="lbfgs")
    assert result.stopped == "settled"
    assert guide.values["x"].item() == pytest.approx(1.0, abs=0.05)  # 0.001 nats


class _TurnedRound(torch.autograd.Function):
    """The identity, with a gradient that points the wrong way."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


def test_a_gradient_that_does_not_fit_the_loss_is_told():
    y = torch.full((50,), 9.0)

    def model(y):
        w = pyro.sample("w", dist.Normal(torch.tensor(0.0), 10.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(_TurnedRound.apply(w), 1.0), obs=y)

    guide = pyro.infer.autoguide.AutoNormal(model)
    with pytest.warns(UserWarning, match="promises some .* nats.*double precision"):
        fit(model, guide, y, elbo=MeanFieldELBO(num_points=4), optimizer="lbfgs", num_steps=100)


@pytest.mark.filterwarnings("ignore:No lower loss")
def test_a_line_search_that_fails_starts_anew(data, monkeypatch):
    """Every fourth line finds nothing lower: the end is the same."""
    pairs = make_programs(data), make_programs(data)
    fit(*pairs[0], data, optimizer="lbfgs")
    search, lines = lbfgs._search_line, []

    def fail(loss_of, start, *args):
        lines.append(start)
        return start if len(lines) % 4 == 0 else (yield from search(loss_of, start, *args))

    monkeypatch.setattr(lbfgs, "_search_line", fail)
    fit(*pairs[1], data, optimizer="lbfgs")
    assert len(lines) > 8
    losses = [evaluate(MeanFieldELBO(), *pair, data).loss.item() for pair in pairs]
    assert losses[1] == pytest.approx(losses[0], abs=0.2)


def test_a_cubic_is_least_where_its_slope_is_0():
    """The loss (t + 1) (t - 2)^2 is least at 2; from steps between which it is not, the bounds."""

    def at(t):
        return lbfgs._OfLine(t, (t + 1) * (t - 2) ** 2, (t - 2) ** 2 + 2 * (t + 1) * (t - 2))

    assert at(0.5).before(at(3.0)) == pytest.approx(2.0)
    assert at(1.9).before(at(5.0)) == pytest.approx(1.9 + 0.1 * 3.1)
    assert at(0.5).before(lbfgs._OfLine(1.5, math.inf, 0.0)) == pytest.approx(0.6)
    line = [lbfgs._OfLine(t, -t, -1.0) for t in (0.0, 1.0)]  # rounding can make it too long
    assert line[0].before(line[1]) == pytest.approx(0.5)


def test_directions_are_those_of_the_hessian():
    """After exact steps along all axes of a quadratic, the direction is Newton's."""
    torch.manual_seed(0)
    root = torch.randn(4, 4, dtype=torch.float64)
    hessian = root @ root.T + torch.eye(4)
    memory = lbfgs._Memory()
    axes = torch.linalg.eigh(hessian).eigenvectors.T
    for axis in axes:
        memory.add(axis, hessian @ axis)
    gradient = torch.randn(4, dtype=torch.float64)
    expected = -torch.linalg.solve(hessian, gradient)
    torch.testing.assert_close(memory.newton_step(gradient), expected)
    memory.add(axes[0], -axes[0])  # not convex: forgotten
    torch.testing.assert_close(memory.newton_step(gradient), expected)


def test_recorded_evaluations_are_those_of_the_programs(data, monkeypatch):
    pairs = make_programs(data), make_programs(data)
    recorded = fit(*pairs[0], data, optimizer="lbfgs", num_steps=20)
    monkeypatch.setattr(lbfgs, "RECORD_AFTER", math.inf)
    run = fit(*pairs[1], data, optimizer="lbfgs", num_steps=20)
    assert torch.equal(recorded.history.loss, run.history.loss)
