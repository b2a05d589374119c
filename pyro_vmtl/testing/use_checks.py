"""Checks of what comes after a fit: other rows, export, a fresh process, calibration."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import torch
from pyro import poutine

from pyro_vmtl.analysis.calibration.ranks import rank_uniformity
from pyro_vmtl.analysis.diagnostics.simulation import simulate_ranks
from pyro_vmtl.analysis.export.pyro_svi import from_pyro_svi
from pyro_vmtl.data.plates import TASK_PLATE
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.handlers.program_handler import unwrap
from pyro_vmtl.inference.svi import fit
from pyro_vmtl.predictive.posterior_predictive import likelihood_draws, log_predictive_density
from pyro_vmtl.sharing.messengers import Sharing, recorded_sources
from pyro_vmtl.testing.site_messengers import is_machinery
from pyro_vmtl.testing.variant import Variant, VariantError

__all__ = [
    "check_export",
    "check_nearest_start",
    "check_new_rows",
    "check_reload",
    "check_simulation",
]

DRAWS = 4
LEAST_P = 0.001
"""p-value of uniform ranks below which twenty simulations fail: a right one in a thousand does."""


def check_new_rows(variant: Variant) -> None:
    """Check that other numbers of rows, without targets, are predicted in the right shapes.

    Rows to predict are more or fewer than the training rows, and have no targets. Programs that
    keep the training rows, or compute with ``data.y``, fail only then.
    """
    name = "check_new_rows"
    model, guide, data = variant.ready(double=False)
    change = "Compute from the `data` of the call: data.x, data.mask; with data.y in `obs=` alone."
    for num_rows in (1, data.num_rows + 2):
        rows = _other_rows(data, num_rows)
        expected = (DRAWS, data.num_tasks, num_rows)
        doing = f"{num_rows} rows a task are not predicted"
        with variant.errors_of(name, doing, change):
            programs = unwrap(model), unwrap(guide)
            new = replace(rows, y=None, weight=None)
            draws = likelihood_draws(*programs, new, site=variant.site, num_samples=DRAWS)
            density = log_predictive_density(*programs, rows, site=variant.site, num_samples=DRAWS)
        if tuple(draws.batch_shape) != expected:
            raise variant.fails(
                name,
                f"{num_rows} rows a task are predicted in the shape {tuple(draws.batch_shape)}, "
                f"expected {expected}: draws, tasks, rows.",
                "Give the distribution of every row its own parameters: .expand(data.mask.shape).",
                variant.site,
            )
        if not torch.isfinite(density).all():
            raise variant.fails(
                name,
                "log densities of rows are not finite.",
                "Clamp what can overflow.",
                variant.site,
            )


def check_export(variant: Variant) -> None:
    """Check that draws are exported to ArviZ: named dimensions, and the log-likelihood of rows.

    Without the plates ``task`` and ``data`` posteriors have no labels, and LOO and predictive
    checks have no rows.
    """
    name = "check_export"
    model, guide, data = variant.ready(double=False)
    change = "Sample in the plates 'task' and 'data', and name events by `dims=` of the export."
    with variant.errors_of(name, "the export fails", change):
        tree = from_pyro_svi(model, guide, data, site=variant.site, num_samples=DRAWS)
    with isolated(0), torch.no_grad():
        nodes = poutine.trace(unwrap(model)).get_trace(data).nodes
    for site, array in tree["posterior"].data_vars.items():
        frames = nodes[site]["cond_indep_stack"] if site in nodes else ()
        if any(f.name == TASK_PLATE for f in frames) and not {"task", "row"} & set(array.dims):
            raise variant.fails(
                name, f"site {site!r} has the dimensions {array.dims}, none of tasks.", change
            )
    log_likelihood = tree["log_likelihood"].dataset[variant.site]
    expected = {"chain": 1, "draw": DRAWS, "row": int(data.mask.sum())}
    if dict(log_likelihood.sizes) != expected:
        raise variant.fails(
            name,
            f"the log-likelihood has the dimensions {dict(log_likelihood.sizes)}, expected "
            f"{expected}.",
            "The observed site has one univariate target for each row.",
            variant.site,
        )
    if not np.isfinite(log_likelihood.values).all():
        raise variant.fails(
            name, "the log-likelihood of some rows is not finite.", "Clamp what can overflow."
        )


CHILD = """
import pickle, sys, torch
from pyro_vmtl import log_predictive_density
sys.path[:0] = eval(sys.argv[2])
folder = sys.argv[1]
with open(folder + "/programs", "rb") as file:
    model, guide, rows, site = pickle.load(file)
