"""Run simulation-based calibration of a pipeline.

Draw parameters and targets from the model, fit, and rank the true parameters among draws from the
posterior (Talts et al. 2018, arXiv 1804.06788; for variational posteriors Yao et al. 2018, arXiv
1802.02538). If the posterior is right, all ranks are equally likely.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pyro
import torch
import xarray as xr
from pyro import poutine
from torch import Tensor

from pyro_vmtl.analysis.export.labels import Labels, Variable
from pyro_vmtl.analysis.export.site_dims import SiteDims, plate_name
from pyro_vmtl.data.plates import TASK_PLATE
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.handlers.target import learning_rate_of
from pyro_vmtl.handlers.tracing import sample_sites
from pyro_vmtl.inference.progress import fits_bar

__all__ = ["simulate_ranks"]

FitGuide = Callable[..., Program | xr.DataTree]


def simulate_ranks(
    model: Program,
    fit_guide: FitGuide,
    *args: Any,
    sites: Iterable[str] | None = None,
    num_simulations: int = 100,
    num_samples: int = 200,
    seed: int = 0,
    progress: bool = False,
) -> xr.DataTree:
    """Fit simulated targets repeatedly, and rank the true parameters among posterior draws.

    Parameters and targets are drawn from the model with its current parameters and plain priors.
    The same features and tasks are used in every simulation.

    Parameters
    ----------
    model
        Pyro program to draw from. It is not changed.
    fit_guide
        The pipeline to check. It is called with a copy of the model and with ``args`` that hold
        the simulated targets, and returns the fitted guide, or a DataTree with a group
        ``posterior`` (such as that of one member of a stack).
    *args
        Arguments of the model. The targets are a tensor among them, or those of a
        :class:`~pyro_vmtl.TaskData`; their values do not matter.
    sites
        Sites to rank; by default all latent sites of the model.
    num_simulations
        Number of fits.
    num_samples
        S, number of draws from each posterior. Ranks are from 0 to S: a small S resolves the ends
        poorly.
    seed
        Seed of all draws.
    progress
        Whether to show a progress bar.

    Returns
    -------
    DataTree
        Group ``prior_sbc``: for every site an array (simulation, task, ...) of ranks, normalised to
        lie between 0 and 1. A rank is at a random place in its step of 1 / (S + 1), so that right
        ones are exactly uniform. The attribute ``sample_dims`` names the dimensions along which
        ranks are independent.

    Warns
    -----
    UserWarning
        If the target of the fit, as the guide or the tree says, is not the Bayesian posterior.

    See Also
    --------
    rank_uniformity
    arviz_plots.plot_ecdf_pit : Plot the ranks, with ``sample_dims=["simulation", "task"]``.

    Notes
    -----
    Without sharing, and without a latent site that tasks have in common, every task is a simulation
    of its own: a single fit of 200 small tasks (``num_simulations=1``) is worth 200 fits. With
    sharing, the prior in the fit is made of the posteriors of other tasks, and differs from the one
    that parameters were drawn from. Ranks then show whether the pipeline can be trusted for tasks
    such as the model draws: unrelated ones with a plain prior, related ones with a
    :class:`~pyro_vmtl.models.HierarchicalNormal`. Ranks are uniform for the posterior at learning
    rate 1 only, as no targets could be simulated of which another generalised posterior is the
    posterior: those of a tempered fit (:func:`~pyro_vmtl.temper`) say how far it is from there.

    Examples
    --------
    >>> from pyro_vmtl import Preset
    >>> method = Preset(shared=(), fitting={"num_steps": 20})
    >>> model, _ = method.programs(data)
    >>> def refit(model, rows):
    ...     return method.fit(rows).guide
    >>> ranks = simulate_ranks(model, refit, data, num_simulations=2, num_samples=20)
    >>> list(ranks.children)
    ['prior_sbc']
    """
    if num_simulations < 1 or num_samples < 1:
        raise ValueError(
            f"num_simulations is {num_simulations} and num_samples {num_samples}, expected at "
            "least 1."
        )
    seeds = np.random.SeedSequence(seed).generate_state(num_simulations)
    chosen = None if sites is None else (sites,) if isinstance(sites, str) else tuple(sites)
    datasets, independent = [], True
    with fits_bar(num_simulations, visible=progress) as begin:
        for i, each in enumerate(seeds):
            begin(f"simulation {i + 1}")
            with isolated(int(each)):
                truth, simulated, apart = _simulated(model, args, chosen)
                try:
                    fitted = fit_guide(deepcopy(model), *simulated)
                except Exception as error:
                    error.add_note(f"In simulation {i + 1} of {num_simulations}, seed {seed}.")
                    raise
                if i == 0:
                    _warn_of_other_target(fitted, simulated)
                draws, sources = _posterior_draws(fitted, truth, simulated, num_samples)
                random = np.random.default_rng(each)
                datasets.append(xr.Dataset({s: _ranks(truth[s], draws[s], random) for s in truth}))
                # Latent sites or sources that tasks share make their ranks dependent.
                independent &= apart and not sources
    ranks = xr.concat(datasets, dim="simulation").assign_coords(
        simulation=np.arange(num_simulations)
    )
    ranks.attrs["sample_dims"] = ["simulation", TASK_PLATE] if independent else ["simulation"]
    ranks.attrs |= {"num_samples": num_samples, "seed": seed}
    return xr.DataTree.from_dict({"prior_sbc": ranks})


def _warn_of_other_target(fitted: Program | xr.DataTree, args: tuple[Any, ...]) -> None:
    """Warn where a fit does not approximate the posterior at learning rate 1."""
    rate = None
    if isinstance(fitted, xr.DataTree):
        rate = fitted.attrs.get("learning_rate", None if "target" in fitted.attrs else 1.0)
    else:
        with suppress(ValueError), torch.no_grad():
            rate = learning_rate_of(sample_sites(poutine.trace(fitted).get_trace(*args)))
    if rate != 1:
        warnings.warn(
            f"The learning rate of the likelihood is {rate}, and ranks are uniform for 1: they say "
            "how far the fit is from the Bayesian posterior. Fit with a KL weight of 1 to test it.",
            stacklevel=3,
        )


def _simulated(
    model: Program, args: tuple[Any, ...], sites: Sequence[str] | None
) -> tuple[dict[str, xr.DataArray], tuple[Any, ...], bool]:
    """Draw parameters and targets; return both, and whether no latent site is shared by tasks."""
    with torch.no_grad():
        trace = poutine.trace(poutine.uncondition(model)).get_trace(*args)
    nodes = sample_sites(trace)
    observed = {name for name, node in nodes.items() if node["infer"].get("was_observed")}
    if not observed:
        raise ValueError(
            f"The model observes none of its sites {sorted(nodes)}, expected targets. Pass rows "
            "with targets of any value: they are replaced by simulated ones."
        )
    latent = [name for name in nodes if name not in observed]
    missing = set(sites or ()) - set(latent)
    if missing:
        raise ValueError(
            f"sites has {sorted(missing)}, which the model does not draw: its latent sites are "
            f"{latent}. Remove them, or correct their names."
        )
    for name in sorted(observed):
        args = _with_targets(args, name, nodes[name])
    data = next((arg for arg in args if isinstance(arg, TaskData)), None)
    # Of all latent sites: one that is not ranked may be shared by tasks, too.
    apart = all(
        any(f.name == TASK_PLATE and f.vectorized for f in nodes[name]["cond_indep_stack"])
        for name in latent
    )
    return {name: _labelled(name, nodes[name], data) for name in sites or latent}, args, apart


def _with_targets(args: tuple[Any, ...], name: str, node: Any) -> tuple[Any, ...]:
    """Replace the targets of an observed site by those drawn."""
    given: Tensor = node["infer"]["obs"]
    drawn: Tensor = node["value"]

    def replaced(arg: Any) -> Any:
        if arg is given:
            return drawn.to(given.dtype)
        if isinstance(arg, TaskData) and arg.y is given:
            return replace(arg, y=drawn.to(given.dtype).where(arg.mask, torch.zeros_like(given)))
        return arg

    simulated = tuple(replaced(arg) for arg in args)
    if all(new is old for new, old in zip(simulated, args, strict=True)):
        raise ValueError(
            f"The targets of site {name!r} are not among the arguments, so that simulated ones "
            "cannot take their place. Pass them to the model as a tensor or in a TaskData, and "
            "observe that tensor itself: `obs=y` or `obs=data.y`."
        )
    return simulated


def _labelled(name: str, node: Any, data: TaskData | None) -> xr.DataArray:
    """Return the drawn value of a site, its dimensions named by their plates."""
    value, event = node["value"], node["fn"].event_shape
    batch, labels = value.ndim - len(event), Labels(data)
    frames = {frame.dim: frame for frame in node["cond_indep_stack"] if frame.vectorized}
    plates = {
        i: plate_name(name, frames.get(i - batch), i)
        for i in range(batch)
        if i - batch in frames or value.shape[i] > 1
    }
    dims = SiteDims(labels).names(name, list(plates.values()), event)
    values = value.reshape([value.shape[i] for i in plates] + list(event)).cpu().numpy()
    return labels.dataset({name: Variable(tuple(dims), values)})[name].drop_attrs()


def _posterior_draws(
    fitted: Program | xr.DataTree,
    truth: dict[str, xr.DataArray],
    args: tuple[Any, ...],
    num_samples: int,
) -> tuple[dict[str, np.ndarray], bool]:
    """Return draws of every site, the first dimension S, and whether tasks share sources."""
    if isinstance(fitted, xr.DataTree):
        if "posterior" not in fitted.children:
            raise ValueError(
                f"The DataTree has the groups {list(fitted.children)}, expected 'posterior'. For "
                "a stack return one of its members."
            )
        posterior = fitted["posterior"].to_dataset()
        found = {
            str(name): values.stack(sample=("chain", "draw"))
            .transpose("sample", ...)
            .values[:num_samples]
            for name, values in posterior.data_vars.items()
        }
    else:
        found = _guide_draws(fitted, args, num_samples)
    draws = {}
    for site in truth:
        if site not in found:
            raise ValueError(
                f"The posterior has no site {site!r}, found {sorted(found)}. "
                "Name the sites to rank in `sites`, or make the guide draw all."
            )
        values = found[site]
        if values[0].size != truth[site].size:
            raise ValueError(
                f"Site {site!r} has {values[0].size} numbers in the posterior, expected "
                f"{truth[site].size} as in the model, {dict(truth[site].sizes)}."
            )
        draws[site] = values.reshape(len(values), *truth[site].shape)
    return draws, any(name.endswith("_sources") for name in found)


@torch.no_grad()
def _guide_draws(guide: Program, args: tuple[Any, ...], num_samples: int) -> dict[str, np.ndarray]:
    """Draw all sites of a guide at once, in a plate to the left of all others."""
    nodes = sample_sites(poutine.trace(guide).get_trace(*args)).values()
    frames = [f for node in nodes for f in node["cond_indep_stack"] if f.vectorized]
    dim = min((frame.dim for frame in frames), default=0) - 1
    with pyro.plate("draws", num_samples, dim=dim):
        trace = poutine.trace(guide).get_trace(*args)
    draws = {}
    for name, node in sample_sites(trace).items():
        value: Tensor = node["value"]
        shape = value.shape
        expanded = len(shape) - len(node["fn"].event_shape) == -dim  # a Delta may ignore the plate
        value = value if expanded else value.expand(num_samples, *shape)
        draws[name] = value.expand(num_samples, *value.shape[1:]).cpu().numpy()
    return draws


def _ranks(truth: xr.DataArray, draws: np.ndarray, random: np.random.Generator) -> xr.DataArray:
    """Rank true values among draws, at random places among ties and within a step."""
    less, equal = (draws < truth.values).sum(0), (draws == truth.values).sum(0)
    place = less + random.uniform(size=truth.shape) * (equal + 1)
    return truth.copy(data=place / (len(draws) + 1))
