"""Influence against closed forms, finite differences and refits."""

from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from problems import F64
from pyro import poutine
from pyro.infer.autoguide import AutoDelta, AutoNormal

from benchmarks.influence import problem
from pyro_vmtl import (
    MeanFieldELBO,
    Programs,
    Stack,
    TaskData,
    fit,
    influence,
    posterior_means,
    share,
)
from pyro_vmtl.attribution import influence as estimates
from pyro_vmtl.attribution import optimum, responses, weighted_loss
from pyro_vmtl.attribution.influence import _as_fitted, log_density
from pyro_vmtl.attribution.optimum import go_to_optimum, polish, polish_anew
from pyro_vmtl.attribution.responses import Responses
from pyro_vmtl.linear_response.curvature import Curvature
from pyro_vmtl.linear_response.hessian import Hessian
from pyro_vmtl.linear_response.response import as_double
from pyro_vmtl.methods.presets import presets

POINTS = MeanFieldELBO(num_points=8)
APART, NOISE = 0.8, 0.5


def regression(num_tasks=3, num_features=2, sizes=(9, 6, 8), *, seed=0, dtype=F64):
    """Rows of related tasks, of different numbers, in mixed order."""
    generator = torch.Generator().manual_seed(seed)
    tasks = torch.cat([torch.full((n,), t) for t, n in enumerate(sizes[:num_tasks])])
    tasks = tasks[torch.randperm(len(tasks), generator=generator)]
    x = torch.randn(len(tasks), num_features, generator=generator, dtype=F64)
    w = 1 + 0.5 * torch.randn(num_tasks, num_features, generator=generator, dtype=F64)
    y = (x * w[tasks]).sum(1) + NOISE * torch.randn(len(tasks), generator=generator, dtype=F64)
    return TaskData.regression(x.to(dtype), y.to(dtype), [f"t{t}" for t in tasks.tolist()])


def ridge(data):
    """Point estimates about a centre that tasks share: ridge regression with soft sharing."""
    size = data.num_features
    centre = pyro.sample("centre", dist.Normal(torch.zeros(size, dtype=F64), 1.0).to_event(1))
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(centre, APART).to_event(1))
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            mean = (data.x * w).sum(-1)
            pyro.sample("y", dist.Normal(mean, NOISE), obs=data.y)


def fitted_ridge(data):
    guide = AutoDelta(ridge)
    fit(ridge, guide, data, optimizer="lbfgs", num_steps=50)
    return ridge, guide


def exact_ridge(data, weight):
    """The optimum (1 + T, F): centre first, from its normal equations."""
    num_tasks, size = data.num_tasks, data.num_features
    eye = torch.eye(size, dtype=F64)
    blocks = torch.einsum("tn,tnf,tng->tfg", weight, data.x, data.x) / NOISE**2
    matrix = torch.block_diag(eye, *(blocks + eye / APART**2))
    matrix[:size, :size] += num_tasks * eye / APART**2
    matrix[:size, size:] = -eye.repeat(1, num_tasks) / APART**2
    matrix[size:, :size] = matrix[:size, size:].T
    right = torch.einsum("tn,tnf,tn->tf", weight, data.x, data.y) / NOISE**2
    right = torch.cat([torch.zeros(size, dtype=F64), right.flatten()])
    return torch.linalg.solve(matrix, right).reshape(num_tasks + 1, size), matrix


def coefficients(data):
    return lambda fit: posterior_means(fit, data)["w"][:, 0]


@pytest.fixture(scope="module")
def soft():
    data = regression()
    return fitted_ridge(data), data


def user_order(data, values):
    """Values (T, N, ...) by the user's rows."""
    return data.unpad(values)