torch.save(log_predictive_density(model, guide, rows, site=site, num_samples=5), folder + "/found")
"""


def check_reload(variant: Variant) -> None:
    """Check that a fitted pair, read in a fresh process without training rows, predicts the same.

    Parameters that live outside of model and guide are lost with the process, and programs that
    refer to the training rows cannot run without them.
    """
    name = "check_reload"
    change = "Keep everything learned in parameters and buffers of model and guide."
    model, guide = variant.programs()
    fit(model, guide, variant.data, num_steps=3)
    rows = _other_rows(variant.data, 2)
    before = log_predictive_density(model, guide, rows, site=variant.site, num_samples=5)
    with tempfile.TemporaryDirectory() as folder, variant.errors_of(name, "not read", change):
        _register_modules(model, guide)
        written = cloudpickle.dumps((model, guide, rows, variant.site))
        (Path(folder) / "programs").write_bytes(written)
        command = [sys.executable, "-c", CHILD, folder, repr(sys.path)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise VariantError(
                name, f"a fresh process fails: {run.stderr.strip().splitlines()[-1]}", change
            )
        after = torch.load(Path(folder) / "found")
    if not torch.allclose(before, after, rtol=1e-5, atol=1e-5):
        raise VariantError(
            name,
            "log densities of rows differ by up to "
            f"{float((before - after).abs().max()):.3g} in a fresh process.",
            change,
        )


def _register_modules(*programs: Any) -> None:
    """Pickle by value what a fresh process may not import, such as a test file."""
    for module in (module for program in programs for module in program.modules()):
        for thing in (type(module), *vars(module).values()):
            found = sys.modules.get(getattr(thing, "__module__", None) or "")
            file = getattr(found, "__file__", None)
            if (
                found
                and file
                and not found.__name__.startswith("pyro_vmtl.")
                and not is_machinery(file)
            ):
                cloudpickle.register_pickle_by_value(found)


def check_nearest_start(variant: Variant) -> None:
    """Warn where ``start="nearest"`` has nothing to go by.

    It gives most weight to the nearest posteriors. Where all start at the same place, weights start
    even, and groups of tasks are rarely found.
    """
    _, guide = variant.programs()
    with isolated(0), torch.no_grad():
        guide(variant.data)
        trace = poutine.trace(guide).get_trace(variant.data)
    for module in guide.modules():
        if not isinstance(module, Sharing):
            continue
        for site, sources in module.items():
            if sources.start != "nearest":
                continue
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                sources.initialize_logits(recorded_sources(trace, site))
            if caught:
                warnings.warn(
                    f"check_nearest_start: all posteriors of {site!r} start alike, so that the "
                    "source weights start even. Use share(start='alone'), or start the guide at "
                    "estimates of each task.",
                    stacklevel=2,
                )


def check_simulation(variant: Variant, *, num_simulations: int = 20, **settings: Any) -> None:
    """Check by simulation-based calibration that posteriors are as wide as they should be.

    Parameters and targets are drawn from the model and fitted again: the ranks of the true
    parameters among posterior draws are uniform where the posterior is right. ``settings`` are
    those of :func:`~pyro_vmtl.fit`. It takes as many fits as there are simulations.
    """

    def fit_again(_: Any, data: TaskData) -> Any:
        model, guide = Variant(variant.make, data, variant.site).programs()
        fit(model, guide, data, **settings)
        return unwrap(guide)

    model, guide = variant.programs()
    with isolated(0):
        guide(variant.data)
    ranks = simulate_ranks(unwrap(model), fit_again, variant.data, num_simulations=num_simulations)
    found = rank_uniformity(ranks)
    worst = found.sort_values("p_value").reset_index().iloc[0]
    if worst["p_value"] < LEAST_P:
        raise variant.fails(
            "check_simulation",
            f"the posterior of {worst['site']!r} is {worst['verdict']} (p = "
            f"{worst['p_value']:.2g}, width {worst['width']:.2f} of the right one).",
            "Use a guide with covariances, more steps, or LinearResponse(...).correct(...).",
            str(worst["site"]),
        )


def _other_rows(data: TaskData, num: int) -> TaskData:
    """Return so many rows of each task, as rows of their own, repeated where it has fewer."""
    index = torch.arange(num) % data.mask.sum(1, keepdim=True).clamp_min(1)
    rows = data.take(index, data.mask.gather(1, index))
    position = (rows.mask.flatten().cumsum(0) - 1).reshape(rows.mask.shape)
    return replace(rows, row=position.masked_fill(~rows.mask, -1), attended=None)
