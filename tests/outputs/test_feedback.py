"""Feedback over plain Pyro models, against loops written by hand, in float64."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from pyro.infer.autoguide import AutoNormal
from torch import nn

from pyro_vmtl import fit, relatedness, share
from pyro_vmtl.handlers.output_layer import output_layer
from pyro_vmtl.handlers.tracing import trace_guide_and_model
from pyro_vmtl.inference.elbo import MeanFieldELBO, evaluate
from pyro_vmtl.outputs.feedback import feedback, feedback_gates, find_feedback, known_outputs

N, L = 6, 3
SITES = ("intent", "slots", "fast", "cost")
SIZES = (3, 4, 1, 1)


pytestmark = pytest.mark.usefixtures("in_float64")


def rows(seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        "intent": torch.randint(3, (N, 1), generator=g),
        "slots": torch.randint(4, (N, L), generator=g),
        "fast": torch.randint(2, (N, 1), generator=g).double(),
        "cost": torch.randn(N, 1, generator=g),
    }


class Sentences(nn.Module):
    """A class, a binary and a real output of each row, and a class of each of its words."""

    def __init__(self, hidden=False):
        super().__init__()
        g = torch.Generator().manual_seed(1)
        self.heads = nn.ParameterDict()
        for site, size in zip(SITES, SIZES, strict=True):
            length = L if site == "slots" else 1
            self.heads[site] = torch.randn(N, length, size, generator=g)
        self.words = torch.arange(L) < torch.tensor([3, 2, 1, 3, 2, 3])[:, None]
        self.known = torch.tensor([[True], [True], [False], [True], [True], [True]])
        self.layer = nn.Linear(5, 3) if hidden else None
        self.features = torch.randn(N, 1, 5, generator=g)

    def forward(self, y=None):
        y = y or {}
        with pyro.plate("data", N, dim=-2):
            intent = self.heads["intent"]
            if self.layer is not None:
                intent = intent + output_layer("intent", self.features, self.layer, torch.tanh)
            i = pyro.sample("intent", dist.Categorical(logits=intent), obs=y.get("intent"))
            fast = dist.Bernoulli(logits=self.heads["fast"][..., 0])
            pyro.sample("fast", fast, obs=y.get("fast"))
            with poutine.mask(mask=self.known), poutine.scale(scale=2.0):
                cost = dist.Normal(self.heads["cost"][..., 0], 0.5)
                pyro.sample("cost", cost, obs=y.get("cost"))
            with pyro.plate("words", L, dim=-1), poutine.mask(mask=self.words):
                slots = dist.Categorical(logits=self.heads["slots"])
                pyro.sample("slots", slots, obs=y.get("slots"))
        return i


def no_guide(*args, **kwargs):
    pass


def with_weights(program, scale=0.7):
    """Run a program once, and give it random weights without any spread."""
    program(rows())
    couplings = find_feedback(program).couplings
    with torch.no_grad():
        couplings.loc.copy_(scale * torch.randn(couplings.loc.shape))
        couplings.raw_scale.fill_(-40.0)
        for t in couplings.hidden_loc:
            couplings.hidden_loc[t].copy_(scale * torch.randn(couplings.hidden_loc[t].shape))
            couplings.raw_hidden_scale[t].fill_(-40.0)
    return couplings


def sites_of(program, *args):
    trace = poutine.trace(program).get_trace(*args)
    return {name: trace.nodes[name] for name in SITES}


def mean_of(name, eta):
    if name in ("intent", "slots"):
        return eta.exp() / eta.exp().sum(-1, keepdim=True)
    return 1 / (1 + (-eta).exp()) if name == "fast" else eta


def by_loops(model, weight, reference, num_iterations, *, known=None, hidden=None):
    """The iteration of ``Sentences``, one row, word and pair of outputs at a time."""
    starts = dict(zip(SITES, (0, 3, 7, 8), strict=True))
    size = dict(zip(SITES, SIZES, strict=True))
    with torch.no_grad():
        static = {site: model.heads[site].clone() for site in SITES}
        if model.layer is not None:
            static["intent"] = static["intent"] + model.layer(model.features.tanh())
        eta = {site: value.clone() for site, value in static.items()}
        for _ in range(num_iterations):
            new = {site: value.clone() for site, value in static.items()}
            for n in range(N):
                said = {}
                for site in SITES:
                    at = slice(starts[site], starts[site] + size[site])
                    for place in range(eta[site].shape[1]):
                        p = mean_of(site, eta[site][n, place])
                        if known is not None and site in known:
                            given = known[site][n, place]
                            p = torch.where(given.isnan(), p, given)
                        said[site, place] = p - reference[at]
                words = [said["slots", w] for w in range(L) if model.words[n, w]]
                for t in SITES:
                    to = slice(starts[t], starts[t] + size[t])
                    shift = torch.zeros(5)
                    for s in SITES:
                        at = slice(starts[s], starts[s] + size[s])
                        message = sum(words) / len(words) if s == "slots" else said[s, 0]
                        if s != t:
                            new[t][n] += message @ weight[at, to]
                            if hidden is not None and t == "intent":
                                shift += message @ hidden[at]
                    if hidden is not None and t == "intent":
                        layer, x = model.layer, model.features[n]
                        new[t][n] += layer((x + shift).tanh()) - layer(x.tanh())
            eta = new
    return eta


@pytest.mark.parametrize("how", ["no iteration", "closed gates"])
def test_without_feedback_it_is_the_model(how):
    model, y = Sentences(), rows()
    program = feedback(model, sites=SITES, num_iterations=0 if how == "no iteration" else 3)
    if how == "closed gates":
        couplings = with_weights(program)
        with torch.no_grad():
            couplings.gate_logits[..., 1] = -1e4
    plain, fed = sites_of(model, y), sites_of(program, y)
    for site in SITES:
        for one, other in ((plain[site], fed[site]),):
            difference = one["fn"].log_prob(one["value"]) - other["fn"].log_prob(other["value"])
            assert difference.abs().max() < 1e-12
            assert one["scale"] == other["scale"]
            assert one["cond_indep_stack"] == other["cond_indep_stack"]
    if how == "no iteration":
        one, other = (evaluate(MeanFieldELBO(), m, no_guide, y).loss for m in (model, program))
        assert abs(one - other) < 1e-12


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("num_iterations", [1, 2, 5])
def test_the_iteration_is_that_of_loops(hidden, num_iterations):
    model, y = Sentences(hidden), rows()
    program = feedback(model, sites=SITES, num_iterations=num_iterations)
    couplings = with_weights(program, 0.3)
    choice = torch.tensor([0, 2, 1, 2]) if hidden else torch.ones(4, dtype=torch.int64)
    with torch.no_grad():  # intent's gates: one of each kind
        couplings.gate_logits[:] = -1e4
        couplings.gate_logits[..., 1] = 0
        couplings.gate_logits[torch.arange(4), 0, 1] = -1e4
        couplings.gate_logits[torch.arange(4), 0, choice] = 0
    weight = couplings.loc.detach() * (1 - torch.block_diag(*[torch.ones(s, s) for s in SIZES]))
    into = None
    if hidden:
        into = couplings.hidden_loc["0"].detach() * (choice[couplings.output_of] == 2)[:, None]
        weight[:, :3] *= (choice[couplings.output_of] == 1)[:, None]
    norms = {0: torch.linalg.matrix_norm(model.layer.weight, ord=2)} if hidden else {}
    assert couplings.draw(norms).radius < 0.9
    expected = by_loops(model, weight, couplings.reference, num_iterations, hidden=into)
    for site, node in sites_of(program, y).items():
        fn = node["fn"]
        found = fn.loc if site == "cost" else fn.logits
        by_class = site in ("intent", "slots")
        wanted = expected[site].log_softmax(-1) if by_class else expected[site][..., 0]
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_what_is_known_takes_the_place_of_what_is_predicted():
    model = Sentences()
    program = feedback(model, sites=SITES, num_iterations=3, gates="on")
    couplings = with_weights(program, 0.3)
    intent = torch.full((N, 1, 3), torch.nan)
    intent[0] = torch.tensor([0.0, 1.0, 0.0])
    cost = torch.full((N, 1, 1), torch.nan)
    cost[3] = 2.5
    with known_outputs({"intent": intent, "cost": cost}):
        found = sites_of(program)
    weight = couplings.loc.detach() * (1 - torch.block_diag(*[torch.ones(s, s) for s in SIZES]))
    known = {"intent": intent, "cost": cost}
    expected = by_loops(model, weight, couplings.reference, 3, known=known)
    for site in ("slots", "intent"):
        torch.testing.assert_close(found[site]["fn"].logits, expected[site].log_softmax(-1))
    with known_outputs({"cost": torch.zeros(2, 2)}), pytest.raises(ValueError, match="'cost' has"):
        program()


def test_the_reference_is_the_mean_of_the_training_rows():
    program, y = feedback(Sentences(), sites=SITES), rows()
    program(y)
    reference = find_feedback(program).couplings.reference
    shares = [(y["intent"] == c).double().mean() for c in range(3)]
    torch.testing.assert_close(reference[:3], torch.stack(shares))
    seen = y["slots"][Sentences().words]
    torch.testing.assert_close(
        reference[3:7], torch.stack([(seen == c).double().mean() for c in range(4)])
    )
    torch.testing.assert_close(reference[8], y["cost"][Sentences().known].mean())


def test_the_fixed_point_is_where_many_iterations_end():
    model, y = Sentences(), rows()
    program = feedback(model, sites=SITES, num_iterations=None, gates="on")
    with_weights(program)
    settled = sites_of(program, y)
    find_feedback(program).num_iterations = 300
    for site, node in sites_of(program, y).items():
        torch.testing.assert_close(node["fn"].mean, settled[site]["fn"].mean, equal_nan=True)
        if site in ("intent", "slots"):
            torch.testing.assert_close(node["fn"].logits, settled[site]["fn"].logits)


@pytest.mark.parametrize(("convergence", "least"), [("plain", 1), ("hinge", 2)])
def test_the_loss_on_convergence_is_in_the_plates_of_each_output(convergence, least):
    model, y = Sentences(), rows()
    program = feedback(
        model, sites=SITES, num_iterations=3, gates="on", convergence=convergence
    )  # fmt: skip
    couplings = with_weights(program, 2.0)
    weight = couplings.draw({}).weight.detach()
    means = [
        {s: mean_of(s, eta) for s, eta in by_loops(model, weight, couplings.reference, k).items()}
        for k in range(4)
    ]
    trace = poutine.trace(program).get_trace(y)
    trace.compute_log_prob()
    for site in SITES:
        changes = [((means[k + 1][site] - means[k][site]) ** 2).sum(-1) for k in range(3)]
        if convergence == "plain":
            expected = sum(changes)
        else:
            expected = sum((changes[k + 1] - 0.81 * changes[k]).clamp(min=0) for k in range(2))
        if site == "slots":
            expected = expected * model.words
        if site == "cost":
            expected = 2 * expected * model.known
        found = -trace.nodes[f"{site}_convergence"]["log_prob"]
        torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match=f"expected at least {least}"):
        feedback(model, sites=SITES, num_iterations=least - 1, convergence=convergence)
    with pytest.raises(ValueError, match="nothing left to compare"):
        feedback(model, sites=SITES, num_iterations=None, convergence=convergence)


def test_outputs_that_are_drawn_are_drawn_with_feedback():
    """What the program returns, too: by static logits the intent would be 0."""
    model = Sentences()
    program = feedback(model, sites=SITES, num_iterations=1, gates="on")
    couplings = with_weights(program, 0.0)
    with torch.no_grad():
        model.heads["intent"].copy_(torch.tensor([4.0, 0.0, 0.0]))
        model.heads["fast"].fill_(8.0)
        couplings.loc[7, :3] = torch.tensor([-60.0, 60.0, 0.0])
        couplings.reference[7] = 0.0
    trace = poutine.trace(program).get_trace()
    returned = trace.nodes["_RETURN"]["value"]
    assert (returned == 1).all()
    assert (trace.nodes["intent"]["value"] == returned).all()
    assert [name for name in trace.nodes if trace.nodes[name]["type"] == "sample"].count(
        "fast"
    ) == 1
    drawn = Predictive(program, guide=no_guide, num_samples=3)()
    assert (drawn["intent"] == 1).all()


class ManyHeads(nn.Module):
    """Three binary outputs, whose coefficients are latent in a plate over outputs as tasks."""

    def forward(self, x, y=None):
        with pyro.plate("task", 3, dim=-1):
            w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))  # (3, 2)
        logits = x @ w.mT
        with pyro.plate("data", len(x), dim=-1):
            for t in range(3):
                obs = None if y is None else y[:, t]
                pyro.sample(f"y{t}", dist.Bernoulli(logits=logits[..., t]), obs=obs)


def heads_problem():
    """The second output saturates with the first, as no linear predictor does."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(600, 2, generator=g)
    first = torch.sigmoid(5 * x.sum(1))
    p = torch.stack([first, torch.sigmoid(4 * first - 2), torch.sigmoid(x[:, 0])], 1)
    return x, torch.bernoulli(p, generator=g)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["feedback inside", "feedback outside"])
