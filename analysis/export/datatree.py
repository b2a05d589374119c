"""A fitted preset, or a stack of them, as a DataTree for ArviZ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from pyro_vmtl.analysis.export.datatree_of_stack import mixture_groups
from pyro_vmtl.analysis.export.labels import Labels
from pyro_vmtl.analysis.export.predicted_rows import predictions
from pyro_vmtl.analysis.export.provenance import provenance, settings_text
from pyro_vmtl.analysis.export.pyro_svi import note_classes, tree_of_programs
from pyro_vmtl.data.counterparts import attend
from pyro_vmtl.data.one_task import as_one_task
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.stack import FittedStack

__all__ = ["to_datatree"]


def to_datatree(
    fitted: Fitted | FittedStack,
    data: TaskData,
    *,
    rows: TaskData | None = None,
    num_samples: int = 500,
    seed: int = 0,
    coords: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """Draw from a fit, and lay the draws out for ArviZ, with the user's labels.

    Parameters
    ----------
    fitted
        What a preset or a stack gave.
    data
        The rows it was fitted to.
    rows
        Other rows with targets, such as ``data.new_rows(X, tasks, y)``, to predict.
    num_samples
        S, draws from the posterior; for a stack, of each member.
    seed
        Seed of the draws.
    coords
        For dimensions their labels, as in ArviZ: ``{"feature": names}``.

    Returns
    -------
    DataTree
        The groups of :func:`~pyro_vmtl.analysis.from_pyro_svi`, with ``history``, and with
        ``predictions`` of ``rows``. A stack is a tree of its members, ``tree["shared"]`` and so on,
        each with all groups but predictions. Its root has those of rows for the mixture,
        calibrated, ``posterior`` with source weights in the mean of the members, and a group
        ``stack``: how much each member counts in each task.

    Raises
    ------
    ValueError
        If rows are of other tasks than the fit, or the training rows have no targets.

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
    num_tasks = len(fitted.weights) if isinstance(fitted, FittedStack) else fitted.num_tasks
    for name, given in (("data", data), ("rows", rows)):
        if given is not None and given.num_tasks != num_tasks:
            raise ValueError(
                f"{name} has {given.num_tasks} tasks, expected the {num_tasks} of the fit. Lay "
                "rows out with `new_rows` of the training rows."
            )
    if data.y is None:
        raise ValueError("data has no targets, expected the rows of the fit with theirs.")
    settings: dict[str, Any] = {"num_samples": num_samples, "seed": seed, "coords": coords}
    if isinstance(fitted, Fitted):
        return _tree_of_one(fitted, data, rows, **settings)
    groups = mixture_groups(fitted, data, rows, **settings)
    taken = sorted(set(groups) & set(fitted.members))
    if taken:
        raise ValueError(f"A member of the stack is called {taken[0]!r}, as a group is. Rename it.")
    tree = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
    for name, member in fitted.members.items():
        tree[name] = _tree_of_one(member, data, None, **settings)
    tree.attrs = provenance(num_samples=num_samples, seed=seed)
    return tree


def _tree_of_one(
    fitted: Fitted,
    data: TaskData,
    rows: TaskData | None,
    *,
    num_samples: int,
    seed: int,
    coords: Mapping[str, Any] | None,
) -> xr.DataTree:
    preset = fitted.preset
    seen = as_one_task(data) if preset.pooled else data
    if "z" in preset.shared:
        seen = attend(seen)
    tree = tree_of_programs(
        *(fitted.model, fitted.guide, (seen,), Labels(seen, coords, row_tasks=data)),
        num_samples=num_samples,
        seed=seed,
        history=fitted.result.history,
        attrs={"settings": settings_text(preset)},
    )
    if rows is not None:
        labels = Labels(rows, coords)
        found = predictions(
            lambda some: [fitted.draws(some, num_samples=num_samples, seed=seed)],
            *(data.x.new_ones(data.num_tasks, 1), rows, labels),
            num_draws=num_samples,
            seed=seed,
        )
        groups = {"predictions": labels.dataset(found)}
        note_classes(groups, "y", labels)
        tree["predictions"] = xr.DataTree(groups["predictions"])
    return tree
