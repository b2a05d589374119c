"""Compare posteriors of fits and their covariances by linear response with those of NUTS.

python -m benchmarks.posteriors --models sleepstudy epil

Each program of :mod:`benchmarks.posterior_programs` is fitted by L-BFGS at fixed points and sampled
by NumPyro. ``shared`` and ``mixed-model`` are the presets for few features, on made-up tasks and on
sleepstudy, sampled by :func:`~pyro_vmtl.analysis.nuts_reference`. Numbers are compared without the
constraint of their support, scales by their logarithms, in standard deviations of NUTS.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

from benchmarks.coefficient_coverage import Problem, draw
from benchmarks.markdown import markdown
from benchmarks.needed import needed
from benchmarks.posterior_programs import EXAMPLES
from pyro_vmtl import LinearResponse, MeanFieldELBO, TaskData, fit
from pyro_vmtl.analysis import from_pyro_svi, nuts_reference
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.methods.presets import presets

NUM_CHAINS, NUM_WARMUP, NUM_SAMPLES = 4, 500, 1000
NUM_DRAWS = 10_000
NUM_POINTS = 64
"""Those of independent normals. A joint normal has twice as many, and two for each number."""

MOST_PARAMETERS = 2_000
"""Parameters up to which the Hessian takes a minute."""

MEAN, WIDTH = 0.1, 0.1
"""Differences that are reported by name: in standard deviations, and of their ratio from 1."""

Draws = dict[str, np.ndarray]


class Fit(NamedTuple):
    """Draws of a fit, standard deviations by linear response, and seconds of fit and response."""

    draws: Draws
    stddev: Draws
    seconds: tuple[float, float]
    distance: float


def sample(name: str, seed: int) -> tuple[Draws, str]:
    """Sample a program by NumPyro; return draws, and how far they are to be trusted."""
    numpyro, jax = needed("numpyro"), needed("jax")
    jax.config.update("jax_enable_x64", True)
    example = EXAMPLES[name]
    as_jax = {
        key: jax.numpy.asarray(value) if isinstance(value, np.ndarray) else value
        for key, value in example.data().items()
    }
    decenter = numpyro.infer.reparam.LocScaleReparam(0)
    target = numpyro.handlers.reparam(
        example.program, config=dict.fromkeys(example.decentered, decenter)
    )
    mcmc = numpyro.infer.MCMC(
        numpyro.infer.NUTS(target, target_accept_prob=0.9),
        num_warmup=NUM_WARMUP,
        num_samples=NUM_SAMPLES,
        num_chains=NUM_CHAINS,
        chain_method="sequential",
        progress_bar=False,
    )
    mcmc.run(jax.random.PRNGKey(seed), numpyro, **as_jax)
    chains = {k: np.asarray(v, float) for k, v in mcmc.get_samples(True).items()}
    quality = [
        f(numpyro.diagnostics, chains)
        for f in (
            lambda d, c: max(np.max(d.split_gelman_rubin(v)) for v in c.values()),
            lambda d, c: min(np.min(d.effective_sample_size(v)) for v in c.values()),
        )
    ]
    draws = {
        k: v.reshape(-1, *v.shape[2:]) for k, v in chains.items() if not k.endswith("_decentered")
    }
    return draws, f"R-hat {quality[0]:.3f}, ESS {quality[1]:.0f}"


def fit_program(name: str, kind: Callable[..., Any], sites: Sequence[str], seed: int) -> Fit:
    """Fit an autoguide to a program."""
    example = EXAMPLES[name]
    args = [torch.as_tensor(v) if isinstance(v, np.ndarray) else v for v in example.data().values()]

    def model(*args: Any) -> None:
        example.program(pyro, *args)

    num_points = NUM_POINTS
    guide = kind(model)
    if kind is AutoMultivariateNormal:
        with isolated(seed):
            guide(*args)
        num_points = 2 * max(NUM_POINTS, guide.latent_dim)
    settings = {
        "elbo": MeanFieldELBO(num_points=num_points),
        "optimizer": "lbfgs",
        "num_steps": 4000,
    }
    return _fit(model, guide, args, settings, sites, seed)


def _fit(
    model: Any, guide: Any, args: Sequence[Any], settings: Any, sites: Sequence[str], seed: int
) -> Fit:
    start = perf_counter()
    fit(model, guide, *args, seed=seed, **settings)
    fitted = perf_counter()
    with isolated(seed), torch.no_grad():
        runs = [guide(*args) for _ in range(NUM_DRAWS)]
        draws = {site: torch.stack([run[site] for run in runs]).numpy() for site in sites}
    stddev, distance, at = {}, np.nan, perf_counter()
    if sum(p.numel() for p in guide.parameters()) <= MOST_PARAMETERS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # distances are printed
            response = LinearResponse(model, guide, *args, elbo=settings["elbo"])
        stddev = {site: response.stddev(site).numpy() for site in sites}
        distance = response.distance
    return Fit(draws, stddev, (fitted - start, perf_counter() - at), distance)


def sleepstudy_rows() -> TaskData:
    """Return sleepstudy as tasks, with an intercept."""
    data = EXAMPLES["sleepstudy"].data()
    rows = TaskData.regression(data["x"][:, None], data["y"], data["group"].tolist())
    return rows.with_intercept()


def of_preset(name: str, seed: int) -> tuple[Draws, str, Fit]:
    """Fit a preset for few features, and sample its target."""
    shared = name == "shared"
    data = draw(Problem(6, 30, 6, 2), seed)[0] if shared else sleepstudy_rows()
    preset: Any = presets("regression")[name].few_features
    model, guide = preset.initial_programs(data, seed)
    sites = ("w",) if shared else ("w_mean", "w_scale", "w", "noise_scale")
    found = _fit(model, guide, [data], preset.fit_settings(data), sites, seed)
    like = from_pyro_svi(model, guide, data, num_samples=30)
    reference = nuts_reference(model, guide, data, like=like, num_samples=1000, seed=seed)
    posterior = reference["posterior"]
    # draws of a guide have a dimension of rows, of size 1
    draws = {
        site: posterior[site].values.reshape(-1, *found.draws[site].shape[1:]) for site in sites
    }
    az = needed("pyro_vmtl.analysis").az
    quality = max(float(az.rhat(posterior)[site].max()) for site in sites)
    return draws, f"R-hat {quality:.3f}", found


def compare(reference: Draws, found: Fit) -> tuple[str, ...]:
    """Return the cells of a row: differences, and the names of the numbers beyond the bounds."""
    names, rows = [], []
    for site, values in reference.items():
        positive = (values > 0).all() and site.endswith(("scale", "tau"))
        exact, own = (
            np.reshape(np.log(v) if positive else v, (len(v), -1))
            for v in (values, found.draws[site])
        )
        sd = exact.std(axis=0)
        linear = found.stddev.get(site, np.full(sd.shape, np.nan)).reshape(-1)
        shift = (own.mean(axis=0) - exact.mean(axis=0)) / sd
        rows.append(np.stack([shift, own.std(axis=0) / sd, linear / sd]))
        label = f"log {site}" if positive else site
        names += [f"{label}[{i}]" if len(sd) > 1 else label for i in range(len(sd))]
    shift, own, linear = np.concatenate(rows, axis=1)
    width = own if np.isnan(linear).all() else linear
    wrong = [
        f"{name} ({d:+.2f}, {r:.2f})"
        for name, d, r in zip(names, shift, width, strict=True)
        if abs(d) > MEAN or abs(r - 1) > WIDTH
    ]
    wrong.sort(key=len)
    more = f" and {len(wrong) - 6} more" if len(wrong) > 6 else ""
    spread = "–" if np.isnan(linear).all() else f"{linear.min():.2f} to {linear.max():.2f}"
    return (
        str(len(names)),
        f"{np.abs(shift).max():.2f}",
        f"{own.min():.2f} to {own.max():.2f}",
        spread,
        f"{len(wrong)}: " + ", ".join(wrong[:6]) + more if wrong else "none",
        f"{found.seconds[0]:.0f} + {found.seconds[1]:.0f}",
        f"{found.distance:.2g}",
    )


COLUMNS = (
    *("model", "guide", "seed", "numbers", "means, largest difference", "sd, guide"),
    *("sd, linear response", "beyond 0.1 (difference, ratio)", "seconds", "distance", "NUTS"),
)


def main(args: Sequence[str] | None = None) -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = (*EXAMPLES, "shared", "mixed-model")
    parser.add_argument("--models", nargs="*", choices=names, default=names)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args(args)
    print("\n".join(markdown(COLUMNS, [["" for _ in COLUMNS]]).splitlines()[:-1]), flush=True)
    for name in given.models:
        for seed in range(given.seeds):
            if name in EXAMPLES:
                reference, quality = sample(name, seed)
                torch.set_default_dtype(torch.float64)  # joint normals do not settle in single
                fits = {
                    kind.__name__: fit_program(name, kind, tuple(reference), seed)
                    for kind in (AutoNormal, AutoMultivariateNormal)
                }
                torch.set_default_dtype(torch.float32)
            else:
                reference, quality, found = of_preset(name, seed)
                fits = {"preset": found}
            for guide, found in fits.items():
                cells = [name, guide, str(seed), *compare(reference, found), quality]
                print(markdown(COLUMNS, [cells]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
