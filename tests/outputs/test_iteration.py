"""The iteration against closed forms, long runs and the bound on its rate, in float64."""

from dataclasses import replace

import pytest
import torch
from pyro import distributions as dist

from pyro_vmtl.outputs.couplings import Couplings
from pyro_vmtl.outputs.iteration import (
    Dynamics,
    Level,
    average_over,
    fixed_point,
    merged,
    spectral_radius,
    unrolled,
)
from pyro_vmtl.outputs.responses import response_of

CLASSES = response_of(dist.Categorical(logits=torch.zeros(2)), "y")
BINARY = response_of(dist.Bernoulli(logits=torch.zeros(())), "y")
REAL = response_of(dist.Normal(torch.zeros(()), 1.0), "y")
KINDS = [(CLASSES, 3), (CLASSES, 4), (BINARY, 1), (REAL, 1), (REAL, 1)]
SIZES = [size for _, size in KINDS]


pytestmark = pytest.mark.usefixtures("in_float64")


def couplings(scale=2.0):
    slopes = [response.slope for response, _ in KINDS]
    made = Couplings(SIZES, slopes, {}, gates="on").double()
    with torch.no_grad():
        made.loc.copy_(scale * torch.randn(made.loc.shape))
    return made


def in_blocks(states):
    """Split the state of the two levels below by output."""
    words, rows = states
    return [*words.split(SIZES[:2], -1), *rows.split(SIZES[2:], -1)]


def two_levels(weight_grad=False):
    """Two outputs of each of 4 words in 5 rows, and three of the rows."""
    drawn = couplings().draw({})
    words = Level(
        torch.arange(7), merged(KINDS[:2]), torch.randn(5, 4, 7), torch.full((7,), 0.3),
        mask=(torch.arange(4) < torch.tensor([4, 3, 2, 1, 4])[:, None])[..., None],
    )  # fmt: skip
    rows = Level(torch.arange(7, 10), merged(KINDS[2:]), torch.randn(5, 1, 3), torch.zeros(3))
    return [words, rows], drawn


def test_a_weight_that_would_not_contract_is_scaled_to_the_bound():
    made = couplings()
    drawn = made.draw({})
    assert drawn.radius > 0.9
    starts = torch.tensor([0, *SIZES]).cumsum(0).tolist()
    norms = torch.zeros(5, 5)
    for s in range(5):
        for t in range(5):
            block = drawn.weight[starts[s] : starts[s + 1], starts[t] : starts[t + 1]]
            norms[s, t] = torch.linalg.svdvals(block.detach())[0] * KINDS[s][0].slope
    assert torch.linalg.eigvals(norms).abs().max() == pytest.approx(0.9, abs=1e-12)


@pytest.mark.parametrize(("response", "size"), [(CLASSES, 2), (CLASSES, 7), (BINARY, 1), (REAL, 1)])
def test_no_mean_moves_faster_than_its_slope(response, size):
    eta = 3 * torch.randn(2000, size)
    jacobians = torch.vmap(torch.func.jacrev(response.mean))(eta)
    largest = torch.linalg.matrix_norm(jacobians, ord=2).max()
    assert largest <= response.slope + 1e-12
    if size <= 2:  # that of many classes is reached at the edge, by two of them
        at_even = torch.func.jacrev(response.mean)(torch.zeros(size))
        expected = torch.linalg.matrix_norm(at_even, ord=2)
        assert expected == pytest.approx(response.slope)


def test_a_hundred_starts_come_together_at_the_bounded_rate():
    """In the norm of the Perron vector of the bounds, whatever the length of a row."""
    levels, drawn = two_levels()
    levels = [replace(v, static=v.static.expand(100, *v.static.shape)) for v in levels]
    step = Dynamics(levels, drawn.weight.detach())
    blocks = [b.split(SIZES, 1) for b in drawn.weight.detach().split(SIZES, 0)]
    bound = torch.tensor(
        [[torch.linalg.svdvals(blocks[s][t])[0] * KINDS[s][0].slope for s in range(5)]
         for t in range(5)]
    )  # fmt: skip
    values, vectors = torch.linalg.eig(bound)
    perron = vectors[:, values.real.argmax()].real.abs()
    rate = float(values.real.max())

    def distance(one, other):
        apart = zip(in_blocks(one), in_blocks(other), perron, strict=True)
        return torch.stack([(a - b).norm(dim=-1).amax((-1, -2)) / v for a, b, v in apart]).amax(0)

    settled = unrolled(step, [level.static for level in levels], 400)
    state = [10 * torch.randn(level.static.shape) for level in levels]
    before = distance(state, settled)
    for _ in range(300):
        state = step(state)
        after = distance(state, settled)
        assert (after <= rate * before + 1e-12).all()
        before = after
    assert before.shape == (100,) and (before < 1e-10).all()


