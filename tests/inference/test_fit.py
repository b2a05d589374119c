"""Fitting: repeatable, isolated, honest about what happened."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from problems import classifier
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal

from pyro_vmtl import MeanFieldELBO, NonFiniteLossError, TaskData, fit, share, temper
from pyro_vmtl.handlers.isolation import validation
from pyro_vmtl.inference.course import COOL_DOWN, _settled
from pyro_vmtl.inference.elbo import evaluate


def shared(data, **settings):
    return share(*classifier(data), sites=["w"], **settings)


def learned(guide):
    return torch.cat([p.detach().flatten() for p in guide.parameters()])


def test_a_seed_gives_the_same_result_twice(ragged):
    runs = []
    for seed in (1, 1, 2):
        model, guide = shared(ragged)
        result = fit(model, guide, ragged, num_steps=30, seed=seed)
        runs.append((result.history.loss, learned(guide)))
    assert torch.equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][0], runs[2][0])


@pytest.mark.parametrize("validate", [True, False])
def test_nothing_global_is_changed(ragged, validate):
    pyro.param("mine", torch.tensor(1.0))
    with validation(validate):
        torch.distributions.Distribution.set_default_validate_args(False)
        before = torch.random.get_rng_state(), pyro.settings.get()
        model, _ = classifier(ragged)
        torch.random.set_rng_state(before[0])
        fit(*share(model, AutoNormal(model), sites=["w"]), ragged, num_steps=5)
        assert torch.equal(torch.random.get_rng_state(), before[0])
        assert pyro.settings.get() == before[1]
        assert torch.distributions.Distribution._validate_args is False
    assert list(pyro.get_param_store()) == ["mine"]


def test_validation_is_on_for_the_first_step_only(ragged):
    seen = []

    def model(data):
        seen.append(pyro.settings.get("validate_distributions_pyro"))
        return classifier(data)[0](data)

    guide = classifier(ragged)[1]
    fit(model, guide, ragged, num_steps=4)
    assert seen[-3:] == [False, False, False] and all(seen[:-3])


def test_two_fits_in_one_process_do_not_touch_each_other(ragged):
    from pyro_vmtl import predict_proba

    model = classifier(ragged)[0]
    pairs = [share(model, AutoNormal(model), sites=["w"]) for _ in range(2)]
    alone = []
    for seed, pair in enumerate(pairs):
        fit(*pair, ragged, num_steps=20, seed=seed)
        alone.append((learned(pair[1]), predict_proba(*pair, ragged)))
    for (numbers, proba), pair in zip(alone, pairs, strict=True):
        assert torch.equal(learned(pair[1]), numbers)
        assert torch.equal(predict_proba(*pair, ragged), proba)
    assert not torch.allclose(alone[0][0], alone[1][0])


@pytest.mark.parametrize("elbo_class", [TraceMeanField_ELBO, Trace_ELBO])
@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("vectorize", [True, False])
def test_the_history_adds_up_to_the_loss(ragged, elbo_class, particles, vectorize):
    elbo = elbo_class(num_particles=particles, vectorize_particles=vectorize)
    model, guide = temper(*shared(ragged), kl_weights={"w": 0.3})
    history = fit(model, guide, ragged, elbo=elbo, num_steps=25).history
    assert history.loss.shape == (25,)
    assert history.step.tolist() == [0, 10, 20, 24]
    assert history.log_likelihood["y"].shape == (4, 3)
    assert history.kl["w"].shape == history.kl["w_sources"].shape == (4, 3)
    total = sum(v.sum(1) for v in history.kl.values()) - history.log_likelihood["y"].sum(1)
    torch.testing.assert_close(total, history.loss[history.step].double(), rtol=1e-6, atol=1e-5)


def test_an_autoguide_s_entropy_is_counted_at_its_site():
    def model():
        with pyro.plate("task", 3):
            pyro.deterministic("d", pyro.sample("w", dist.Normal(torch.zeros(()), 1.0)))

    guide = AutoNormal(model, init_scale=1.0)
    guide()
    with torch.no_grad():
        guide.locs.w = torch.zeros(3)
    elbo = MeanFieldELBO()
    terms = evaluate(elbo, model, guide).terms
    assert set(terms.kl) == {"w"} and not terms.log_likelihood
    torch.testing.assert_close(terms.kl["w"], torch.zeros(3), rtol=0, atol=1e-5)


def test_a_short_fit_moves(ragged):
    model, guide = shared(ragged)
    guide(ragged)
    before = guide.program.locs["w"].clone()
    fit(model, guide, ragged, num_steps=10)
    assert (guide.program.locs["w"] - before).abs().max() > 0.2


def test_a_site_outside_the_task_plate_has_one_number(ragged):
    def model(y):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("task", 3):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    history = fit(model, AutoNormal(model), torch.ones(3), num_steps=15).history
    assert history.kl["mean"].shape == (3,)
    assert history.log_likelihood["y"].shape == (3, 3)


def test_positive_sites_of_autonormal_keep_their_jacobian():
    def model():
        with pyro.plate("task", 3):
            pyro.sample("s", dist.LogNormal(torch.zeros(()), 1.0))

    guide = AutoNormal(model)
    guide()
    with torch.no_grad():
        guide.locs.s = torch.ones(3)
        guide.scales.s = torch.full((3,), 0.5)
    # KL of N(1, 0.5) from N(0, 1), the same for the logarithm and the site itself
    exact = 3 * (math.log(2) + (0.5**2 + 1) / 2 - 0.5)
    elbo = MeanFieldELBO(4000)
    torch.manual_seed(0)
    loss = evaluate(elbo, model, guide).loss.item()
    assert loss == pytest.approx(exact, abs=0.1)  # 5 standard errors of 4,000 draws
    torch.manual_seed(0)
    assert elbo.loss(model, guide) == pytest.approx(loss, abs=1e-4)


def test_a_fit_finds_the_posterior_of_a_positive_site():
    def model():
        with pyro.plate("task", 4):
            pyro.sample("s", dist.LogNormal(torch.zeros(()), 1.0))

    guide = AutoNormal(model, init_scale=1.0)
    elbo = MeanFieldELBO(50)
    fit(model, guide, elbo=elbo, num_steps=800)
    torch.testing.assert_close(guide.locs.s.detach(), torch.zeros(4), rtol=0, atol=0.1)
    torch.testing.assert_close(guide.scales.s.detach(), torch.ones(4), rtol=0, atol=0.1)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e6])
def test_settling_does_not_depend_on_the_first_fall(scale):
    torch.manual_seed(0)
    noise = torch.randn(4000).double()
    step = torch.arange(4000).double()
    falling = 1e6 * torch.exp(-step / 20) - 0.5 * step + noise
    flat = 1e6 * torch.exp(-step / 20) + noise
    steps = range(200, 4000, 50)
    assert not any(_settled((scale * falling)[:n].tolist()) for n in steps if scale >= 1)
    assert _settled((scale * flat)[:1000].tolist())


def test_it_stops_when_the_loss_has_settled_and_not_before():
    def model(y):
        with pyro.plate("task", len(y)):
            w = pyro.sample("w", dist.Normal(torch.zeros(()), 10.0))
            pyro.sample("y", dist.Normal(w, 1.0), obs=y)

    y = torch.tensor([30.0, -30.0])
    guide = AutoNormal(model)
    result = fit(model, guide, y, num_steps=20_000)
    assert result.stopped == "settled"
    assert result.history.loss.shape[0] < 10_000
    # posterior mean 30 * 100 / 101, standard deviation 0.995
    expected = torch.tensor([29.703, -29.703])
    torch.testing.assert_close(guide.locs.w, expected, rtol=0, atol=0.2)
    result = fit(model, AutoNormal(model), y, num_steps=300)
    assert result.stopped == "steps" and len(result.history.loss) == 300


def test_it_does_not_stop_while_a_schedule_moves(ragged):
    model, guide = shared(ragged, temperature=lambda step: max(0.5, 1 - step / 1000))
    result = fit(model, guide, ragged, num_steps=3000)
    assert len(result.history.loss) >= 500 + COOL_DOWN


def test_an_interrupted_fit_keeps_what_it_learned(ragged):
    def temperature(step):
        if step == 40:
            raise KeyboardInterrupt
        return 1.0

    model, guide = shared(ragged, temperature=temperature)
    start = None
    result = fit(model, guide, ragged, num_steps=100)
    assert result.stopped == "interrupted"
    assert len(result.history.loss) == 40
    start = learned(shared(ragged)[1].program)
    assert not torch.allclose(learned(guide.program), start)


def test_a_loss_that_is_not_finite_says_where_and_what_to_do():
    X = torch.tensor([[1.0], [1e25], [1.0], [2.0]])
    data = TaskData.regression(X, torch.zeros(4), ["amazon", "dslr", "amazon", "dslr"])
    from pyro_vmtl.guides import MeanFieldNormal
    from pyro_vmtl.models import LinearRegressor, TaskNoise, ZeroMeanNormal

    model = LinearRegressor(ZeroMeanNormal([1]), TaskNoise(2))
    model, guide = share(model, MeanFieldNormal({"w": [1]}, 2), sites=["w"])
    message = (
        r"at step 0: log-likelihood of site 'y' in task 'dslr'\. .*"
        r"Try a smaller learning_rate, features on a scale of about 1"
    )
    with pytest.raises(NonFiniteLossError, match=message):
        fit(model, guide, data, num_steps=5)
    assert pyro.settings.get("validate_distributions_pyro")


@pytest.mark.filterwarnings("ignore:Encountered NaN")  # pyro's own, before our error
def test_numbers_that_an_update_broke_are_named(ragged):
    model, guide = shared(ragged)
    with pytest.raises(NonFiniteLossError, match=r"update before it left .*locs\.w.* not finite"):
        fit(model, guide, ragged, num_steps=50, learning_rate=float("inf"))


def test_bare_parameters_and_nothing_to_learn_are_errors(ragged):
    def bare(data):
        with pyro.plate("task", 3, dim=-2):
            loc = pyro.param("loc", torch.zeros(3, 1, 3, 3, dtype=torch.float64))
            pyro.sample("w", dist.Normal(loc, 1.0).to_event(2))

    model, guide = classifier(ragged)
    with pytest.raises(ValueError, match=r"pyro.param\('loc'\) is not a parameter"):
        fit(model, bare, ragged)
    model.requires_grad_(False)
    guide.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameters that require a gradient"):
        fit(model, guide, ragged)


def test_programs_that_do_not_belong_together_are_named(ragged):
    model, guide = classifier(ragged)
    shared_model, shared_guide = shared(ragged)
    with pytest.raises(ValueError, match=r"only the guide \['w_sources'\]"):
        fit(model, shared_guide, ragged)
    never_run, _ = share(*classifier(ragged), sites=["w"])
    for other in (shared_model, never_run):
        with pytest.raises(RuntimeError, match="not the one that `share` returned"):
            fit(other, guide, ragged)
    with pytest.raises(ValueError, match=r"only the model has \['y'\].*rows that have targets"):
        fit(model, guide, ragged.without_targets())
    with pytest.raises(ValueError, match="num_steps is 0"):
        fit(model, guide, ragged, num_steps=0)


def test_the_progress_bar_shows_the_numbers_that_matter(ragged, capsys):
    fit(*shared(ragged), ragged, num_steps=20, progress=True)
    shown = capsys.readouterr().err
    assert "20/20" in shown and "KL" in shown and "log-likelihood" in shown


def test_kl_weights_are_settings_and_are_not_loaded(ragged):
    one, other = (temper(*classifier(ragged), kl_weights={"w": weight})[0] for weight in (1.0, 0.2))
    assert not [key for key in one.state_dict() if "values" in key]
    other.load_state_dict(one.state_dict())
    assert other.state.values[other.state.place("w")].item() == pytest.approx(0.2)
