"""Measure which share of 90 % intervals of the gallery of variants holds the truth.

python -m benchmarks.variants --seeds 20

Intervals are those of the guide, and those by linear response. ``--write`` also draws the pictures
of ``docs/variants/`` and writes the table into ``docs/variants.md``.
"""

from __future__ import annotations

import argparse
import importlib
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import matplotlib as mpl
import numpy as np
import pyro
import torch
from matplotlib.figure import Figure
from pyro import poutine
from torch import Generator, Tensor

from benchmarks.made_up import MADE_UP, MadeUp
from benchmarks.markdown import markdown
from pyro_vmtl import LinearResponse, TaskData, fit, unwrap
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.handlers.tracing import sample_sites

__all__ = ["fitted", "measure", "variant"]

ROOT = Path(__file__).parents[1]
DRAWS = 400
QUANTILE = 1.645
MARKS = "<!-- table -->", "<!-- end of the table -->"

NEEDED = {
    "robust": "`StudentT` in place of `Normal`",
    "poisson": 'a column `data.columns["exposure"]`',
    "negative_binomial": "the same, and a latent `shape`",
    "zero_inflated": "`register_family`, to mix and calibrate predictions",
    "ordinal": "gaps with a log-normal prior, so that cut-points stay in order",
    "censored": "a subclass of `Normal` with another `log_prob`, and a column `event`",
    "heteroscedastic": "two shared sites",
    "shared_heads": "an `nn.Module`: its layer is learned as a point",
    "group_predictors": "a column that is the same in a group; residuals of groups are shared",
    "nested": "a column with the school of a class; its residuals are shared",
}
"""What each variant takes beyond the linear model."""


def variant(name: str) -> Any:
    """Import a variant."""
    return importlib.import_module(f"variants.{name}")


def made_up(name: str, seed: int) -> MadeUp:
    """Draw the data of a variant."""
    return MADE_UP[name](Generator().manual_seed(seed))


def fitted(name: str, problem: MadeUp, seed: int = 0) -> tuple[Any, Any]:
    """Fit a variant."""
    with isolated(seed):
        model, guide = variant(name).programs(problem.data)
    fit(model, guide, problem.data, seed=seed, **variant(name).SETTINGS)
    return model, guide


def measure(name: str, seed: int) -> dict[str, dict[str, float]]:
    """Fit made-up data; return the shares of true values that intervals hold, and seconds."""
    problem, start = made_up(name, seed), process_time()
    model, guide = fitted(name, problem, seed)
    seconds = process_time() - start
    elbo = variant(name).SETTINGS["elbo"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        response = LinearResponse(model, guide, problem.data, elbo=elbo)
    sites = [site for site in problem.truth if site not in problem.functions]
    own = _held(guide, model, problem)
    corrected = _held(response.correct(*sites), model, problem)
    for name, function in problem.functions.items():  # of several sites, which have covariances
        with isolated(0), torch.no_grad():
            means = _means(guide, problem.data)
        error = function(model, means).flatten() - problem.truth[name].flatten()
        std = response.stddev(partial(function, model)).flatten()
        corrected[name] = float((error.abs() < QUANTILE * std).double().mean())
    return {
        site: {
            "own": own[site],
            "linear response": corrected[site],
            "seconds": seconds,
            "far from the optimum": float(bool(caught)),
        }
        for site in problem.truth
    }


def _means(guide: Any, data: TaskData) -> dict[str, Tensor]:
    """Return the posterior means of all sites."""
    nodes = sample_sites(poutine.trace(unwrap(guide)).get_trace(data))
    return {site: node["fn"].mean for site, node in nodes.items()}


@torch.no_grad()
def _held(guide: Any, model: Any, problem: MadeUp) -> dict[str, float]:
    """Return the share of true values in 90 % intervals of draws, by site or function."""
    with isolated(0), pyro.plate("draws", DRAWS, dim=-3):
        nodes = sample_sites(poutine.trace(unwrap(guide)).get_trace(problem.data))
    draws: Mapping[str, Tensor] = {site: node["value"] for site, node in nodes.items()}
    shares = {}
    for name, truth in problem.truth.items():
        found = problem.functions[name](model, draws) if name in problem.functions else draws[name]
        found = found.reshape(DRAWS, -1)
        low, high = (found.quantile(p, dim=0) for p in (0.05, 0.95))
        inside = (low < truth.flatten()) & (truth.flatten() < high)
        shares[name] = float(inside.double().mean())
    return shares


def table(results: Mapping[str, Sequence[Mapping[str, Mapping[str, float]]]]) -> str:
    """Tabulate coverages, with standard errors over seeds."""
    rows = []
    for name, seeds in results.items():
        lines = len((ROOT / "variants" / f"{name}.py").read_text().splitlines())
        for site in seeds[0]:
            first = site == next(iter(seeds[0]))
            link = f"[{name}](../variants/{name}.py)"
            cells = [link, str(lines), NEEDED[name], str(len(seeds))] if first else [""] * 4
            cells.append(f"`{site}`")
            for kind in ("own", "linear response"):
                values = np.array([seed[site][kind] for seed in seeds])
                error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
                cells.append(f"{values.mean():.3f} ± {error:.3f}")
            cells.append(
                f"{np.mean([seed[site]['seconds'] for seed in seeds]):.1f}" if first else ""
            )
            rows.append(cells)
    columns = [
        "variant",
        "lines",
        "what it needed",
        "data sets",
        "of",
        "its guide",
        "linear response",
        "s",
    ]
    return markdown(columns, rows)


def draw_picture(name: str) -> Path:
    """Fit the data of seed 0, and draw the picture of a variant."""
    model, guide = fitted(name, problem := made_up(name, 0))
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    with isolated(0):
        variant(name).picture(figure.subplots(), model, guide, problem.data)
    path = ROOT / "docs" / "variants" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=100)
    return path


def main(args: Sequence[str] | None = None) -> None:
    """Print the table, variant by variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MADE_UP)}")
    parser.add_argument("--seeds", type=int, default=20, help="data sets of each")
    parser.add_argument("--write", action="store_true", help="write pictures and table")
    given = parser.parse_args(args)
    unknown = sorted(set(given.names) - set(MADE_UP))
    if unknown:
        parser.error(f"no variant is called {unknown[0]!r}, expected some of {', '.join(MADE_UP)}")
    mpl.use("agg")
    torch.set_num_threads(1)
    results = {}
    for name in given.names or MADE_UP:
        if given.write:
            print(draw_picture(name))
        results[name] = [measure(name, seed) for seed in range(given.seeds)]
        print(table({name: results[name]}), flush=True)
    if given.write and not given.names:
        page = ROOT / "docs" / "variants.md"
        before, _, rest = page.read_text().partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        page.write_text(f"{before}{MARKS[0]}\n\n{table(results)}\n\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