def test_newton_and_refits_of_ridge_are_exact(soft):
    pair, data = soft
    ones = data.mask.double()
    full, _ = exact_ridge(data, ones)
    exact = torch.zeros(*data.mask.shape, *full[1:].shape, dtype=F64)
    for t, n in data.mask.nonzero():
        less = ones.clone()
        less[t, n] = 0.0
        exact[t, n] = (full - exact_ridge(data, less)[0])[1:]
    exact = user_order(data, exact)
    for method in ("newton", "refit"):
        found = influence(pair, data, of=coefficients(data), method=method)["influence"]
        assert found["row"].values.tolist() == list(range(len(exact)))
        torch.testing.assert_close(torch.as_tensor(found.values), exact, rtol=0, atol=1e-9)


def test_the_first_order_of_ridge_is_block_elimination(soft):
    """Tu et al. (2025): the Schur complement of the centre, task by task."""
    pair, data = soft
    full, matrix = exact_ridge(data, data.mask.double())
    size = data.num_features
    centre, *own = (matrix[i * size : (i + 1) * size] for i in range(data.num_tasks + 1))
    own = [rows[:, (t + 1) * size : (t + 2) * size] for t, rows in enumerate(own)]
    across = [centre[:, (t + 1) * size : (t + 2) * size] for t in range(data.num_tasks)]
    schur = centre[:, :size] - sum(
        a @ torch.linalg.solve(h, a.T) for a, h in zip(across, own, strict=True)
    )
    residual = data.y - (data.x * full[1:, None]).sum(-1)
    ascent = data.x * residual[..., None] / NOISE**2  # of the row's log-likelihood in w_t
    exact = torch.zeros(*data.mask.shape, data.num_tasks, size, dtype=F64)
    for t, n in data.mask.nonzero():
        by_centre = -across[t] @ torch.linalg.solve(own[t], ascent[t, n])
        moved = torch.linalg.solve(schur, by_centre)
        for k in range(data.num_tasks):
            exact[t, n, k] = -torch.linalg.solve(own[k], across[k].T @ moved)
        exact[t, n, t] += torch.linalg.solve(own[t], ascent[t, n])
    found = influence(pair, data, of=coefficients(data))["influence"]
    exact = user_order(data, exact)
    close = 1e-12 * exact.abs().max().item()  # rounding
    torch.testing.assert_close(torch.as_tensor(found.values), exact, rtol=0, atol=close)


def derivatives(responses, quantity, step):
    """Differences of fourth order in weights of rows, at optima found anew: {place: (T,)}."""
    found = {}
    for place in responses.data.mask.nonzero()[::11].tolist():
        ends = {}
        for steps in (-2, -1, 1, 2):
            weight = responses.weight.clone()
            weight[tuple(place)] += steps * step
            for part in responses._parts:
                assert go_to_optimum(part.loss, weight, part.curvature) < 1e-9
            ends[steps] = responses._values(quantity, weight=weight)
            for part in responses._parts:
                part.loss.install(part.optimum)
        slopes = [(ends[n] - ends[-n]) / (2 * n * step) for n in (1, 2)]
        found[tuple(place)] = (4 * slopes[0] - slopes[1]) / 3  # Richardson's extrapolation
    return found


def assert_close_to_derivatives(responses, quantity):
    """Compare to 1e-6; the differences err by the fourth power of the step."""
    found = responses.first_order(quantity)
    for (t, n), exact in derivatives(responses, quantity, 4e-3).items():
        torch.testing.assert_close(found[:, t, n], exact, rtol=1e-6, atol=1e-8 * found.abs().max())
    return found


def few(name):
    return presets("regression")[name].few_features


