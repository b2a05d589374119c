"""L-BFGS finds the optimum that Adam finds, and says where it cannot be used."""

import math

import pytest
import torch

from pyro_vmtl import MeanFieldELBO, TaskData, fit, share
from pyro_vmtl.data.row_batches import RandomRows
from pyro_vmtl.guides import ConjugateNormal, MeanFieldNormal
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
    rows = TaskData.regression(x, (x * slope).sum(1), [t for t in range(4) for _ in range(20)])

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
