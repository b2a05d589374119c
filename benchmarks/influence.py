"""Compare estimates of influence with refits, and with what else ranks rows.

python -m benchmarks.influence refits --rows 40 --seeds 5
python -m benchmarks.influence flips --seeds 5
python -m benchmarks.influence tasks --seeds 5
python -m benchmarks.influence selection --seeds 5
python -m benchmarks.influence digits-selection --seeds 5
python -m benchmarks.influence logistic --seeds 5
python -m benchmarks.influence network --seeds 5

One line of JSON for each seed. ``refits`` leaves out rows of four tasks in two groups, one by one,
and correlates estimates of how the log density of 100 test rows of each task changes with what
refits say, for a row's own task (within) and for others (between), which are never pooled.
``flips`` finds 10 % of labels that were flipped, ``tasks`` leaves out whole tasks, and
``selection`` and ``digits-selection`` leave out rows that harm. ``logistic`` and ``network`` are
point estimates on digits, see :mod:`benchmarks.influence_digits`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.datasets import SUITE
from benchmarks.influence_digits import PROGRAMS, compare
from benchmarks.rows import to_task_data
from pyro_vmtl import TaskData, influence, select_rows
from pyro_vmtl.analysis import plot_influence_against_refits
from pyro_vmtl.attribution.influence import log_density
from pyro_vmtl.attribution.responses import Responses
from pyro_vmtl.data.folds import keep_rows
from pyro_vmtl.linear_response.curvature import Curvature
from pyro_vmtl.linear_response.response import as_double
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.presets import presets

MEMBERS = {
    kind: {name: presets(kind)[name].few_features for name in ("shared", "mixed-model")}
    for kind in ("regression", "classification")
}


def problem(
    num_tasks: int, num_rows: int, *, seed: int, classes: bool = False, strangers: int = 0
) -> tuple[TaskData, TaskData]:
    """Draw tasks in two groups and strangers, with training rows and 100 test rows each."""
    g, size = torch.Generator().manual_seed(seed), 4
    centres = torch.randn(2, size, generator=g)
    w = centres[torch.arange(num_tasks) % 2] + 0.3 * torch.randn(num_tasks, size, generator=g)
    w[num_tasks - strangers :] = 2 * torch.randn(strangers, size, generator=g)
    both = []
    for number in (num_rows, 100):
        X = torch.randn(num_tasks * number, size, generator=g)
        tasks = torch.arange(num_tasks).repeat_interleave(number)
        mean = (X * w[tasks]).sum(1)
        noise = torch.randn(len(X), generator=g)
        labels = [f"t{t}" for t in tasks.tolist()]
        if classes:
            y = (2 * mean + noise > 0).long()
            both.append((X, y.tolist(), labels))
        else:
            both.append((X, mean + 0.5 * noise, labels))
    make = TaskData.classification if classes else TaskData.regression
    data = make(*both[0]).with_intercept()
    X, y, labels = both[1]
    return data, data.new_rows(X, labels, y)


def refits(
    num_rows: int, seed: int, member: str, every: int, picture: str | None = None
) -> dict[str, Any]:
    """Correlate estimates with refits, and draw them."""
    data, test = problem(4, num_rows, seed=seed)
    fitted = MEMBERS["regression"][member].fit(data, seed=seed)
    only = range(0, int(data.mask.sum()), every)
    estimates, seconds = {}, {}
    for method in ("first-order", "newton", "refit"):
        begun = time.perf_counter()
        part: Any = {} if method == "first-order" else {"only": only}
        found = influence(fitted, data, rows=test, method=method, **part)
        seconds[method] = round(time.perf_counter() - begun, 2)
        estimates[method] = found.sel(row=list(only))
    exact = estimates.pop("refit")
    if picture is not None:
        axes = plot_influence_against_refits(estimates["first-order"], exact)
        axes[0].figure.savefig(picture, dpi=100)
    steps = estimates["first-order"]["step"].values
    scores = {name: found["influence"].values for name, found in estimates.items()}
    # of the rows that move the fit most, one in ten is refitted
    flagged = np.argsort(-steps)[: max(1, len(steps) // 10)]
    scores["newton, 10 % refitted"] = scores["newton"].copy()
    scores["newton, 10 % refitted"][flagged] = exact["influence"].values[flagged]
    scores |= {n: v[list(only)] for n, v in _baselines(fitted, data, test, seed).items()}
    own = exact["row_task"].values[:, None] == exact["task"].values
    result: dict[str, Any] = {"member": member, "rows": num_rows, "seed": seed, "seconds": seconds}
    for name, values in scores.items():
        result[name] = {
            where: _agreement(values[of], exact["influence"].values[of])
            for where, of in (("within", own), ("between", ~own))
        }
    return result


def _agreement(estimate: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    return {
        "r": round(float(np.corrcoef(estimate, exact)[0, 1]), 3),
        "rho": round(float(spearmanr(estimate, exact)[0]), 3),
        "slope": round(float(np.polyfit(estimate, exact, 1)[0]), 3),
    }


def _baselines(fitted: Fitted, data: TaskData, test: TaskData, seed: int) -> dict[str, np.ndarray]:
    """Score rows by simpler means, each (rows, tasks)."""
    responses = Responses(fitted, data)
    loss, curvature, *_ = responses._parts[0]
    values = responses._values(
        lambda fit: log_density(fit, as_double(test), num_samples=200, seed=0), grad=True
    )
    targets = curvature.pull_back(values, torch.eye(len(values)).to(values))
    by_weight = torch.autograd.grad(loss(loss.weight), loss.weight, create_graph=True)[0][data.mask]
    order = data.row[data.mask].argsort()
    rows = -curvature.pull_back(by_weight, torch.eye(len(by_weight)).to(values))[order]
    frozen = _only_means(loss, curvature)
    unit = [v / v.norm(dim=1, keepdim=True) for v in (rows, targets)]
    noise = torch.randn(len(rows), len(values), generator=torch.Generator().manual_seed(seed))
    own = -by_weight.detach()[order, None].expand(-1, len(values))
    found: dict[str, Tensor] = {
        "gradient step (TAG)": rows @ targets.T,
        "cosine of gradients": unit[0] @ unit[1].T,
        "means only": rows[:, frozen] @ _solve(curvature, frozen, targets[:, frozen]).T,
        "own log density": own,
        "random": noise,
    }
    return {name: score.detach().numpy() for name, score in found.items()}


def _only_means(loss: Any, curvature: Curvature) -> Tensor:
    """Return which of the free numbers are means of coefficients."""
    named = loss._modules[0].named_parameters()
    marks = [torch.full((p.numel(),), ".locs.w" in n) for n, p in named if p.requires_grad]
    return torch.cat(marks)[loss.free]


def _solve(curvature: Curvature, of: Tensor, vectors: Tensor) -> Tensor:
    """Solve with the part of the Hessian that is of some numbers."""
    places = of.nonzero()[:, 0]
    units = torch.zeros(len(places), len(of)).to(vectors)
    units[torch.arange(len(places)), places] = 1.0
    return torch.linalg.solve(curvature.times(units)[:, of], vectors.T).T


def flips(seed: int, member: str) -> dict[str, Any]:
    """Find flipped labels by their influence on validation rows of all tasks."""
    data, test = problem(6, 40, seed=seed, classes=True)
    assert data.y is not None
    flipped = torch.rand(data.mask.shape, generator=torch.Generator().manual_seed(seed)) < 0.1
    data.y[flipped] = 1 - data.y[flipped]
    fitted = MEMBERS["classification"][member].fit(data, seed=seed)
    truth = flipped[data.mask][data.row[data.mask].argsort()].numpy()
    result: dict[str, Any] = {"member": member, "seed": seed}
    for name, rows in (("other rows", test), ("the rows of the fit", data)):
        found = influence(fitted, data, rows=rows)["influence"].sum("task")
        result[name] = round(float(roc_auc_score(truth, -found)), 3)
    own = fitted.predictive(data).log_prob(data.y)
    result["own log density"] = round(float(roc_auc_score(truth, -data.unpad(own).numpy())), 3)
    return result


def tasks(seed: int, member: str) -> dict[str, Any]:
    """Compare estimates of leaving out whole tasks with fits from the start, in other tasks.

    Those are with rows of weight 0, at the optimum of the same loss, and of the other tasks alone.
    """
    data, test = problem(8, 25, seed=seed, strangers=2)
    method = MEMBERS["regression"][member]
    fitted = method.fit(data, seed=seed)
    found: dict[str, np.ndarray] = {}
    seconds = {}
    for name in ("first-order", "newton", "refit"):
        begun = time.process_time()
        estimate = influence(fitted, data, rows=test, leave="task", method=name)  # type: ignore[arg-type]
        found[name] = estimate["influence"].values
        seconds[name] = round(time.process_time() - begun, 1)

    def densities(rows: TaskData, fit: Fitted | None = None) -> np.ndarray:
        fit = method.fit(rows, seed=seed) if fit is None else fit
        labels = list(rows.task_labels)
        of = test if len(labels) == 8 else _only(test, labels)

        def quantity(fit: Fitted) -> Tensor:  # other draws for fewer tasks: many
            return log_density(fit, as_double(of), num_samples=10_000, seed=0)

        return Responses(fit, rows)._values(quantity).numpy()

    before = densities(data, fitted)
    exact = {"weight 0": np.zeros((8, 8)), "other tasks alone": np.zeros((8, 8))}
    for t, label in enumerate(data.task_labels):
        weight = data.mask.float()
        weight[t] = 0.0
        exact["weight 0"][t] = before - densities(replace(data, weight=weight))
        labels = [other for other in data.task_labels if other != label]
        of = [data.task_labels.index(other) for other in labels]
        exact["other tasks alone"][t, of] = before[of] - densities(_only(data, labels))
    others = ~np.eye(8, dtype=bool)
    return {"member": member, "seed": seed, "seconds": seconds} | {
        against: {name: _agreement(values[others], truth[others]) for name, values in found.items()}
        for against, truth in exact.items()
    }


def _only(data: TaskData, labels: Sequence[Any]) -> TaskData:
    """Return the rows of some tasks."""
    of = torch.tensor([data.task_labels.index(label) for label in labels])
    task = of[:, None].expand(-1, data.num_rows)[data.mask[of]]
    x, y = data.x[of][data.mask[of]], data.y[of][data.mask[of]]  # type: ignore[index]
    made = TaskData.regression(x, y, [data.task_labels[t] for t in task.tolist()])
    return replace(made, intercept=data.intercept)


def selection(seed: int, member: str) -> dict[str, Any]:
    """Leave out rows of made-up tasks, the first with 20 % flipped labels."""
    data, test = problem(6, 30, seed=seed, classes=True, strangers=2)
    assert data.y is not None and test.y is not None
    g = torch.Generator().manual_seed(seed)
    flipped = torch.rand(data.num_rows, generator=g) < 0.2
    data.y[0, flipped] = 1 - data.y[0, flipped]
    method = MEMBERS["classification"][member]
    parts = torch.arange(100).split(50)
    return {"seed": seed, "member": member} | _select(method, data, test, parts, flipped, seed, g)


def digits_selection(seed: int, member: str) -> dict[str, Any]:
    """Leave out rows of digits, half of the tasks strangers, the first with 20 % wrong labels."""
    data, test = to_task_data(SUITE["digits unrelated 5 %"][0].split(seed), "classification")
    assert data.y is not None and test.y is not None
    g = torch.Generator().manual_seed(seed)
    wrong = (torch.rand(data.num_rows, generator=g) < 0.2) & data.mask[0]
    shift = torch.randint(1, 10, (int(wrong.sum()),), generator=g)
    data.y[0, wrong] = (data.y[0, wrong] + shift) % 10
    method: Any = presets("classification")[member]
    parts = torch.randperm(test.num_rows, generator=g).split([200, test.num_rows - 200])
    return {"seed": seed, "member": member} | _select(method, data, test, parts, wrong, seed, g)


def _select(
    method: Any,
    data: TaskData,
    test: TaskData,
    parts: Sequence[Tensor],
    wrong: Tensor,
    seed: int,
    g: torch.Generator,
) -> dict[str, Any]:
    """Select by a part of each task's test rows, and judge by another; or leave out at random."""
    validation, judged = (
        test.take(part.expand(len(test.mask), -1), torch.ones(len(test.mask), len(part)).bool())
        for part in parts
    )
    chosen = select_rows(method, data, validation, seed=seed)
    number = int((data.mask & ~chosen.kept).sum())
    scores = {"all rows": method.fit(data, seed=seed), "selected": chosen.fitted}
    if number:
        random = torch.rand(data.mask.shape, generator=g)
        left_out = random.masked_fill(~data.mask, 2.0).flatten().argsort()[:number]
        kept = data.mask.clone().flatten()
        kept[left_out] = False
        scores["random"] = method.fit(keep_rows(data, kept.reshape(data.mask.shape)), seed=seed)
    assert judged.y is not None
    nll = {
        name: round(-float(fit.predictive(judged).log_prob(judged.y).mean()), 4)
        for name, fit in scores.items()
    }
    found = int((~chosen.kept[0] & wrong).sum())
    return {"left out": number, "of these wrong": found, "wrong": int(wrong.sum()), "nll": nll}


OTHERS = {
    "flips": flips,
    "tasks": tasks,
    "selection": selection,
    "digits-selection": digits_selection,
}


def main(args: Sequence[str] | None = None) -> None:
    """Print a line for each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("refits", *OTHERS, *PROGRAMS))
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--member", default="shared", help="a preset")
    parser.add_argument("--every", type=int, default=1, help="of so many rows, one is left out")
    parser.add_argument("--picture", help="file to draw estimates against refits in")
    given = parser.parse_args(args)
    for line in _lines(given):
        print(json.dumps(line), flush=True)


def _lines(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for seed in range(given.seeds):
        if given.what == "refits":
            yield refits(given.rows, seed, given.member, given.every, given.picture)
        elif given.what in PROGRAMS:
            yield compare(given.what, seed)
        else:
            yield OTHERS[given.what](seed, given.member)


if __name__ == "__main__":
    main()