METHODS = {
    "shared": lambda: few("shared"),
    "mixed-model": lambda: few("mixed-model"),
    "pooled": lambda: replace(few("shared"), pooled=True),
    "stack": lambda: Stack({"shared": few("shared"), "one": replace(few("shared"), pooled=True)}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_first_order_is_the_derivative(name):
    data = regression(sizes=(12, 10, 11), dtype=torch.float32)
    fitted = METHODS[name]().fit(data)
    rows = as_double(regression(sizes=(12, 10, 11), seed=1))

    def quantity(fit):
        return log_density(fit, rows, num_samples=20, seed=0)

    found = assert_close_to_derivatives(Responses(fitted, data), quantity)
    assert found.shape == (3, 3, 12)
    assert (found[:, ~data.mask] == 0).all()  # padded rows


@pytest.mark.slow
def test_conjugate_gradients_do_as_well(monkeypatch):
    data = regression(sizes=(12, 10, 11), dtype=torch.float32)
    fitted = few("shared").fit(data)
    exact = influence(fitted, data)["influence"].values
    monkeypatch.setattr(weighted_loss, "MOST_DENSE", 0)
    monkeypatch.setattr(responses, "MOST_DENSE", 0)
    monkeypatch.setattr(responses, "DENSE_BESIDE_LARGE", 0)
    found = influence(fitted, data)
    assert "step" not in found and found.attrs["distance"] < 0.2
    # the loss is brought to 0.1 standard deviations only
    assert np.corrcoef(found["influence"].values.ravel(), exact.ravel())[0, 1] > 0.99
    with pytest.raises(ValueError, match="'refit'"):
        influence(fitted, data, method="newton")


@pytest.mark.parametrize(
    "name, num_tasks, passes",
    [("shared", 3, [2]), ("pooled", 3, [2, 3]), ("mixed-model", 1, [2, 1])],
)
def test_log_densities_of_tasks_are_pulled_back_by_one_pass(name, num_tasks, passes):
    """And by a probe; where tasks have numbers in common, by one for each task."""
    data = regression(num_tasks, dtype=torch.float32)
    rows = as_double(regression(num_tasks, seed=1))
    responses = Responses(METHODS[name]().fit(data), data)
    (part,) = responses._parts
    values = responses._values(
        lambda fit: log_density(fit, rows, num_samples=20, seed=0), grad=True
    )
    pull_back, made = part.curvature.pull_back, []

    def counted(values, vectors, **settings):
        made.append(len(vectors))
        return pull_back(values, vectors, **settings)

    part.curvature.pull_back = counted
    eye = torch.eye(num_tasks, dtype=F64)
    found, exact = responses._pull_back(part, values, eye, 8), pull_back(values, eye)
    assert made == passes
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-12 * exact.abs().max().item())


def test_the_sum_of_parts_of_the_rows_is_all_of_them(soft, monkeypatch):
    pair, data = soft
    whole = influence(pair, data)["influence"].values
    monkeypatch.setattr(estimates, "AT_ONCE", 200 * 3 * 4)  # 4 of 9 rows of each of 3 tasks
    found = influence(pair, data)["influence"].values
    np.testing.assert_allclose(found, whole, rtol=1e-9, atol=1e-12 * abs(whole).max())


def adam(name, **settings):
    """A member for many features, with draws, fitted in a moment."""
    fitting = {"num_steps": 60, "learning_rate": 0.05}
    return replace(presets("classification")[name].many_features, fitting=fitting, **settings)


def ten_classes():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(10, 24, generator=generator)
    y = torch.arange(40).repeat(2) % 10
    x = centres[y] + torch.randn(80, 24, generator=generator)
    return TaskData.classification(x, y.tolist(), ["a", "b"] * 40)


def test_a_recording_does_as_the_programs_do():
    data = ten_classes()
    loss = weighted_loss.WeightedLoss(adam("shared").fit(data).member, data)
    loss.renew()
    recorded = loss.recorded(loss.weight)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):  # elsewhere than it was recorded
        numbers = loss.numbers
        loss.move_to(numbers + 0.1 * torch.randn(numbers.shape, generator=generator, dtype=F64))
        for found, exact in zip(recorded(), loss.with_gradient(loss.weight), strict=True):
            torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_the_way_to_the_optimum_lowers_the_exact_loss():
    """Fewer points let the optimum leave it: scales grow along directions that have no point."""
    data = ten_classes()
    loss = weighted_loss.WeightedLoss(adam("alone").fit(data).member, data)
    exact = weighted_loss.WeightedLoss(loss.member, data)
    exact._elbo = MeanFieldELBO(num_particles=500)
    ends = []
    for _ in range(2):
        exact.install([torch.nn.Parameter(p.detach().clone()) for p in loss.parameters])
        ends.append(exact(exact.weight).item())
        polish(loss, loss.weight)
    assert ends[1] < ends[0]


