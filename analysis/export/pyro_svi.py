"""Export fitted Pyro programs to a DataTree for ArviZ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyro
import torch
import xarray as xr
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vmtl._version import __version__
from pyro_vmtl.analysis.export.collected import Collected
from pyro_vmtl.analysis.export.labels import Labels, Variable
from pyro_vmtl.analysis.export.predicted_rows import predictions
from pyro_vmtl.analysis.export.site_dims import DATA_PLATE, SiteDims
from pyro_vmtl.analysis.export.tracing import Traced, is_latent
from pyro_vmtl.data.plates import TASK_PLATE
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.program_handler import Program, unwrap
from pyro_vmtl.handlers.target import learning_rate_of
from pyro_vmtl.inference.history import History
from pyro_vmtl.predictive.posterior_predictive import likelihood_draws
from pyro_vmtl.sharing.fixed_pools import has_sources

__all__ = ["from_pyro_svi", "history_dataset", "provenance", "tree_of_programs"]

PRIOR_DRAWS = 100
"""Draws from the prior, enough for prior predictive checks; more would take much of a file."""


def from_pyro_svi(
    model: Program,
    guide: Program,
    *args: Any,
    rows: TaskData | None = None,
    num_samples: int = 500,
    seed: int = 0,
    site: str = "y",
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    history: History | Sequence[float] | None = None,
) -> xr.DataTree:
    """Draw from fitted Pyro programs, and export the draws to a DataTree for ArviZ.

    Model and guide are any Pyro programs, shared and tempered or not, that run on all their data.
    Dimensions have the names of plates. With a :class:`~pyro_vmtl.TaskData` among the arguments,
    they have the labels of its tasks, classes and features, and rows are in the user's order,
    without padding. The fit is not changed.

    Parameters
    ----------
    model, guide
        Pyro programs, fitted.
    *args
        Their arguments, targets included.
    rows
        Other rows to predict, such as ``data.new_rows(X, tasks, y)``: adds a group
        ``predictions``. They replace the :class:`~pyro_vmtl.TaskData` among the arguments. Only
        for programs that are modules, and a site that is categorical, normal or a count.
    num_samples
        S, draws from the posterior.
    seed
        Seed of the draws.
    site
        The observed site.
    coords
        Labels by dimension, as in ArviZ.
    dims
        Names of dimensions by site, as in ArviZ: of all but chain and draw, or of those that are
        no plates.
    history
        History of the fit, or its loss at every step: adds a group ``history``.

    Returns
    -------
    DataTree
        Groups ``posterior``, ``prior``, ``prior_predictive``, ``posterior_predictive``,
        ``log_likelihood`` (in nats, rows unweighted), ``sample_stats``, ``observed_data`` and,
        unless empty, ``constant_data``, ``history`` and ``predictions``. Source weights are
        those of the pool, (task, source), with the base last. ``sample_stats`` has the log density
        of the target, ``log_p``, and of the guide, ``log_q``. The attribute ``target`` says what
        the target is, and ``learning_rate`` the power of the likelihood in it; where latent sites
        have different KL weights there is none, and no ``sample_stats``. Of a very large group
        there are fewer draws.

    See Also
    --------
    to_datatree : Export a fitted method, or a stack of them.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> from pyro.infer.autoguide import AutoNormal
    >>> from pyro_vmtl import fit
    >>> def model(y):
    ...     with pyro.plate("school", 3):
    ...         mean = pyro.sample("mean", dist.Normal(0.0, 9.0))
    ...         pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
    >>> y = torch.tensor([1.0, 2.0, 9.0])
    >>> guide = AutoNormal(model)
    >>> result = fit(model, guide, y, num_steps=20)
    >>> tree = from_pyro_svi(model, guide, y, coords={"school": ["Ash", "Elm", "Oak"]})
    >>> tree["posterior"]["mean"].sel(school="Oak").sizes
    Frozen({'chain': 1, 'draw': 500})
    """
    data = next((arg for arg in args if isinstance(arg, TaskData)), None)
    tree = tree_of_programs(
        *(model, guide, args, Labels(data, coords)),
        num_samples=num_samples,
        seed=seed,
        site=site,
        dims=dims,
        history=history,
    )
    if rows is None:
        return tree
    if data is None or data.num_tasks != rows.num_tasks:
        raise ValueError(
            f"rows has {rows.num_tasks} tasks, and the arguments have "
            f"{'no TaskData' if data is None else f'{data.num_tasks}'}, expected the same tasks. "
            "Make rows with `new_rows` of the training rows."
        )

    def draws(some: TaskData) -> list[Distribution]:
        own = (some if arg is data else arg for arg in args)
        return [likelihood_draws(model, guide, *own, site=site, num_samples=num_samples, seed=seed)]

    weights, labels = torch.ones(rows.num_tasks, 1), Labels(rows, coords)
    found = predictions(draws, weights, rows, labels, num_draws=num_samples, seed=seed)
    tree["predictions"] = xr.DataTree(found)
    return tree


def tree_of_programs(
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    labels: Labels,
    *,
    num_samples: int,
    seed: int,
    site: str = "y",
    dims: Mapping[str, Sequence[str]] | None = None,
    history: History | Sequence[float] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """Do what :func:`from_pyro_svi` does, with labels that are known already."""
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}, expected at least 1.")
    traced = Traced(model, guide, args, seed)
    _check(traced, site)
    latent = [name for name, node in traced.model_sites.items() if is_latent(node)]
    layout = SiteDims(labels, dims, representations=_has_representations(traced, latent, labels))
    collected = Collected(traced, layout, latent, site)
    drawn = collected.posterior(num_samples)
    plain = unwrap(model) if isinstance(model, nn.Module) else model
    drawn |= collected.prior(plain, min(num_samples, PRIOR_DRAWS))
    drawn["constant_data"] = labels.constants()
    groups = {name: labels.dataset(found) for name, found in drawn.items() if found}
    target = _describe_target(traced)
    if "learning_rate" in target:
        stats = groups["sample_stats"] * target["learning_rate"]
        groups["sample_stats"] = stats.assign_attrs(target)
    else:
        del groups["sample_stats"]
    if history is not None:
        groups["history"] = history_dataset(history, labels)
    for group in groups.values():
        kept = group.sizes.get("draw", num_samples)
        if kept < num_samples:
            group.attrs["note"] = f"the first {kept} of {num_samples} draws, as all are too large"
    with_targets = ("observed_data", "posterior_predictive", "prior_predictive")
    labels.note_classes(site, *(groups[name] for name in with_targets))
    tree = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
    tree.attrs = provenance(num_samples=num_samples, seed=seed, **target, **(attrs or {}))
    return tree


def provenance(**attrs: Any) -> dict[str, Any]:
    """Return attributes for the root of a tree: versions as JSON, the time, and others."""
    versions = {
        "pyro_vmtl": __version__,
        "pyro": pyro.__version__,
        "torch": torch.__version__,
        "xarray": xr.__version__,
    }
    return {
        "created_at": datetime.now(UTC).isoformat(),
        "creation_library": "pyro_vmtl",
        "inference_library": "pyro",
        "versions": json.dumps(versions),
        **attrs,
    }


def history_dataset(history: History | Sequence[float], labels: Labels) -> xr.Dataset:
    """Convert the history of a fit, or its loss at every step, to a dataset.

    It has ``loss`` (step), ``log_likelihood_{site}`` and ``kl_{site}`` (term_step, task), or
    (term_step) where they are not split by task, and ``relatedness_{site}`` (snapshot_step, task,
    source).
    """
    history = getattr(history, "history", history)  # of a fit's result
    if not isinstance(history, History):
        return labels.dataset({"loss": _variable(torch.as_tensor(history).double(), "step")})
    variables = {"loss": _variable(history.loss.double(), "step")}
    for kind in ("log_likelihood", "kl"):
        for site, terms in getattr(history, kind).items():
            variables[f"{kind}_{site}"] = _variable(terms, "term_step", "task")
    for site, weights in history.relatedness.items():
        variables[f"relatedness_{site}"] = _variable(weights, "snapshot_step", "task", "source")
    made = labels.dataset(variables)
    steps = {"term_step": history.step, "snapshot_step": history.snapshot_step}
    return made.assign_coords({d: s.cpu().numpy() for d, s in steps.items() if d in made.sizes})


def _describe_target(traced: Traced) -> dict[str, Any]:
    """Return the learning rate of the likelihood, if there is one, and a sentence."""
    try:
        rate = learning_rate_of(traced.model_sites)
    except ValueError as error:
        return {"target": f"There is none. {error}"}
    posterior = "The posterior"
    if rate != 1:
        posterior = (
            f"The generalised posterior at learning rate {rate:g}: the likelihood has that power, "
            f"as all KL weights are {1 / rate:g}"
        )
    shares = any(map(has_sources, traced.guide_sites.values()))
    given = ", given the posteriors of the sources at their mean weights" if shares else ""
    return {"learning_rate": rate, "target": f"{posterior}{given}."}


def _variable(values: Tensor, *dims: str) -> Variable:
    return Variable(dims[: values.ndim], values.detach().cpu().numpy())


def _check(traced: Traced, site: str) -> None:
    found = traced.model_sites
    if site not in found:
        raise ValueError(f"The model has no site {site!r}, found {sorted(found)}.")
    if not found[site]["is_observed"] or is_latent(found[site]):
        raise ValueError(
            f"Site {site!r} is not observed. Call this with the rows of the fit and their targets."
        )
    for name, node in found.items():
        if is_latent(node) and not node["is_observed"] and name not in traced.guide_sites:
            raise ValueError(
                f"Latent site {name!r} is not in the guide, which has "
                f"{sorted(traced.guide_sites)}. Pass the guide that belongs to the model."
            )


def _has_representations(traced: Traced, latent: list[str], labels: Labels) -> bool:
    """Whether a latent site has a value for every row: then features of coefficients are latent."""
    if labels.rows is None:
        return False
    frames = [traced.model_sites[name]["cond_indep_stack"] for name in latent]
    return any({TASK_PLATE, DATA_PLATE} <= {f.name for f in each} for each in frames)
