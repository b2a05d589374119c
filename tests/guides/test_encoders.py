"""Encoders, amortised coefficients and latent models against plain formulas."""

from dataclasses import replace

import pyro.distributions as dist
import pytest
import torch
from problems import F64
from pyro import poutine

from pyro_vmtl import MeanFieldELBO, RandomRows, TaskData, attend, share
from pyro_vmtl.data.plates import scaled_rows
from pyro_vmtl.guides import (
    AmortizedNormal,
    ConcatenatedEncoders,
    EncodedNormal,
    LinearEncoder,
    MeanFieldNormal,
    MLPEncoder,
)
from pyro_vmtl.guides.paper.amortized import class_means, target_weighted_mean
from pyro_vmtl.models import LatentClassifier, LatentRegressor, StandardNormal, TaskNoise
from pyro_vmtl.sharing.messengers import recorded_sources


def randomized(encoder):
    """The encoder in float64 with random numbers everywhere."""
    encoder = encoder.double()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.normal_(mean=-1.0 if "raw" in name else 0.0)
    return encoder


def test_local_reparameterisation_is_the_law_of_random_weights():
    torch.manual_seed(0)
    encoder = randomized(LinearEncoder(3, 2))
    x = torch.randn(4, 3, dtype=F64)
    num = 100_000
    W = encoder.loc + encoder.raw_scale.exp() * torch.randn(num, 3, 2, dtype=F64)
    b = encoder.bias_loc + encoder.raw_bias_scale.exp() * torch.randn(num, 1, 2, dtype=F64)
    z = x @ W + b
    posterior = encoder(x)
    # 5 standard errors of means and of variances of normal draws
    torch.testing.assert_close(
        z.mean(0), posterior.mean, rtol=0, atol=5 * (posterior.variance.max() / num).sqrt().item()
    )
    torch.testing.assert_close(z.var(0), posterior.variance, rtol=5 * (2 / num) ** 0.5, atol=0)


def test_an_encoder_for_each_task_is_that_many_encoders(ragged):
    torch.manual_seed(0)
    many = randomized(LinearEncoder(3, 2, num_tasks=3))
    both = many(ragged.x)
    for t in range(3):
        one = LinearEncoder(3, 2).double()
        with torch.no_grad():
            for name, parameter in one.named_parameters():
                parameter.copy_(many.get_parameter(name)[t])
        torch.testing.assert_close(one(ragged.x[t]).mean, both.mean[t])
        torch.testing.assert_close(one(ragged.x[t]).stddev, both.stddev[t])


def test_layers_before_the_last_and_dropout():
    torch.manual_seed(0)
    encoder = randomized(MLPEncoder(3, 2, hidden=[5, 4], dropout=0.5))
    x = torch.randn(6, 3, dtype=F64)
    first, second = (layer for layer in encoder.layers if isinstance(layer, torch.nn.Linear))
    elu = torch.nn.functional.elu
    encoder.eval()
    hidden = elu(second(elu(first(x))))
    torch.testing.assert_close(encoder(x).mean, hidden @ encoder.last.loc + encoder.last.bias_loc)
    torch.testing.assert_close(encoder(x).mean, encoder(x).mean)
    encoder.train()
    assert not torch.equal(encoder(x).mean, encoder(x).mean)


def test_encoders_side_by_side():
    one, two = randomized(LinearEncoder(3, 2)), randomized(LinearEncoder(3, 1))
    x = torch.randn(5, 3, dtype=F64)
    both = ConcatenatedEncoders(one, two)(x)
    torch.testing.assert_close(both.mean[:, :2], one(x).mean)
    torch.testing.assert_close(both.stddev[:, 2:], two(x).stddev)


def test_class_means_row_by_row(ragged):
    means = class_means(ragged)
    rows = [(t, n) for t in range(3) for n in range(5) if ragged.mask[t, n]]
    missing = 0
    for t in range(3):
        for c in range(3):
            own = [ragged.x[s, n] for s, n in rows if s == t and ragged.y[s, n] == c]
            missing += not own
            chosen = own or [ragged.x[s, n] for s, n in rows if ragged.y[s, n] == c]
            torch.testing.assert_close(means[t, c], sum(chosen) / len(chosen))
    assert missing  # the case of a class that a task does not have was among them
    with pytest.raises(ValueError, match="Class 'owl' has no training row"):
        class_means(TaskData.classification([[1.0]], ["cat"], ["a"], classes=["cat", "owl"]))


def test_target_weighted_mean_row_by_row(ragged):
    data = replace(ragged, y=torch.randn(3, 5, dtype=F64), classes=None)
    for t in range(3):
        rows = [data.y[t, n] * data.x[t, n] for n in range(5) if data.mask[t, n]]
        torch.testing.assert_close(target_weighted_mean(data)[t], sum(rows) / len(rows))