def trunk_and_heads(data):
    """A network whose first layer is of all tasks, and a last layer of each."""
    size = data.num_features
    trunk = pyro.sample("trunk", dist.Normal(torch.zeros(size, 3, dtype=F64), 1.0).to_event(2))
    with pyro.plate("task", data.num_tasks, dim=-2):
        head = pyro.sample("head", dist.Normal(torch.zeros(3, dtype=F64), 1.0).to_event(1))
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            hidden = (data.x[..., None] * trunk).sum(-2).tanh()  # for draws on the left, too
            mean = (hidden * head).sum(-1)
            pyro.sample("y", dist.Normal(mean, NOISE), obs=data.y)


@pytest.mark.slow
def test_first_order_is_the_derivative_with_hard_sharing():
    data = regression()
    guide = AutoDelta(trunk_and_heads)
    fit(trunk_and_heads, guide, data, num_steps=300)
    responses = Responses(_as_fitted(trunk_and_heads, guide, data), data)
    assert responses.distance < 1e-6
    rows = regression(seed=1)

    def quantity(fit):
        return log_density(fit, rows, num_samples=2, seed=0)

    assert_close_to_derivatives(responses, quantity)


def test_a_row_that_agrees_helps_and_one_that_does_not_harms():
    """Two tasks with the same coefficient: a row of one of them is an error."""
    x = torch.linspace(-1, 1, 16, dtype=F64)[:, None]
    y = 2 * x[:, 0]
    y[13] = -2.0
    data = TaskData.regression(x, y, ["a", "b"] * 8)
    pair = fitted_ridge(data)
    rows = data.new_rows(x, ["a", "b"] * 8, 2 * x[:, 0])
    found = influence(pair, data, rows=rows)
    assert found["row_task"].values.tolist() == ["a", "b"] * 8
    assert found["influence"].sizes == {"row": 16, "task": 2}
    harm = found["influence"].idxmin("row")
    assert harm.values.tolist() == [13, 13]  # also for the task that it is not of
    assert (found["influence"].sel(row=13) < 0).all()
    assert found["step"].idxmax("row") == 13


