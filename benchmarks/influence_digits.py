"""Influence in point estimates on rotated digits, against refits in plain torch.

python -m benchmarks.influence logistic --seeds 5
python -m benchmarks.influence network --seeds 5

Six tasks of 50 rows of scikit-learn's digits, in 30 principal components, and 50 test rows each.
``logistic`` is logistic regression with soft sharing, coefficients that are a common part and one
of each task, and ``network`` has a layer of 16 tanh units that all tasks share and a last layer of
each, both with normal priors. The quantities are the log densities of single test rows. Each row is
left out in turn, and 100 random halves of the rows. One line of JSON for each seed: means over the
test rows of correlations over training rows of the test row's task (within) and of others
(between), and of rank correlations over the halves (LDS). Where dattri is installed (``pip install
--no-deps dattri``), its explicit solver ranks the rows of the network from the same optimum, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta
from scipy.optimize import minimize
from scipy.stats import spearmanr
from torch import Tensor

from pyro_vmtl import TaskData, fit, influence
from pyro_vmtl.datasets import rotated_digits
from pyro_vmtl.methods.fitted import Fitted

NUM_TASKS, NUM_TEST, SIZE, CLASSES, UNITS, HALVES = 6, 50, 30, 10, 16, 100

Numbers = dict[str, Tensor]


def logistic(numbers: Numbers, x: Tensor) -> Tensor:
    """Compute logits of rows (T, N, F), by coefficients (T, 1, F, C)."""
    return (x[..., None, :] @ (numbers["common"] + numbers["own"]))[..., 0, :]


def network(numbers: Numbers, x: Tensor) -> Tensor:
    """Compute logits of rows (T, N, F), by a layer (F, U) of all tasks and one of each."""
    hidden = (x[..., None, :] @ numbers["common"])[..., 0, :].tanh()  # for draws on the left, too
    hidden = torch.cat([hidden, torch.ones_like(hidden[..., :1])], -1)
    return (hidden[..., None, :] @ numbers["own"])[..., 0, :]


PROGRAMS = {
    "logistic": (logistic, (SIZE + 1, CLASSES), (SIZE + 1, CLASSES), 0.5),
    "network": (network, (SIZE + 1, UNITS), (UNITS + 1, CLASSES), 1.0),
}
"""Logits, shapes of the common numbers and those of a task, and the scale of the latter's prior."""


