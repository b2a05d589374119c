"""Run simulation-based calibration of the regression members of the default.

python -m benchmarks.simulation_calibration --simulations 100

Coefficients, groups of tasks and targets are drawn, the preset is fitted, and the coefficients are
ranked among draws with the covariances of linear response. The same ranks of posteriors that are
wrong on purpose, by half a standard deviation or in width, have to be found out.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from benchmarks.markdown import markdown
from pyro_vmtl import LinearResponse, TaskData
from pyro_vmtl.analysis import rank_uniformity, simulate_ranks
from pyro_vmtl.methods.presets import presets

SPREAD, NOISE, FEATURES = 0.3, 1.0, 4
WRONG = {"calibrated": (1.0, 0.0), "too narrow": (0.7, 0.0), "too wide": (1.4, 0.0)}
WRONG |= {"biased up": (1.0, 0.5), "biased down": (1.0, -0.5)}
"""Factors of the standard deviations and shifts in units of these, by verdict."""


class Regressions:
    """Linear regressions whose coefficients lie about the centre of their group.

    Without groups, all tasks have one centre, and each coefficient has a spread of its own.
    """

    def __init__(self, num_groups: int) -> None:
        self.num_groups = num_groups

    def __call__(self, data: TaskData) -> None:
        """Draw everything."""
        size, groups = data.num_features, max(self.num_groups, 1)
        spread = torch.full((size,), SPREAD)
        if not self.num_groups:
            spread = pyro.sample("w_scale", dist.LogNormal(spread.log(), 0.5).to_event(1))
        with pyro.plate("group", groups, dim=-1):
            centre = pyro.sample("centre", dist.Normal(torch.zeros(size), 1.0).to_event(1))
        centre = centre[torch.arange(data.num_tasks) % groups].unsqueeze(-2)
        with pyro.plate("task", data.num_tasks, dim=-2):
            w = pyro.sample("w", dist.Normal(centre, spread).to_event(1))
            mean = (data.x * w).sum(-1)
            with pyro.plate("data", data.num_rows, dim=-1):
                pyro.sample("y", dist.Normal(mean, NOISE), obs=data.y)


def rows(num_tasks: int, num_rows: int, num_features: int) -> TaskData:
    """Return rows with features only."""
    X = torch.as_tensor(np.random.default_rng(0).normal(size=(num_tasks * num_rows, num_features)))
    tasks = np.repeat(np.arange(num_tasks), num_rows).tolist()
    return TaskData.regression(X.float(), torch.zeros(len(X)), tasks)


class Pipeline:
    """Fit a preset to each simulation, once for all the guides that are made of the fit."""

    def __init__(self, name: str) -> None:
        self.preset: Any = presets("regression")[name].few_features
        self.fitted: dict[bytes, tuple[Any, Any]] = {}

    def guides(self, data: TaskData) -> tuple[Any, Any]:
        """Return the guide as fitted, and by linear response."""
        key = data.y.numpy().tobytes()  # type: ignore[union-attr]
        if key not in self.fitted:
            fitted = self.preset.fit(data).member
            elbo = self.preset.fit_settings(data)["elbo"]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a scale may have no optimum
                response = LinearResponse(fitted.model, fitted.guide, data, elbo=elbo)
            self.fitted[key] = fitted.guide, response.correct("w")
        return self.fitted[key]

    def as_fitted(self, _: Any, data: TaskData) -> Any:
        """Return the guide with its own covariances."""
        return self.guides(data)[0]

    def distorted(self, width: float, shift: float) -> Any:
        """Return a function that fits, and distorts the covariances of linear response."""

        def fit_guide(_: Any, data: TaskData) -> Any:
            guide = copy.deepcopy(self.guides(data)[1])
            loc, root = guide.state.normals["w"]
            stddev = root.square().sum(-1).sqrt().reshape(loc.shape)
            guide.state.normals["w"] = loc + shift * stddev, width * root
            return guide

        return fit_guide


def main(args: Sequence[str] | None = None) -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(args)
    columns = ["member", "tasks, rows, coefficients, groups", "posterior", "effective"]
    columns += ["p", "bias", "width", "verdict", "seconds"]
    print(markdown(columns, []), flush=True)
    settings = {"num_simulations": given.simulations, "seed": given.seed}
    for name, groups in (("mixed-model", 0), ("shared", 4)):
        for num_tasks, num_rows in ((8, 40), (32, 10)):
            pipeline, data = Pipeline(name), rows(num_tasks, num_rows, FEATURES)
            posteriors = {kind: pipeline.distorted(*how) for kind, how in WRONG.items()}
            for kind, fit_guide in {**posteriors, "as fitted": pipeline.as_fitted}.items():
                start = perf_counter()
                ranks = simulate_ranks(
                    Regressions(groups), fit_guide, data, sites=["w"], **settings
                )
                row = rank_uniformity(ranks).loc["w"]
                cells = [name, f"{num_tasks}, {num_rows}, {FEATURES}, {groups or 'none'}"]
                cells += [
                    "linear response" if kind == "calibrated" else kind,
                    str(row["effective"]),
                ]
                cells += [f"{row['p_value']:.3g}", f"{row['bias']:+.2f}", f"{row['width']:.2f}"]
                cells += [row["verdict"], f"{perf_counter() - start:.0f}"]
                print(markdown(columns, [cells]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
