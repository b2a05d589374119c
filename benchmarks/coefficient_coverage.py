"""Measure which share of 90 % intervals holds the coefficients, with and without linear response.

python -m benchmarks.coefficient_coverage --seeds 4

Tasks are linear regressions with noise 1 on standard normal features. Coefficients of a group lie
about a centre, N(0, 1), with a standard deviation of 0.3; without groups they are N(0, 1).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.markdown import markdown
from pyro_vmtl import LinearResponse, TaskData, fit, unwrap
from pyro_vmtl.methods.presets import presets
from pyro_vmtl.sharing.sources import Sources

SPREAD = 0.3
QUANTILE = 1.6449


class Problem(NamedTuple):
    """Numbers of tasks, rows of a task, coefficients, and groups; 0 for none."""

    tasks: int
    rows: int
    coefficients: int
    groups: int


PROBLEMS = (
    *(Problem(tasks, 40, size, 4) for tasks in (8, 32) for size in (5, 16)),
    *(Problem(tasks, 40, size, 0) for tasks in (8, 32) for size in (5, 16)),
    *(Problem(tasks, 10, 5, groups) for tasks in (8, 32) for groups in (4, 0)),
)


def exact(problem: Problem, data: TaskData) -> tuple[Tensor, Tensor]:
    """Compute the posterior means and standard deviations (T, P) where all else is known."""
    tasks, _, size, groups = problem
    group = torch.arange(tasks) % groups if groups else torch.arange(tasks)
    prior = (group[:, None] == group).double()
    if groups:
        prior += SPREAD**2 * torch.eye(tasks)
    x, y = data.x.double(), data.y.double()  # type: ignore[union-attr]
    precision = torch.kron(torch.linalg.inv(prior).contiguous(), torch.eye(size))
    covariance = torch.linalg.inv(precision + torch.block_diag(*(x.mT @ x)))
    mean = covariance @ (x.mT @ y[..., None]).flatten()
    return mean.reshape(tasks, size), covariance.diagonal().sqrt().reshape(tasks, size)


def draw(problem: Problem, seed: int) -> tuple[TaskData, Tensor]:
    """Draw rows and coefficients (T, P)."""
    random = np.random.default_rng(seed)
    tasks, rows, size, groups = problem
    w = random.normal(size=(tasks, size))
    if groups:
        centres = random.normal(size=(groups, size))
        w = centres[np.arange(tasks) % groups] + SPREAD * w
    x = random.normal(size=(tasks, rows, size))
    y = np.einsum("tnp,tp->tn", x, w) + random.normal(size=(tasks, rows))
    labels = np.repeat(np.arange(tasks), rows).tolist()
    data = TaskData.regression(x.reshape(-1, size).tolist(), y.flatten().tolist(), labels)
    return data, torch.tensor(w)


METHODS = ("shared", "shared, transfer scale known", "mixed-model")


def hold_transfer_scale(guide: nn.Module, problem: Problem) -> None:
    """Set the transfer scale to what tasks of a group differ by."""
    variance = 2 * (SPREAD if problem.groups else 1.0) ** 2
    for sources in guide.modules():
        if isinstance(sources, Sources) and sources.raw_transfer_scale is not None:
            sources.raw_transfer_scale.data.fill_(np.log(variance) / 2)
            sources.raw_transfer_scale.requires_grad_(False)


def measure(name: str, problem: Problem, seed: int) -> dict[str, float]:
    """Fit, and compare intervals with the truth."""
    data, w = draw(problem, seed)
    preset: Any = presets("regression")[name.partition(",")[0]].few_features
    settings = preset.fit_settings(data)
    model, guide = preset.initial_programs(data, seed)
    if name == METHODS[1]:
        guide(data)  # makes the sources
        hold_transfer_scale(guide, problem)
    fit(model, guide, data, seed=seed, **settings)
    program: Any = unwrap(guide)
    posterior = program.posterior("w")
    error = posterior.mean[:, 0].detach() - w
    own = posterior.variance[:, 0].sqrt().detach()
    start = perf_counter()
    response = LinearResponse(model, guide, data, elbo=settings["elbo"])
    linear = response.stddev("w")[:, 0]
    seconds = perf_counter() - start
    known, width = exact(problem, data)
    return {
        "rmse": float(error.square().mean().sqrt()),
        "own": float((error.abs() < QUANTILE * own).double().mean()),
        "linear response": float((error.abs() < QUANTILE * linear).double().mean()),
        "exact": float(((known - w).abs() < QUANTILE * width).double().mean()),
        "exact rmse": float((known - w).square().mean().sqrt()),
        "rms z": float((error / linear).square().mean().sqrt()),
        "ratio of sd": float((linear / own).mean()),
        "distance": response.distance,
        "descent": response.curvature.descent,
        "seconds": seconds,
    }


def table(results: dict[tuple[Problem, str], list[dict[str, float]]]) -> str:
    """Tabulate means and standard errors over seeds."""
    rows = []
    for (problem, name), found in results.items():
        cells = [", ".join(map(str, problem)), name]
        for key in found[0]:
            values = np.array([each[key] for each in found])
            error = f" ± {values.std(ddof=1) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
            cells.append(
                f"{values.mean():.3g}"
                + (error if key in ("own", "linear response", "exact") else "")
            )
        rows.append(cells)
    columns = ["tasks, rows, coefficients, groups", "method", *next(iter(results.values()))[0]]
    return markdown(columns, rows)


def main(args: Sequence[str] | None = None) -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seeds", type=int, default=4, help="seeds of 32 tasks; 4 times as many of 8"
    )
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    given = parser.parse_args(args)
    results = {}
    for problem in PROBLEMS:
        for name in given.methods:
            results[problem, name] = [
                measure(name, problem, seed)
                for seed in range(given.seeds * (4 if problem.tasks == 8 else 1))
            ]
            print(table({(problem, name): results[problem, name]}).splitlines()[-1], flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
