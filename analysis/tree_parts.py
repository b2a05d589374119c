"""Variables that functions need from a DataTree, and labels short enough for a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable

import numpy as np
import xarray as xr

__all__ = [
    "SAMPLE_DIMS",
    "equal_tails",
    "get_variable",
    "row_tasks",
    "shorten",
    "task_name",
    "task_sizes",
]

SAMPLE_DIMS = ("chain", "draw")
"""Dimensions of draws, as ArviZ names them."""


def get_variable(data: xr.DataTree, group: str, variable: str) -> xr.DataArray:
    """Return a variable of a group, or raise an error that says how to make one."""
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
            f"The tree is that of a stack, whose group {group!r} has no variable {variable!r}. "
            f"Pass the tree of a member, such as data[{members[0] if members else 'name'!r}]."
        )
    found = (
        f"a group {group!r} with {sorted(map(str, data[group].data_vars))}"
        if group in data.children
        else f"the groups {sorted(data.children)}"
    )
    if group == "predictions":
        way_out = (
            "Pass rows with known targets to to_datatree, as `rows`; 'proba' is of classes, and "
            "'pit' of other targets."
        )
    elif variable.endswith("_sources") or variable.startswith("relatedness_"):
        way_out = "Only shared sites have source weights, and a history of them for few tasks."
    elif group == "history":
        way_out = "Pass the history of the fit to from_pyro_svi: `history=result.history`."
    else:
        way_out = "Make the tree with to_datatree from the fit and its training rows."
    raise ValueError(
        f"The tree has no variable {variable!r} in a group {group!r}, found {found}. {way_out}"
    )


def row_tasks(values: xr.DataArray) -> np.ndarray:
    """Return the task of every row of a variable with the dimension ``row``, (rows,)."""
    if "row" not in values.dims or "task" not in values.coords:
        raise ValueError(
            f"{str(values.name)!r} has the dimensions {list(values.dims)} and the "
            f"coordinates {list(map(str, values.coords))}, expected a dimension 'row' with "
            "a coordinate 'task' along it."
        )
    return np.asarray(values["task"].values)


def task_sizes(data: xr.DataTree, tasks: Iterable[Hashable]) -> list[int] | None:
    """Count the training rows of each task; None if the tree lacks the tasks of its rows."""
    for group in ("observed_data", "constant_data"):
        if group in data.children and "task" in data[group].coords:
            counts = Counter(data[group].dataset["task"].values.tolist())
            sizes = [counts[task] for task in tasks]
            return sizes if all(sizes) else None
    return None


def task_name(data: xr.DataTree) -> str:
    """Return what pictures call a task, such as the user's column, shortened; else "task"."""
    return shorten(data.attrs.get("task_name", "task"))


def equal_tails(ci_prob: float) -> list[float]:
    """Return the two probabilities that bound an equal-tailed interval."""
    if not 0 < ci_prob < 1:
        raise ValueError(f"ci_prob is {ci_prob}, expected a probability between 0 and 1.")
    return [(1 - ci_prob) / 2, (1 + ci_prob) / 2]


def shorten(label: Hashable, most: int = 22) -> str:
    """Shorten a label to so many letters; the end stays, as labels often end in a number.

    Dollars are escaped, as Matplotlib would typeset what is between two of them.
    """
    text, tail = str(label), (most - 1) // 2
    if len(text) > most:
        text = f"{text[: most - 1 - tail]}\N{HORIZONTAL ELLIPSIS}{text[-tail:]}"
    return text.replace("$", r"\$")
