"""The ``official`` and ``paper`` presets against independent plain-torch versions."""

from dataclasses import replace

import pytest
import torch
from problems import F64, normal_kl, normal_log_density, plain_mean, randomize_sources

from pyro_vmtl import BalancedRows, MeanFieldELBO, TaskData, attend
from pyro_vmtl.data.plates import scaled_rows
from pyro_vmtl.guides.paper.amortized import class_means
from pyro_vmtl.inference.elbo import evaluate
from pyro_vmtl.methods.presets import OFFICIAL, OFFICIAL_AC, PAPER

T, C, F, D = 3, 2, 5, 4


@pytest.fixture
def data():
    """Three tasks with two classes of 1 to 4 rows."""
    generator = torch.Generator().manual_seed(0)
    counts = {("a", 0): 3, ("a", 1): 1, ("b", 0): 2, ("b", 1): 4, ("c", 0): 1, ("c", 1): 2}
    tasks, y = zip(*[key for key, count in counts.items() for _ in range(count)], strict=True)
    X = torch.randn(len(y), F, generator=generator, dtype=F64)
    return TaskData.classification(X, y, tasks)


def trial(preset, data, **changes):
    """One evaluation of a small version of a preset: loss, batch, draws and the guide."""
    preset = replace(preset, latent_size=D, dropout=0.0, **changes)
    torch.manual_seed(1)
    model, guide = (p.double() for p in preset.programs(data))
    data = attend(data)
    torch.manual_seed(2)
    batches = preset.fitting["batches"]
    batch, weight = batches(data)
    guide(batch)
    randomize_sources(guide)
    elbo = MeanFieldELBO(preset.num_particles, num_draws=preset.num_draws)
    with scaled_rows(weight):
        loss, _, [(_, guide_trace)] = evaluate(elbo, model, guide, batch)
    draws = {name: node["value"] for name, node in guide_trace.nodes.items() if "value" in node}
    return loss.item(), data, batch, draws, guide


def inner(guide):
    """The encoder's guide inside of the handlers."""
    while hasattr(guide, "program"):
        guide = guide.program
    return guide


def linear(encoder, x):
    """Mean and variance of the Bayesian linear layer."""
    mean = x @ encoder.loc + encoder.bias_loc[0]
    var = x**2 @ encoder.raw_scale.exp() ** 2 + encoder.raw_bias_scale[0].exp() ** 2
    return mean, var


def encode(encoder, x):
    """The same, with the layers before it where there are any."""
    if hasattr(encoder, "last"):
        for layer in encoder.layers:
            if isinstance(layer, torch.nn.Linear):
                h = x @ layer.weight.T + layer.bias
                x = torch.where(h > 0, h, h.exp() - 1)
        encoder = encoder.last
    return linear(encoder, x)


def counterpart(data, x, label, task):
    """The authors' attention: within the class, over the training rows of another task."""
    rows = data.mask[task] & (data.y[task] == label)
    return plain_mean(x, list(data.x[task][rows]))


def posterior_of_w(guide, data):
    """Means and variances of every task's coefficients, (T, C, D)."""
    w = guide.others
    if hasattr(w, "locs"):
        return w.locs["w"][:, 0], w.raw_scales["w"][:, 0].exp() ** 2
    parts = [encode(encoder, class_means(data)) for encoder in w.encoder.encoders]
    return tuple(torch.cat(part, dim=-1) for part in zip(*parts, strict=True))


@pytest.mark.parametrize(
    ("preset", "bias"), [(OFFICIAL, False), (replace(OFFICIAL_AC, hidden=(6, 6)), True)]
)
def test_what_the_authors_code_computes(data, preset, bias):
    beta, eta = 0.3, 0.2
    loss, data, batch, draws, guide = trial(preset, data, kl_weights={"w": beta, "z": eta})
    assert preset.fitting["batches"] == BalancedRows(4)
    guide = inner(guide)
    w, z = draws["w"][:, :, 0], draws["z"]
    assert w.shape == (10, T, C, D + bias) and z.shape == (10, T, 8, D)
    alpha = {
        site: draws[f"{site}_sources"].exp().reshape(T, T - 1) for site in ("w", "z")
    }  # one draw
    w_loc, w_var = posterior_of_w(guide, data)
    expected = 0.0
    for t in range(T):
        others = [i for i in range(T) if i != t]
        cross_entropy = kl_z = 0.0
        for n in range(8):
            x, label = batch.x[t, n], batch.y[t, n]
            for s in range(10):
                logits = w[s, t, :, :D] @ z[s, t, n] + (w[s, t, :, D] if bias else 0.0)
                cross_entropy -= logits.log_softmax(-1)[label] / 10
            prior = [encode(guide.encoder, counterpart(data, x, label, i)) for i in others]
            loc = sum(a * m for a, (m, _) in zip(alpha["z"][t], prior, strict=True))
            var = sum(a**2 * v for a, (_, v) in zip(alpha["z"][t], prior, strict=True))
            kl_z += normal_kl(*encode(guide.encoder, x), loc, var)
        loc = sum(a * w_loc[i] for a, i in zip(alpha["w"][t], others, strict=True))
        var = sum(a**2 * w_var[i] for a, i in zip(alpha["w"][t], others, strict=True))
        kl_w = normal_kl(w_loc[t], w_var[t], loc, var).sum()
        expected += cross_entropy / 8 + beta * kl_w + eta * kl_z / 8
    # the issue asks for 1e-5; float64 gives more
    assert loss == pytest.approx(expected.item(), rel=1e-9)


def test_the_paper_s_equations_at_w_and_z(data):
    preset = replace(PAPER, fitting={"batches": lambda rows: (rows, None)})
    loss, data, batch, draws, guide = trial(preset, data, bias=False)
    guide = inner(guide)
    w, z = draws["w"][:, 0], draws["z"]
    alpha = {site: draws[f"{site}_sources"].exp().reshape(T, T - 1) for site in ("w", "z")}
    w_loc, w_var = (v.reshape(T, -1) for v in posterior_of_w(guide, data))

    def mixture(value, weights, components):
        return sum(
            a * normal_log_density(value, m, v).exp()
            for a, (m, v) in zip(weights, components, strict=True)
        ).log()

    expected = 0.0
    for t in range(T):
        others = [i for i in range(T) if i != t]
        flat = w[t].reshape(-1)
        expected += normal_log_density(flat, w_loc[t], w_var[t])
        expected -= mixture(flat, alpha["w"][t], [(w_loc[i], w_var[i]) for i in others])
        for n in range(batch.num_rows):
            if not batch.mask[t, n]:
                continue
            x, label = batch.x[t, n], batch.y[t, n]
            expected -= (w[t] @ z[t, n]).log_softmax(-1)[label]
            expected += normal_log_density(z[t, n], *encode(guide.encoder, x))
            prior = [encode(guide.encoder, counterpart(data, x, label, i)) for i in others]
            expected -= mixture(z[t, n], alpha["z"][t], prior)
    assert loss == pytest.approx(expected.item(), rel=1e-9)