def test_the_implicit_gradient_is_that_of_200_steps():
    levels, drawn = two_levels()
    target = [torch.randn(level.static.shape) for level in levels]
    gradients = []
    for solve in (fixed_point, lambda step, start: unrolled(step, start, 200)):
        weight = drawn.weight.detach().clone().requires_grad_()
        statics = [level.static.detach().clone().requires_grad_() for level in levels]
        own = [
            Level(v.columns, v.responses, a, v.reference, mask=v.mask)
            for v, a in zip(levels, statics, strict=True)
        ]
        found = solve(Dynamics(own, weight), statics)
        loss = sum(((a - b) ** 2).sum() for a, b in zip(found, target, strict=True))
        gradients.append(torch.autograd.grad(loss, [weight, *statics]))
    for one, other in zip(*gradients, strict=True):
        assert (one - other).abs().max() < 1e-6 * other.abs().max()


def test_real_outputs_solve_a_linear_system():
    slopes = [REAL.slope] * 4
    made = Couplings([1] * 4, slopes, {}, gates="on").double()
    with torch.no_grad():
        made.loc.copy_(torch.randn(4, 4))
        made.raw_scale.fill_(-40.0)
    weight = made.draw({}).weight.detach()
    a, reference = torch.randn(6, 4), torch.randn(4)
    level = Level(torch.arange(4), merged([(REAL, 1)] * 4), a, reference)
    (found,) = fixed_point(Dynamics([level], weight), [a])
    B = weight.T
    expected = torch.linalg.solve(torch.eye(4) - B, (a - reference @ B.T).T).T
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_words_tell_the_row_their_average_without_padding():
    p = torch.randn(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]], dtype=torch.bool)[..., None]
    found = average_over(p, torch.Size([2, 1]), mask)
    torch.testing.assert_close(found[0, 0], (p[0, 0] + p[0, 1]) / 2)
    torch.testing.assert_close(found[1, 0], p[1, 0])
    assert average_over(p, torch.Size([2, 3]), mask) is p
    torch.testing.assert_close(average_over(p, torch.Size([3]), None), p.mean(0))


def test_what_does_not_settle_is_an_error():
    level = Level(torch.arange(2), merged([(REAL, 1)] * 2), torch.ones(1, 2), torch.zeros(2))
    away = Dynamics([level], torch.tensor([[0.0, 2.0], [2.0, 0.0]]))
    with pytest.raises(RuntimeError, match="still change after 1000 iterations"):
        fixed_point(away, [torch.ones(1, 2)])


def test_the_radius_of_a_matrix():
    matrix = torch.tensor([[0.0, 4.0], [1.0, 0.0]])
    assert spectral_radius(matrix) == pytest.approx(2.0)  # the root of 4 * 1
    assert spectral_radius(torch.tensor([[0.0, 1.0], [0.0, 0.0]])) == 0


@pytest.mark.parametrize("hidden", [{}, {1: 4}])
def test_the_kl_is_that_of_draws(hidden):
    """A closed gate leaves the weights at their prior, and an open one at the posterior."""
    made = Couplings([2, 1], [0.5, 1.0], hidden, gates="hard").double()
    with torch.no_grad():
        made.loc.normal_()
        made.raw_scale.normal_().mul_(0.3)
        made.gate_logits.copy_(made.gate_logits + torch.randn(made.gate_logits.shape))
    gates = dist.Categorical(logits=made.gate_logits)
    prior = dist.Categorical(logits=made.prior.expand(2, 2, -1))
    total = torch.zeros(())
    num = 100_000
    for s, t in ((0, 1), (1, 0)):
        z = gates.sample((num,))[:, s, t]
        total += (gates.log_prob(z[:, None, None]) - prior.log_prob(z[:, None, None]))[
            :, s, t
        ].mean()
        own = [(made.loc, made.raw_scale)]
        if str(t) in made.hidden_loc:
            own.append((made.hidden_loc[str(t)], made.raw_hidden_scale[str(t)]))
        for choice, (loc, raw) in enumerate(own, 1):
            rows = made.output_of == s
            columns = (made.output_of == t) if choice == 1 else slice(None)
            slab = 2.0 if s == 0 else 1.0  # 1 / slope of the source
            q = dist.Normal(loc[rows][:, columns], raw[rows][:, columns].exp())
            w = q.sample((num // 10,))
            ratio = q.log_prob(w) - dist.Normal(0.0, slab).log_prob(w)
            total += (z == choice).double().mean() * ratio.sum((1, 2)).mean()
    # standard error: some nats by the root of 10,000
    assert float(made.kl().detach()) == pytest.approx(float(total.detach()), abs=0.1)