def test_it_composes_with_share_on_the_heads(order):
    x, y = heads_problem()
    sites = ["y0", "y1", "y2"]
    model = ManyHeads()
    guide = AutoNormal(model)
    if order == "feedback inside":
        model, guide = share(feedback(model, sites=sites), guide, sites=["w"])
    else:
        model, guide = share(model, guide, sites=["w"])
        model = feedback(model, sites=sites)
    result = fit(model, guide, x, y, num_steps=500)
    assert result.history.loss[-50:].mean() < result.history.loss[0] - 200
    gates = feedback_gates(model)
    assert gates[0, 1, 1] > 0.5  # the second says what the first does
    assert relatedness(guide, "w").shape == (1000, 3, 4)
    traces = trace_guide_and_model(model, guide, x)  # to predict
    assert traces.model.nodes["y1"]["fn"].batch_shape == (600,)


def test_draws_at_once_are_draws_one_by_one():
    """With several particles every output has a dimension of draws, also those without latents."""

    class OneLatent(ManyHeads):
        def forward(self, x, y=None):
            w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("y0", dist.Bernoulli(logits=(x * w).sum(-1)), obs=y[:, 0])
                pyro.sample("y1", dist.Bernoulli(logits=x[:, 0]), obs=y[:, 1])

    x, y = heads_problem()
    program = feedback(OneLatent(), sites=["y0", "y1"], gates="on")
    guide = AutoNormal(OneLatent())
    program(x, y)
    couplings = find_feedback(program).couplings
    with torch.no_grad():
        couplings.loc.fill_(1.0)
        couplings.raw_scale.fill_(-40.0)
    many = evaluate(MeanFieldELBO(num_particles=4, max_plate_nesting=1), program, guide, x, y)
    trace = many.traces[0].model
    assert trace.nodes["y1"]["fn"].batch_shape == (4, 600)
    for draw, w in enumerate(trace.nodes["w"]["value"].reshape(4, 2)):
        single = poutine.trace(poutine.condition(program, {"w": w})).get_trace(x, y)
        for site in ("y0", "y1"):
            torch.testing.assert_close(
                trace.nodes[site]["fn"].logits[draw], single.nodes[site]["fn"].logits
            )