@pytest.mark.parametrize("bias", [False, True])
def test_latent_models_row_by_row(ragged, bias):
    torch.manual_seed(0)
    size = 2
    z = torch.randn(3, 5, size, dtype=F64)
    w = torch.randn(3, 1, 3, size + bias, dtype=F64)
    model = LatentClassifier(StandardNormal([3, size + bias]).double(), size)

    def log_prob(model, data, **values):
        trace = poutine.trace(poutine.condition(model, values)).get_trace(data)
        trace.compute_log_prob()
        return {name: trace.nodes[name]["log_prob_sum"] for name in ("w", "z", "y")}

    found = log_prob(model, ragged, w=w, z=z)
    expected = 0.0
    rows = ragged.mask.nonzero().tolist()
    for t, n in rows:
        logits = w[t, 0, :, :size] @ z[t, n] + (w[t, 0, :, size] if bias else 0)
        expected += logits.log_softmax(-1)[ragged.y[t, n]]
    torch.testing.assert_close(found["y"], expected)
    real = torch.stack([z[t, n] for t, n in rows])
    torch.testing.assert_close(found["z"], dist.Normal(0, 1.0).log_prob(real).sum())
    torch.testing.assert_close(found["w"], dist.Normal(0, 1.0).log_prob(w).sum())

    data = replace(ragged, y=torch.randn(3, 5, dtype=F64), classes=None)
    v = torch.randn(3, 1, size + bias, dtype=F64)
    model = LatentRegressor(StandardNormal([size + bias]).double(), size, TaskNoise(3)).double()
    with torch.no_grad():
        model.noise.raw_noise_scale.copy_(torch.tensor([[-1.0], [0.0], [1.0]]))
    found = log_prob(model, data, w=v, z=z)
    expected = sum(
        dist.Normal(
            v[t, 0, :size] @ z[t, n] + (v[t, 0, size] if bias else 0), torch.tensor(t - 1.0).exp()
        ).log_prob(data.y[t, n])
        for t, n in rows
    )
    torch.testing.assert_close(found["y"], expected)


def test_guides_have_the_shapes_of_their_sites(ragged):
    torch.manual_seed(0)
    encoder = LinearEncoder(3, 2).double()
    guide = EncodedNormal(encoder, AmortizedNormal(LinearEncoder(3, 2).double(), ragged))
    trace = poutine.trace(guide).get_trace(ragged)
    assert trace.nodes["w"]["value"].shape == (3, 1, 3, 2)
    assert trace.nodes["z"]["value"].shape == (3, 5, 2)
    torch.testing.assert_close(trace.nodes["z"]["fn"].mean, encoder(ragged.x).mean)
    regression = replace(ragged, y=ragged.y.double(), classes=None)
    alone = AmortizedNormal(LinearEncoder(3, 4).double(), regression)
    assert poutine.trace(alone).get_trace().nodes["w"]["value"].shape == (3, 1, 4)


def latent(data, sharing=None, **settings):
    guide = EncodedNormal(
        LinearEncoder(3, 2, **settings).double(), MeanFieldNormal({"w": (3, 2)}, 3).double()
    )
    model = LatentClassifier(StandardNormal([3, 2]).double(), 2)
    return share(model, guide, sites=["z"], **(sharing or {}))


def test_the_prior_of_z_pools_encoded_counterparts(ragged):
    model, guide = latent(ragged)
    data = attend(ragged)
    guide_trace = poutine.trace(guide).get_trace(data)
    trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(data)
    pool = trace.nodes["z"]["fn"]
    encoder = guide.program.encoder
    for t in range(3):
        for n in range(5):
            if data.mask[t, n]:
                expected = encoder(data.attended.x[data.row[t, n]])
                torch.testing.assert_close(pool.sources.mean[t, n], expected.mean)
                torch.testing.assert_close(pool.sources.stddev[t, n], expected.stddev)


@pytest.mark.parametrize("detach", [False, True])
def test_detached_sources_of_rows_have_no_gradient(ragged, detach):
    _, guide = latent(ragged, {"detach_sources": detach})
    normal = recorded_sources(poutine.trace(guide).get_trace(attend(ragged)), "z").normal
    assert normal.mean.requires_grad is not detach
    assert normal.stddev.requires_grad is not detach


@pytest.mark.parametrize(
    ("transfer", "shape"), [("source", (3, 1, 1)), ("dimension", (1, 1, 2)), (None, None)]
)
def test_the_transfer_scale_of_z_is_the_same_for_all_rows(ragged, transfer, shape):
    model, guide = latent(ragged, {"transfer": transfer})
    data = attend(ragged)
    guide(data)
    scale = guide.state["z"].transfer_scale
    assert scale is None if shape is None else scale.shape == shape
    batch, weight = RandomRows(2)(data)  # another number of rows
    with scaled_rows(weight):
        assert MeanFieldELBO().loss(model, guide, batch) > 0


def test_rows_to_predict_keep_the_plain_prior_of_z(ragged):
    model, guide = latent(ragged)
    guide(attend(ragged))
    new = ragged.new_rows(torch.zeros(2, 3), ["a", "b"])
    guide.eval()
    guide_trace = poutine.trace(guide).get_trace(new)
    trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(new)
    assert "z_sources" in trace.nodes
    assert isinstance(trace.nodes["z"]["fn"].base_dist, torch.distributions.Normal)


def test_sharing_z_without_counterparts_or_a_shared_encoder_is_refused(ragged):
    _, guide = latent(ragged)
    with pytest.raises(ValueError, match=r"attend\(data\)"):
        guide(ragged)
    _, guide = latent(ragged, num_tasks=3)
    with pytest.raises(ValueError, match="encoder of its own"):
        guide(attend(ragged))
