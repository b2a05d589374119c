"""Export a fit to a DataTree for ArviZ."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import xarray as xr
from torch import nn

from pyro_vmtl.analysis.export.labels import Labels
from pyro_vmtl.analysis.export.mixture_groups import mixture_groups, predictions_group
from pyro_vmtl.analysis.export.pyro_svi import provenance, tree_of_programs
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.linear_response.given_sources import given_sources
from pyro_vmtl.linear_response.response import LinearResponse
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.member import Member
from pyro_vmtl.methods.method import ProgramMethod
from pyro_vmtl.methods.specification import to_json
from pyro_vmtl.sharing.messengers import Sharing

__all__ = ["to_datatree"]

MOST_PARAMETERS = 4_000
"""Parameters up to which the Hessian of the ELBO takes some seconds; of more, that of each task."""

MOST_RESIDUAL = 0.05
"""With more, the Hessian is singular."""


def to_datatree(
    fitted: Fitted,
    data: TaskData,
    *,
    rows: TaskData | None = None,
    num_samples: int = 500,
    seed: int = 0,
    coords: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """Export a fit, with the user's labels.

    Parameters
    ----------
    fitted
        What a method returned: a preset, a stack, or programs of your own.
    data
        The rows it was fitted to.
    rows
        Other rows with targets to predict, such as ``data.new_rows(X, tasks, y)``.
    num_samples
        S, draws from the posterior of each member.
    seed
        Seed of the draws.
    coords
        Labels of dimensions, as in ArviZ: ``{"feature": names}``.

    Returns
    -------
    DataTree
        For a single fit the groups of :func:`~pyro_vmtl.analysis.from_pyro_svi`, with ``history``,
        and with ``predictions`` of ``rows``. A stack is a tree of its members, ``tree["shared"]``
        and so on, each with all groups but predictions. Its root has the groups of rows for the
        calibrated mixture, ``posterior`` with ``w_sources``, the shares that tasks borrow, and
        ``stack``, the weight of each member in each task. Draws of a shared site that was fitted
        without draws have covariances by :class:`~pyro_vmtl.LinearResponse` where these are
        defined, or of a fit with more than 4,000 parameters those within each task given its
        sources (attribute ``covariances``), but for predictions.

    See Also
    --------
    from_pyro_svi : The same for any fitted model and guide.

    Examples
    --------
    >>> import torch
    >>> from pyro_vmtl.methods.presets import SHARED
    >>> X = torch.linspace(-1, 1, 24)[:, None]
    >>> data = TaskData.regression(X, X[:, 0], ["a", "b"] * 12).with_intercept()
    >>> rows = data.new_rows([[0.5], [0.7]], ["b", "a"], [0.5, 0.6])
    >>> tree = to_datatree(SHARED.fit(data), data, rows=rows)
    >>> tree["posterior"]["w"].sel(task="b", feature="intercept").shape
    (1, 500)
    >>> tree["predictions"]["mean"].coords["task"].values.tolist()
    ['b', 'a']
    """
    for name, given in (("data", data), ("rows", rows)):
        if given is not None and given.num_tasks != fitted.num_tasks:
            raise ValueError(
                f"{name} has {given.num_tasks} tasks, expected the {fitted.num_tasks} of the fit. "
                "Lay rows out with `new_rows` of the training rows."
            )
    if data.y is None:
        raise ValueError("data has no targets, expected the rows of the fit with theirs.")
    settings: dict[str, Any] = {"num_samples": num_samples, "seed": seed, "coords": coords}
    if len(fitted.members) == 1 and not fitted.calibrations:
        tree = _tree_of_member(fitted.member, data, **settings)
    else:
        groups = mixture_groups(fitted, data, **settings)
        taken = sorted({*groups, "predictions"} & set(fitted.members))
        if taken:
            raise ValueError(f"A member is called {taken[0]!r}, as a group is. Rename it.")
        tree = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
        for name, member in fitted.members.items():
            tree[name] = _tree_of_member(member, data, **settings)
        tree.attrs = provenance(num_samples=num_samples, seed=seed)
    if rows is not None:
        tree["predictions"] = xr.DataTree(predictions_group(fitted, rows, **settings))
    return tree


def _tree_of_member(
    member: Member, data: TaskData, *, num_samples: int, seed: int, coords: Mapping[str, Any] | None
) -> xr.DataTree:
    prepared = member.method.prepare(data)
    try:
        settings = json.dumps(to_json(member.method))
    except ValueError:  # it holds objects of the user's own
        settings = repr(member.method)
    guide, covariances = _with_covariances(member, prepared)
    return tree_of_programs(
        *(member.model, guide, (prepared,), Labels(prepared, coords, row_tasks=data)),
        num_samples=num_samples,
        seed=seed,
        site=member.method.site,
        history=member.result.history,
        attrs={"settings": settings, "covariances": covariances},
    )


def _with_covariances(member: Member, data: TaskData) -> tuple[nn.Module, str]:
    """Return the guide of a fit without draws with covariances, where it can be, and their kind.

    Those of independent normals that share would be too narrow.
    """
    programs = member.model, member.guide, data
    sites = [site for m in member.guide.modules() if isinstance(m, Sharing) for site in m.sites]
    settings = member.method.fit_settings(data) if isinstance(member.method, ProgramMethod) else {}
    size = sum(parameter.numel() for parameter in member.guide.parameters())
    if sites and settings.get("optimizer") == "lbfgs":
        elbo = settings.get("elbo")
        # RuntimeError: programs of one's own may hold numbers that do not turn into float64.
        # ValueError: the ELBO has different KL weights, or the fit is not at the optimum.
        with warnings.catch_warnings(), suppress(RuntimeError, TypeError, ValueError):
            warnings.simplefilter("ignore", UserWarning)
            if size > MOST_PARAMETERS:
                return given_sources(*programs, elbo=elbo), "given the sources"
            response = LinearResponse(*programs, elbo=elbo)
            if response.at_optimum:
                guide = response.correct(*sites)
                if response.curvature.residual <= MOST_RESIDUAL:
                    return guide, "linear response"
    return member.guide, "as fitted"