@pytest.mark.slow
@pytest.mark.parametrize("num_iterations", [3, None])
@pytest.mark.parametrize("gates", ["hard", "soft", "on"])
def test_replayed_steps_are_those_of_the_programs(num_iterations, gates, monkeypatch):
    """A fit records a step and replays it: with the same losses as without."""
    x, y = heads_problem()
    losses = []
    for record_after in (25, 10_000):
        monkeypatch.setattr("pyro_vmtl.inference.course.RECORD_AFTER", record_after)
        program = feedback(
            ManyHeads(), sites=["y0", "y1", "y2"], num_iterations=num_iterations, gates=gates
        )
        losses.append(fit(program, AutoNormal(ManyHeads()), x, y, num_steps=60).history.loss)
    torch.testing.assert_close(*losses, rtol=1e-9, atol=1e-9)


def test_errors_say_what_is_expected():
    model = Sentences()
    with pytest.raises(ValueError, match=r"\['intent'\], expected the names of two outputs"):
        feedback(model, sites="intent")
    with pytest.raises(ValueError, match="gates is 'open', expected one of"):
        feedback(model, sites=SITES, gates="open")
    with pytest.raises(ValueError, match="num_iterations is -1"):
        feedback(model, sites=SITES, num_iterations=-1)
    with pytest.raises(ValueError, match="convergence is 'fast', expected one of"):
        feedback(model, sites=SITES, convergence="fast")
    with pytest.raises(ValueError, match="no site 'price', found"):
        feedback(model, sites=[*SITES, "price"])(rows())

    def counts():
        with pyro.plate("data", 3):
            pyro.sample("a", dist.Poisson(torch.ones(3)))
            pyro.sample("b", dist.Normal(torch.zeros(3), 1.0))

    with pytest.raises(ValueError, match="Output 'a' is Poisson, expected Categorical"):
        feedback(counts, sites=["a", "b"])()
    with pytest.raises(ValueError, match="has no feedback"):
        find_feedback(model)
