"""Parts of a DataTree that a function needs, and names short enough for a picture."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np
import xarray as xr

__all__ = ["SAMPLE_DIMS", "needed", "row_tasks", "shortened", "task_sizes"]

SAMPLE_DIMS = ("chain", "draw")
"""Dimensions of draws, as ArviZ names them."""


def needed(data: xr.DataTree, group: str, variable: str) -> xr.DataArray:
    """Get a variable of a group, or say what is missing.

    Raises
    ------
    TypeError
        If it is no tree.
    ValueError
        If there is no such group or variable. The message names what there is, and the way out.

    Examples
    --------
    >>> tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"w": ("draw", [1.0, 2.0])})})
    >>> needed(tree, "posterior", "w").sizes["draw"]
    2
    """
    if not isinstance(data, xr.DataTree):
        raise TypeError(
            f"data is a {type(data).__name__}, expected a DataTree. Make it with the estimator's "
            "to_datatree(X, y, tasks), with to_datatree of a fit, or with from_pyro_svi."
        )
    if group in data.children and variable in data[group].data_vars:
        return data[group].dataset[variable]
    if "stack" in data.children:
        members = [name for name, child in data.children.items() if "posterior" in child.children]
        raise ValueError(
            f"The tree is that of a stack and has no {variable!r} in the group {group!r} of its "
            f"own. Pass the tree of a member, such as data[{members[0] if members else 'name'!r}]."
        )
    found = (
        f"a group {group!r} with {sorted(map(str, data[group].data_vars))}"
        if group in data.children
        else f"the groups {sorted(data.children)}"
    )
    raise ValueError(
        f"The tree has no variable {variable!r} in a group {group!r}, found {found}. "
        f"{_way_out(group, variable)}"
    )


def _way_out(group: str, variable: str) -> str:
    """Say how to come by a tree with a variable."""
    if group == "predictions":
        return "Give to_datatree rows to test: `rows=`. Classes and real targets have other ones."
    if variable.endswith("_sources") or variable.startswith("relatedness_"):
        return "Only sites that are shared have source weights, and few tasks a history of them."
    if group == "history":
        return "Give from_pyro_svi the fit's: `history=result.history`."
    return "Make it with to_datatree from the fit and its training rows."


def row_tasks(log_likelihood: xr.DataArray) -> np.ndarray:
    """Get the task of every row of a variable with the dimension ``row``, (rows,)."""
    if "row" not in log_likelihood.dims or "task" not in log_likelihood.coords:
        raise ValueError(
            f"{str(log_likelihood.name)!r} has the dimensions {list(log_likelihood.dims)} and the "
            f"coordinates {list(map(str, log_likelihood.coords))}, expected a dimension 'row' with "
            "a coordinate 'task' along it."
        )
    return np.asarray(log_likelihood["task"].values)


def task_sizes(data: xr.DataTree, tasks: Iterable[Hashable]) -> list[int] | None:
    """Count the rows of each task; None where the tree does not have the tasks of its rows."""
    for group in ("observed_data", "constant_data"):
        if group in data.children and "task" in data[group].coords:
            labels, counts = np.unique(data[group].dataset["task"].values, return_counts=True)
            found = dict(zip(labels.tolist(), counts.tolist(), strict=True))
            sizes = [found.get(task) for task in tasks]
            return None if None in sizes else [int(size) for size in sizes if size is not None]
    return None


def shortened(label: Hashable, most: int = 22) -> str:
    """Write a label with at most so many letters, an ellipsis in place of its middle.

    The ends stay, as names of many things often begin alike and end in a number.

    Examples
    --------
    >>> shortened("a task with a long name 12", 12)
    'a task…me 12'
    """
    text = str(label)
    tail = (most - 1) // 2
    return (
        text
        if len(text) <= most
        else f"{text[: most - 1 - tail]}\N{HORIZONTAL ELLIPSIS}{text[-tail:]}"
    )
