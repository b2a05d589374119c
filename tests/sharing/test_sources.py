"""The source weights: layout, densities, KL, and what relatedness tells of them."""

import copy
import inspect
import math
import pickle

import pyro.distributions as dist
import pytest
import torch
from problems import F64, classifier, many_draws
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical

from pyro_vmtl import LogarithmicPool, relatedness, share
from pyro_vmtl.inference.elbo import evaluate
from pyro_vmtl.sharing.concrete import LogConcrete
from pyro_vmtl.sharing.sources import Sources


@pytest.mark.parametrize("base", [True, False])
@pytest.mark.parametrize("least", [None, 0.0, 0.4])
def test_pool_weights_are_over_all_tasks_and_the_base(base, least):
    sources = Sources(4, None, base=base, min_base_weight=least, temperature=lambda step: 1.0)
    of_sources = torch.arange(1.0, 4 * (3 + base) + 1).reshape(4, 3 + base).softmax(-1)
    weights = sources.pool_weights(of_sources)
    assert weights.shape == (4, 5)
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    keep = {None: 0.75, 0.0: 1.0, 0.4: 0.6}[least]
    for t in range(4):
        others = [i for i in range(4) if i != t]
        assert weights[t, t] == 0
        torch.testing.assert_close(weights[t, others], keep * of_sources[t, :3])
        own_base = of_sources[t, 3] if base else torch.tensor(0.0)
        torch.testing.assert_close(weights[t, 4], keep * own_base + (1 - keep))


def test_weights_stay_on_the_simplex_at_a_low_temperature():
    sources = Sources(5, None, base=True, min_base_weight=0.0, temperature=lambda step: 0.01)
    for seed in range(20):
        torch.manual_seed(seed)
        weights = sources.draw(1000)
        assert torch.isfinite(weights).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(1000, 5))
        posterior = sources.weights_posterior(sources.logits)
        log_weights = posterior.rsample([1000])
        assert torch.isfinite(log_weights).all()
        assert torch.isfinite(posterior.log_prob(log_weights)).all()


def logistic_kl(shift, ratio=1.0):
    """KL of Logistic(shift, 1) from Logistic(0, 1 / ratio) by quadrature.

    With two sources log(a / (1 - a)) is logistic, divided by the temperature, of which ratio is
    prior to posterior; a KL does not change under such maps.
    """
    x = torch.linspace(-60, 60 + shift, 200_001, dtype=F64)

    def log_density(z):
        return -z - 2 * torch.nn.functional.softplus(-z)

    p = log_density(x - shift)
    return torch.trapezoid(p.exp() * (p - log_density(ratio * x) - math.log(ratio)), x).item()


@pytest.mark.parametrize(
    ("temperature", "prior_temperature"), [(1.0, None), (0.5, None), (0.1, None), (0.5, 2.0)]
)
@pytest.mark.parametrize("gap", [0.5, 3.0, 30.0, 200.0])
def test_kl_of_the_weights_against_quadrature(ragged, temperature, prior_temperature, gap):
    # three tasks, no base: two sources each
    model, guide = share(
        *classifier(ragged),
        sites=["w"],
        base=False,
        weights="concrete",
        temperature=temperature,
        prior_temperature=prior_temperature,
    )
    guide(ragged)
    with torch.no_grad():
        guide.state["w"].logits[:, 0] = gap
    elbo = many_draws(4000)
    torch.manual_seed(0)
    terms = evaluate(elbo, model, guide, ragged).terms
    ratio = (prior_temperature or temperature) / temperature
    exact = logistic_kl(gap, ratio)
    # a draw of the log ratio varies by about sqrt(2) * pi / sqrt(3) = 2.6 nats, and by the slope
    # of the prior's log density, ratio, in place of 1
    estimate = terms.kl["w_sources"]
    assert (estimate - exact).abs().max() < 5 * 2.6 * ratio / 4000**0.5


def test_gradient_of_the_kl_points_to_even_weights_however_far_they_are():
    logits = torch.tensor([500.0, 0.0], requires_grad=True)
    temperature = torch.tensor(0.1)
    torch.manual_seed(0)
    posterior = LogConcrete(temperature, logits=logits)
    prior = LogConcrete(temperature, logits=torch.zeros(2))
    draws = posterior.rsample([100])
    kl = (posterior.log_prob(draws) - prior.log_prob(draws)).mean()
    kl.backward()
    # logistic_kl(d) grows like d: its slope in the logits is (1, -1)
    torch.testing.assert_close(logits.grad, torch.tensor([1.0, -1.0]), rtol=0.01, atol=0.0)