def test_tasks_are_left_out_too(soft):
    pair, data = soft
    of = coefficients(data)
    by_row = influence(pair, data, of=of)
    by_task = influence(pair, data, of=of, leave="task", method="first-order")["influence"]
    assert by_task["left_task"].values.tolist() == list(data.task_labels)
    sums = by_row["influence"].groupby("row_task").sum().sel(row_task=by_task["left_task"].values)
    torch.testing.assert_close(
        torch.as_tensor(by_task.values), torch.as_tensor(sums.values), rtol=1e-10, atol=1e-12
    )
    refit = influence(pair, data, of=of, leave="task", only=["t1"])["influence"]
    ones = data.mask.double()
    less = ones.clone()
    less[data.task_labels.index("t1")] = 0.0
    exact = (exact_ridge(data, ones)[0] - exact_ridge(data, less)[0])[1:]
    torch.testing.assert_close(torch.as_tensor(refit.values[0]), exact, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_without_a_task_fits_are_those_from_the_start():
    data = regression(sizes=(12, 10, 11), dtype=torch.float32)
    fitted, rows = few("shared").fit(data), as_double(regression(sizes=(12, 10, 11), seed=1))
    found = influence(fitted, data, rows=rows, leave="task", num_samples=20)

    def quantity(fit):
        return log_density(fit, rows, num_samples=20, seed=0)

    before = Responses(fitted, data)._values(quantity)
    for t in range(3):
        weight = data.mask.float()
        weight[t] = 0.0
        less = replace(data, weight=weight)
        exact = before - Responses(few("shared").fit(less), less)._values(quantity)
        torch.testing.assert_close(torch.as_tensor(found["influence"].values[t]), exact)


@pytest.mark.slow
@pytest.mark.parametrize("seed, lower", [(0, 0.0), (3, 0.1)])
def test_without_a_task_the_lower_of_two_optima_is_taken(seed, lower):
    """Sources that were of no use may be of use, or not."""
    data, _ = problem(5, 25, seed=seed, strangers=1)
    responses = Responses(few("shared").fit(data), data)
    (part,) = responses._parts
    weight = responses.weight.clone()
    weight[1] = 0.0
    go_to_optimum(part.loss, weight, part.curvature)
    near = part.loss(weight).item()
    part.loss.install(part.optimum)
    polish_anew(part.loss, weight)
    # scales on their way to 0 are held where no more than this is to gain
    assert part.loss(weight).item() <= near - lower + optimum.NO_GAIN**2


def test_flagged_rows_are_refitted(soft):
    pair, data = soft
    refit = influence(pair, data, of=coefficients(data), method="refit")
    some = influence(pair, data, of=coefficients(data), refit_flagged=0.2)
    assert int(some["refitted"].sum()) == 5  # of 23
    assert set(some["row"].values[some["refitted"]]) == set(
        some["step"].to_series().nlargest(5).index
    )
    at = some["refitted"].values
    torch.testing.assert_close(
        torch.as_tensor(some["influence"].values[at]),
        torch.as_tensor(refit["influence"].values[at]),
    )


def test_only_some_rows_are_left_out(soft):
    pair, data = soft
    every = influence(pair, data, of=coefficients(data))["influence"]
    some = influence(pair, data, of=coefficients(data), only=[7, 2])["influence"]
    assert some["row"].values.tolist() == [7, 2]
    assert (some.values == every.sel(row=[7, 2]).values).all()


class Model(torch.nn.Module):
    """A program of one's own, with a latent scale of its noise."""

    def forward(self, data):
        noise = pyro.sample("noise", dist.LogNormal(torch.zeros(()), 1.0))
        with pyro.plate("task", data.num_tasks, dim=-2):
            prior = dist.Normal(torch.zeros(data.num_features), 1.0).to_event(1)
            w = pyro.sample("w", prior)
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
                pyro.sample("y", dist.StudentT(5.0, (data.x * w).sum(-1), noise), obs=data.y)


@pytest.mark.slow
def test_a_program_of_ones_own_that_shares():
    data = regression(dtype=torch.float32)
    model = Model()
    pair = share(model, AutoNormal(model), sites=["w"])
    fit(*pair, data, elbo=POINTS, optimizer="lbfgs", num_steps=150)
    found = influence(pair, data, elbo=POINTS)
    refit = influence(pair, data, elbo=POINTS, method="refit", only=range(0, 23, 4))
    first = found["influence"].sel(row=refit["row"].values).values
    exact = refit["influence"].values
    assert np.corrcoef(first.ravel(), exact.ravel())[0, 1] > 0.9  # to the first order
    weights = influence(
        pair, data, elbo=POINTS, of=lambda fit: posterior_means(fit, data)["w_sources"][0, 0]
    )
    assert weights["influence"].sizes == {"row": 23, "of_0": 3}
    # weights sum to 1, whatever the rows
    assert (
        abs(weights["influence"].sum("of_0")).max() < 1e-9 and abs(weights["influence"]).max() > 0
    )
    method = Programs(
        lambda data: share(own := Model(), AutoNormal(own), sites=["w"]),
        {"elbo": POINTS, "optimizer": "lbfgs", "num_steps": 20},
    )
    assert influence(method.fit(data), data)["influence"].sizes == {"row": 23, "task": 3}


def test_detached_sources_are_refused():
    data = regression(dtype=torch.float32)
    model = Model()
    pair = share(model, AutoNormal(model), sites=["w"], detach_sources=True)
    pair[1](data)
    with pytest.raises(ValueError, match="detach_sources=False"):
        influence(pair, data)


class FromRows(torch.nn.Module):
    """A guide that computed the expected log-likelihood when it was made."""

    def __init__(self, data):
        super().__init__()
        self.loc = torch.nn.Parameter(torch.zeros(data.num_tasks, 1))
        self.num, self.total = data.mask.sum(1, keepdim=True), data.y.sum(1, keepdim=True)

    def forward(self, data):
        expected = self.total * self.loc - self.num * (self.loc**2 + 1) / 2
        with pyro.plate("task", data.num_tasks, dim=-2):
            pyro.sample("w", dist.Normal(self.loc, 1.0), infer={"expected": {"y": expected}})


def test_a_loss_without_weights_of_rows_is_refused():
    data = regression(dtype=torch.float32)

    def model(data, plate="data"):
        with pyro.plate("task", data.num_tasks, dim=-2):
            w = pyro.sample("w", dist.Normal(torch.zeros(()), 1.0))
            with pyro.plate(plate, data.num_rows, dim=-1), poutine.mask(mask=data.mask):
                pyro.sample("y", dist.Normal(w, 1.0), obs=data.y)

    with pytest.raises(ValueError, match="take_rows"):
        influence((model, FromRows(data)), data)
    with pytest.raises(ValueError, match="plate 'data'"):
        influence((lambda data: model(data, "rows"), FromRows(data)), data)


def test_unknown_rows_and_tasks_are_told(soft):
    pair, data = soft
    with pytest.raises(ValueError, match="row 99"):
        influence(pair, data, only=[99])
    with pytest.raises(ValueError, match="'t9'"):
        influence(pair, data, leave="task", only=["t9"])
    with pytest.raises(ValueError, match="'first'"):
        influence(pair, data, method="first")


class DoubleWell:
    """Stands for a weighted loss: 3 x^2 / 2 + (y^2 - 1)^2 / 4, with a saddle at y = 0.

    It is turned by 45 degrees: along each number alone the loss does not descend there.
    """

    def __init__(self, start):
        self.weight = torch.ones(1, 1, dtype=F64)
        self.free = torch.ones(2, dtype=torch.bool)
        self.numbers = torch.tensor(start, dtype=F64)

    @property
    def numbers(self):
        return self.parameters[0].detach()

    @numbers.setter
    def numbers(self, values):
        self.parameters = [values.detach().clone().requires_grad_()]

    def install(self, parameters):
        self.parameters = list(parameters)

    def __call__(self, weight):
        first, second = self.parameters[0] / 2**0.5
        x, y = first + second, first - second
        return 3 * x**2 / 2 + (y**2 - 1) ** 2 / 4

    def hessian(self, weight):
        return Hessian(self(weight), self.parameters, self.free)

    def curvature(self, weight):
        return Curvature(self(weight), self.parameters, self.free)

    def with_gradient(self, weight):
        value = self(weight)
        return value.detach(), torch.autograd.grad(value, self.parameters)[0]

    def renew(self):
        self.numbers = self.numbers

    def move_to(self, values):
        self.parameters[0].data.copy_(values)


def test_a_polish_leaves_a_saddle():
    loss = DoubleWell([0.3, 0.299])
    curvature, distance = polish(loss, loss.weight)
    assert distance < 1e-9 and curvature.descent == 0
    # at the optimum x = 0 and y = 1 or -1
    torch.testing.assert_close(loss.numbers.abs(), torch.full((2,), 0.5**0.5, dtype=F64))
    assert loss.numbers.sum().abs() < 1e-9