def digits(seed: int) -> tuple[TaskData, TaskData]:
    """Return training and test rows."""
    split = rotated_digits(percent=3, seed=seed)
    centre = split.X_train.mean(0)
    axes = np.linalg.svd(split.X_train - centre, full_matrices=False)[2][:SIZE].T
    chosen = np.random.default_rng(seed).permutation(len(split.y_test) // NUM_TASKS)[:NUM_TEST]
    test = np.concatenate([np.flatnonzero(np.array(split.tasks_test) == t)[chosen]
                           for t in sorted(set(split.tasks_test))])  # fmt: skip
    train, other = (torch.from_numpy((X - centre) @ axes) for X in (split.X_train, split.X_test))
    data = TaskData.classification(train, split.y_train, split.tasks_train).with_intercept()
    tasks = [split.tasks_test[i] for i in test]
    return data, data.new_rows(other[test], tasks, split.y_test[test])


class Plain:
    """The same loss in plain torch, as a function of all numbers (n,)."""

    def __init__(self, name: str, data: TaskData, test: TaskData) -> None:
        self.logits, common, own, self.scale = PROGRAMS[name]
        self.shapes = {"common": common, "own": (NUM_TASKS, 1, *own)}
        self.data, self.test = data, test

    def numbers(self, flat: Tensor) -> Numbers:
        """Split them by name."""
        sizes = [int(np.prod(shape)) for shape in self.shapes.values()]
        parts = zip(self.shapes.items(), flat.split(sizes), strict=True)
        return {name: part.view(shape) for (name, shape), part in parts}

    def log_density(self, flat: Tensor, rows: TaskData) -> Tensor:
        """Compute the log density of each row, (T, N)."""
        logits = self.logits(self.numbers(flat), rows.x)
        return logits.log_softmax(-1).gather(-1, rows.y[..., None].clamp_min(0))[..., 0]

    def loss(self, flat: Tensor, weight: Tensor) -> Tensor:
        """Compute the negative log density of the priors and of weighted rows, (T, N)."""
        numbers = self.numbers(flat)
        priors = (numbers["common"] ** 2).sum() + ((numbers["own"] / self.scale) ** 2).sum()
        return priors / 2 - (weight * self.log_density(flat, self.data)).sum()

    def optimum(self, start: Tensor, weight: Tensor, root: Tensor) -> Tensor:
        """Minimize by L-BFGS, in units of a root of the inverse Hessian."""

        def evaluate(moved: np.ndarray) -> tuple[float, np.ndarray]:
            flat = (start + root @ torch.from_numpy(moved)).requires_grad_()
            value = self.loss(flat, weight)
            return value.item(), (root.T @ torch.autograd.grad(value, flat)[0]).numpy()

        options = {"maxiter": 2000, "maxfun": 3000, "maxcor": 30, "ftol": 0.0, "gtol": 1e-8}
        found = minimize(evaluate, np.zeros(len(start)), jac=True, method="L-BFGS-B",
                         options=options)  # fmt: skip
        return start + root @ torch.from_numpy(found.x)

    def root(self, flat: Tensor, weight: Tensor) -> Tensor:
        """Return a root of the inverse Hessian, (n, n)."""
        gradient = torch.func.grad(self.loss)
        hessian = torch.func.jacrev(gradient, chunk_size=64)(flat, weight).detach()
        values, directions = torch.linalg.eigh((hessian + hessian.T) / 2)
        return directions * values.abs().clamp_min(1e-3).rsqrt()

    def outputs(self, flat: Tensor) -> Tensor:
        """Compute the log densities of the test rows."""
        return self.log_density(flat, self.test).flatten().detach()


def program(plain: Plain) -> Callable[[TaskData], None]:
    """Return the Pyro program."""

    def model(data: TaskData) -> None:
        common, own = (torch.zeros(shape).double() for shape in plain.shapes.values())
        numbers = {"common": pyro.sample("common", dist.Normal(common, 1.0).to_event(2))}
        with pyro.plate("task", data.num_tasks, dim=-2):
            prior = dist.Normal(own, plain.scale).to_event(2)
            numbers["own"] = pyro.sample("own", prior)
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
                logits = plain.logits(numbers, data.x)
                pyro.sample("y", dist.Categorical(logits=logits), obs=data.y)

    return model


def compare(name: str, seed: int) -> dict[str, Any]:
    """Compare estimates with refits without each row, and without half of the rows."""
    data, test = digits(seed)
    plain = Plain(name, data, test)
    model, pair_seconds = program(plain), time.process_time()
    pyro.set_rng_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    start = (
        0.3 * torch.randn(sum(map(np.prod, plain.shapes.values())), generator=generator).double()
    )
    values = {k: v.clone() for k, v in plain.numbers(start).items()}
    guide = AutoDelta(model, init_loc_fn=lambda site: values[site["name"]])
    fit(model, guide, data, optimizer="lbfgs", num_steps=300)

    def quantity(fitted: Fitted) -> Tensor:
        predictive = fitted.predictive(test, num_samples=1, differentiable=True)
        return predictive.log_prob(test.y).flatten()

    weight = data.mask.double()
    fitted = torch.cat([p.detach().flatten().double() for p in guide.parameters()])
    full = plain.optimum(fitted, weight, plain.root(fitted, weight))
    torch.nn.utils.vector_to_parameters(full, guide.parameters())  # of several optima, one for all
    seconds = {"fit": time.process_time() - pair_seconds}
    begun = time.process_time()
    found = influence((model, guide), data, of=quantity)
    seconds["influence"] = time.process_time() - begun
    scores = torch.as_tensor(found["influence"].values)  # (rows, test rows)

    begun = time.process_time()
    root, outputs = plain.root(full, weight), plain.outputs(full)
    places = [divmod(int(i), data.num_rows) for i in data.mask.flatten().nonzero()[:, 0]]
    places.sort(key=lambda place: int(data.row[place]))
    exact = []
    for place in places:
        less = weight.clone()
        less[place] = 0.0
        exact.append(outputs - plain.outputs(plain.optimum(full, less, root)))
    seconds["refits"] = time.process_time() - begun
    loo = torch.stack(exact)

    result: dict[str, Any] = {
        "model": name, "seed": seed, "rows": len(places), "numbers": len(full),
        "distance": found.attrs["distance"],
        **_judged(plain, scores, loo, places, full, root, seed),
    }  # fmt: skip
    if name == "network":
        result["LDS from its start"] = _halves(plain, scores, places, start, root, seed)
        if find_spec("dattri") is not None:
            begun = time.process_time()
            theirs = of_dattri(plain, full, places)
            seconds["dattri"] = time.process_time() - begun
            result["dattri"] = _judged(plain, theirs, loo, places, full, root, seed)
    return result | {"seconds": {key: round(value, 1) for key, value in seconds.items()}}


def _judged(
    plain: Plain,
    scores: Tensor,
    exact: Tensor,
    places: Sequence[tuple[int, int]],
    start: Tensor,
    root: Tensor,
    seed: int,
) -> dict[str, Any]:
    """Compare scores with refits without each row, and with fits of half the rows."""
    of = torch.arange(NUM_TASKS).repeat_interleave(NUM_TEST)
    own = torch.tensor([t for t, _ in places])[:, None] == of
    return {
        "within": _mean_correlations(scores, exact, own),
        "between": _mean_correlations(scores, exact, ~own),
        "LDS": _halves(plain, scores, places, start, root, seed),
    }


class Network(torch.nn.Module):
    """The network for dattri, of rows (N, F) and their tasks (N,)."""

    def __init__(self, numbers: Numbers) -> None:
        super().__init__()
        self.common = torch.nn.Parameter(numbers["common"].clone())
        self.own = torch.nn.Parameter(numbers["own"].flatten(1).clone())

    def forward(self, x: Tensor, tasks: Tensor) -> Tensor:
        """Compute logits."""
        hidden = (x @ self.common).tanh()
        hidden = torch.cat([hidden, torch.ones_like(hidden[..., :1])], -1)
        chosen = (tasks[..., None] == torch.arange(NUM_TASKS)).to(x) @ self.own
        return (hidden[..., None, :] @ chosen.unflatten(-1, (UNITS + 1, CLASSES)))[..., 0, :]


def of_dattri(plain: Plain, full: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
    """Compute the scores of dattri's explicit solver, (rows, test rows)."""
    from dattri.algorithm.influence_function import IFAttributorExplicit
    from dattri.task import AttributionTask
    from torch.utils.data import DataLoader, TensorDataset

    model = Network(plain.numbers(full))

    def loss(params: Any, batch: tuple[Tensor, ...]) -> Tensor:
        logits = torch.func.functional_call(model, params, batch[:2])
        return torch.nn.functional.cross_entropy(logits, batch[2])

    def rows_of(data: TaskData, task: Tensor, number: Tensor) -> DataLoader[Any]:
        assert data.y is not None
        rows = TensorDataset(data.x[task, number].double(), task, data.y[task, number])
        return DataLoader(rows, batch_size=len(rows), shuffle=False)

    train = rows_of(plain.data, *torch.tensor(places).T)
    test = rows_of(plain.test, *plain.test.mask.nonzero().T)
    task = AttributionTask(loss_func=loss, model=model, checkpoints=model.state_dict())
    attributor = IFAttributorExplicit(task, regularization=1 / len(places))  # the normal priors
    attributor.cache(train)
    return attributor.attribute(train, test).detach() / len(places)


def _mean_correlations(scores: Tensor, exact: Tensor, of: Tensor) -> dict[str, float]:
    """Average correlations over training rows, one for each test row."""
    pairs = [
        (scores[rows, i].numpy(), exact[rows, i].numpy()) for i, rows in enumerate(of.unbind(1))
    ]
    return {
        "r": round(float(np.mean([np.corrcoef(*pair)[0, 1] for pair in pairs])), 3),
        "rho": round(float(np.mean([spearmanr(*pair)[0] for pair in pairs])), 3),
        "r of all": round(float(np.corrcoef(scores[of].numpy(), exact[of].numpy())[0, 1]), 3),
    }


def _halves(
    plain: Plain,
    scores: Tensor,
    places: Sequence[tuple[int, int]],
    start: Tensor,
    root: Tensor,
    seed: int,
) -> float:
    """Compute the linear datamodelling score: sums of influence beside fits of half the rows."""
    predicted, refitted = [], []
    generator = torch.Generator().manual_seed(seed)
    for _ in range(HALVES):
        kept = torch.randperm(len(places), generator=generator)[: len(places) // 2]
        weight = torch.zeros_like(plain.data.mask, dtype=torch.float64)
        for i in kept.tolist():
            weight[places[i]] = 1.0
        predicted.append(scores[kept].sum(0))
        refitted.append(plain.outputs(plain.optimum(start, weight, root)))
    pairs = zip(torch.stack(predicted).T, torch.stack(refitted).T, strict=True)
    return round(float(np.mean([spearmanr(a, b)[0] for a, b in pairs])), 3)