@pytest.mark.parametrize("temperature", [0.1, 0.3, 1.0, 2.5])
def test_density_and_draws_are_those_of_torch(temperature):
    temperature = torch.tensor(temperature, dtype=F64)
    logits = 3 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    ours = LogConcrete(temperature, logits=logits)
    theirs = ExpRelaxedCategorical(temperature, logits=logits)
    draws = []
    for distribution in (ours, theirs):
        torch.manual_seed(0)
        draws.append(distribution.rsample([1000]))
    torch.testing.assert_close(*draws)
    torch.testing.assert_close(ours.log_prob(draws[1]), theirs.log_prob(draws[1]))
    torch.testing.assert_close(ours.logits, theirs.logits)
    expanded = ours.expand([5, 4])
    assert expanded.sample().shape == (5, 4, 3)
    torch.testing.assert_close(expanded.log_prob(draws[0][:5]), ours.log_prob(draws[0][:5]))


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_weights_are_a_relaxed_one_hot_categorical(temperature):
    torch.manual_seed(0)
    temperature = torch.tensor(temperature, dtype=F64)
    logits = torch.randn(4, 3, dtype=F64)
    weights = dist.RelaxedOneHotCategorical(temperature, logits=logits)
    draws = weights.sample([50])
    # the densities differ by the Jacobian of the logarithm
    torch.testing.assert_close(
        LogConcrete(temperature, logits=logits).log_prob(draws.log()) - draws.log().sum(-1),
        weights.log_prob(draws),
    )


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("gap", [0.0, 3.0, 30.0, 200.0])
def test_the_kl_in_float32_is_that_in_float64(temperature, gap):
    temperature = torch.tensor(temperature)
    logits = torch.tensor([gap, 0.0, gap / 2, 0.0, -gap], requires_grad=True)
    posterior = LogConcrete(temperature, logits=logits)
    prior = LogConcrete(temperature, logits=torch.zeros(5))
    torch.manual_seed(0)
    draws = posterior.rsample([4000])
    kl = (posterior.log_prob(draws) - prior.log_prob(draws)).mean()
    kl.backward()
    exact = logits.detach().double().requires_grad_()
    q = ExpRelaxedCategorical(temperature.double(), logits=exact)
    p = ExpRelaxedCategorical(temperature.double(), logits=torch.zeros(5, dtype=F64))
    torch.manual_seed(0)
    uniform = torch.rand(4000, 5).double().clamp(2.0**-23, 1 - 2.0**-23)  # the draws of float32
    values = ((exact - (-uniform.log()).log()) / temperature).log_softmax(-1)
    expected = (q.log_prob(values) - p.log_prob(values)).mean()
    expected.backward()
    # float32 rounds scores of size gap; their mean over draws is better than each of them
    torch.testing.assert_close(kl.double(), expected, rtol=1e-5, atol=1e-5 * (1 + gap))
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        lambda draws: draws[3:7],
        lambda draws: draws.clone(),
        lambda draws: draws.to(F64),
        lambda draws: pickle.loads(pickle.dumps(draws)),
        lambda draws: copy.deepcopy(draws),
        lambda draws: draws.index_select(0, torch.arange(10)),
    ],
    ids=["index", "clone", "to", "pickle", "deepcopy", "select"],
)
def test_a_copied_draw_has_the_same_density(change):
    torch.manual_seed(0)
    posterior = LogConcrete(torch.tensor(0.1), logits=10 * torch.randn(4, 3))
    draws = posterior.sample([10])
    density = posterior.log_prob(draws)
    changed = posterior.log_prob(change(draws))
    expected = density[3:7] if len(changed) == 4 else density
    torch.testing.assert_close(changed.to(density), expected)


def test_relatedness_follows_logits_and_temperature(ragged):
    _, guide = share(
        *classifier(ragged), sites=["w"], min_base_weight=0.0, weights="concrete", temperature=1.0
    )
    guide(ragged)
    sources = guide.state["w"]
    assert isinstance(sources, Sources)
    even = relatedness(guide, "w", num_samples=4000)
    assert torch.equal(even, relatedness(guide, "w", num_samples=4000))
    # flat on the simplex of three: mean 1/3, standard error 0.24 / sqrt(4000)
    of_sources = even[:, ~torch.eye(3, 4, dtype=torch.bool)]
    torch.testing.assert_close(
        of_sources.mean(0), torch.full((9,), 1 / 3, dtype=F64), rtol=0, atol=0.02
    )
    spread = of_sources.std()
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
    assert settings["base"] and settings["min_base_weight"] is None and settings["weights_prior"]
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
