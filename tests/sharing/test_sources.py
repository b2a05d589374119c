"""The source weights: layout, densities, KL, and what relatedness tells of them."""

import inspect

import pyro.distributions as dist
import pytest
import torch
from problems import F64, classifier, many_draws

from pyro_vmtl import LogarithmicPool, relatedness, share
from pyro_vmtl.inference.elbo import elbo_terms, kept_traces
from pyro_vmtl.sharing.concrete import SourceWeights
from pyro_vmtl.sharing.sources import Sources


@pytest.mark.parametrize("base", [True, False])
@pytest.mark.parametrize("anchor", [True, False])
def test_pool_weights_lay_candidates_out(base, anchor):
    sources = Sources(4, None, base=base, anchor=anchor, temperature=lambda step: 1.0)
    candidates = torch.arange(1.0, 4 * (3 + base) + 1).reshape(4, 3 + base).softmax(-1)
    weights = sources.pool_weights(candidates)
    assert weights.shape == (4, 5)
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    keep = 0.75 if anchor else 1.0
    for t in range(4):
        others = [i for i in range(4) if i != t]
        assert weights[t, t] == 0
        torch.testing.assert_close(weights[t, others], keep * candidates[t, :3])
        own_base = candidates[t, 3] if base else torch.tensor(0.0)
        torch.testing.assert_close(weights[t, 4], keep * own_base + (1 - keep))


def test_weights_never_leave_the_simplex_at_low_temperature():
    sources = Sources(5, None, base=True, anchor=False, temperature=lambda step: 0.01)
    for seed in range(20):
        torch.manual_seed(seed)
        weights = sources.draw(1000)
        assert torch.isfinite(weights).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(1000, 5))
        posterior = SourceWeights(sources.temperature, logits=sources.logits)
        candidates = posterior.rsample([1000])
        assert candidates.min() > 0
        assert torch.isfinite(posterior.log_prob(candidates)).all()


def logistic_kl(shift):
    """KL of Logistic(shift, 1) from Logistic(0, 1) by quadrature.

    With two candidates log(a / (1 - a)) is logistic, scaled by the temperature; a KL does not
    change under such maps.
    """
    x = torch.linspace(-60, 60 + shift, 200_001, dtype=F64)

    def log_density(z):
        return -z - 2 * torch.nn.functional.softplus(-z)

    p = log_density(x - shift)
    return torch.trapezoid(p.exp() * (p - log_density(x)), x).item()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("gap", [0.5, 3.0, 30.0, 200.0])
def test_kl_of_the_weights_against_quadrature(ragged, temperature, gap):
    # three tasks, no base: two candidates each
    model, guide = share(*classifier(ragged), sites=["w"], base=False, temperature=temperature)
    guide(ragged)
    with torch.no_grad():
        guide.state["w"].logits[:, 0] = gap
    elbo = many_draws(4000)
    torch.manual_seed(0)
    with kept_traces(elbo) as traces:
        elbo.loss(model, guide, ragged)
    exact = logistic_kl(gap)
    # a draw of the log ratio varies by about sqrt(2) * pi / sqrt(3) = 2.6 nats
    estimate = elbo_terms(elbo, traces).kl["w_sources"]
    assert (estimate - exact).abs().max() < 5 * 2.6 / 4000**0.5


def test_gradient_of_the_kl_points_to_even_weights_however_far_they_are():
    logits = torch.tensor([500.0, 0.0], requires_grad=True)
    temperature = torch.tensor(0.1)
    torch.manual_seed(0)
    posterior = SourceWeights(temperature, logits=logits)
    prior = SourceWeights(temperature, logits=torch.zeros(2))
    draws = posterior.rsample([100])
    kl = (posterior.log_prob(draws) - prior.log_prob(draws)).mean()
    kl.backward()
    # logistic_kl(d) grows like d: its slope in the logits is (1, -1)
    torch.testing.assert_close(logits.grad, torch.tensor([1.0, -1.0]), rtol=0.01, atol=0.0)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_density_and_draws_are_those_of_pyro(temperature):
    torch.manual_seed(0)
    temperature = torch.tensor(temperature, dtype=F64)
    logits = torch.randn(4, 3, dtype=F64)
    ours = SourceWeights(temperature, logits=logits)
    theirs = dist.RelaxedOneHotCategorical(temperature, logits=logits)
    draws = theirs.sample([50_000])
    torch.testing.assert_close(ours.log_prob(draws), theirs.log_prob(draws))
    # means of 50,000 numbers between 0 and 1
    assert (ours.sample([50_000]).mean(0) - draws.mean(0)).abs().max() < 5 * 0.5 * (
        2 / 50_000
    ) ** 0.5


def test_density_of_given_weights_is_that_of_drawn_ones():
    torch.manual_seed(0)
    posterior = SourceWeights(torch.tensor(0.7, dtype=F64), logits=torch.randn(4, 3, dtype=F64))
    draws = posterior.rsample([5])
    torch.testing.assert_close(posterior.log_prob(draws), posterior.log_prob(draws.clone()))


def test_relatedness_follows_logits_and_temperature(ragged):
    _, guide = share(*classifier(ragged), sites=["w"], anchor=False, temperature=1.0)
    guide(ragged)
    sources = guide.state["w"]
    assert isinstance(sources, Sources)
    even = relatedness(guide, "w", num_samples=4000)
    assert torch.equal(even, relatedness(guide, "w", num_samples=4000))
    # flat on the simplex of three: mean 1/3, standard error 0.24 / sqrt(4000)
    candidates = even[:, ~torch.eye(3, 4, dtype=torch.bool)]
    torch.testing.assert_close(
        candidates.mean(0), torch.full((9,), 1 / 3, dtype=F64), rtol=0, atol=0.02
    )
    spread = candidates.std()
    with torch.no_grad():
        sources.temperature.fill_(20.0)
    assert relatedness(guide, "w")[:, 0, 1].std() < 0.2 * spread  # hot weights are all alike
    with torch.no_grad():
        sources.temperature.fill_(1.0)
        sources.logits[:, -1] = 50.0
    assert relatedness(guide, "w")[..., -1].min() > 0.99


@pytest.mark.parametrize(
    ("transfer", "shape"), [(None, None), ("source", (3, 1, 1, 1)), ("dimension", (1, 1, 3, 3))]
)
def test_transfer_scales_are_per_source_or_per_dimension(ragged, transfer, shape):
    _, guide = share(*classifier(ragged), sites=["w"], transfer=transfer)
    guide(ragged)
    scale = guide.state["w"].transfer_scale
    assert scale is None if shape is None else scale.shape == shape
    if scale is not None:
        torch.testing.assert_close(scale, torch.full_like(scale, 0.1), rtol=1e-5, atol=0)


def test_the_defaults_are_those_that_the_readme_measured():
    settings = {name: p.default for name, p in inspect.signature(share).parameters.items()}
    assert settings["pool"] is LogarithmicPool
    assert settings["base"] and settings["anchor"] and settings["weights_prior"]
    assert settings["transfer"] == "source" and not settings["detach_sources"]
    assert [settings["temperature"](step) for step in (0, 500, 5000)] == [1.0, 0.5, 0.5]


@pytest.mark.parametrize("name", ["values", "items", "pop", "net.weight", "a/b"])
def test_any_name_of_a_site_will_do(name):
    import pyro
    import pyro.distributions as dist

    def program():
        with pyro.plate("task", 2):
            return pyro.sample(name, dist.Normal(torch.zeros(2), 1.0))

    _, guide = share(program, program, sites=[name])
    guide()
    assert relatedness(guide, name, num_samples=3).shape == (3, 2, 3)
