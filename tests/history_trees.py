"""Trees of histories alone."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import xarray as xr

from pyro_vmtl.analysis.export.labels import Labels
from pyro_vmtl.analysis.export.pyro_svi import history_dataset
from pyro_vmtl.data.arrays import as_labels
from pyro_vmtl.inference.history import History

__all__ = ["tree_of_history"]


def tree_of_history(
    history: History, task_labels: Sequence[Hashable], row_tasks: Sequence[Hashable]
) -> xr.DataTree:
    """Make the tree of a history for :func:`plot_elbo` and :func:`plot_elbo_terms`.

    Parameters
    ----------
    history
        Of a fit.
    task_labels
        The T labels of its tasks.
    row_tasks
        (rows,), the label of each training row.

    Returns
    -------
    DataTree
        Groups ``history``, and ``observed_data`` with the task of each row.
    """
    terms = [*history.log_likelihood.values(), *history.kl.values()]
    num_tasks = {values.shape[1] for values in terms if values.ndim > 1}
    tasks, place = as_labels(task_labels), {label: i for i, label in enumerate(task_labels)}
    of_rows = tasks[[place[label] for label in row_tasks]]
    if num_tasks == {1} and len(tasks) > 1:  # taken for one
        tasks, of_rows = np.array(["all tasks"]), np.full(len(of_rows), "all tasks")
    rows = xr.Dataset(coords={"row": np.arange(len(of_rows)), "task": ("row", of_rows)})
    dataset = history_dataset(history, Labels(coords={"task": tasks}))
    return xr.DataTree.from_dict({"/history": dataset, "/observed_data": rows})
