"""The history of a fit as a group of a DataTree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from torch import Tensor

from pyro_vmtl.analysis.export.labels import Labels, Variable
from pyro_vmtl.inference.history import History

__all__ = ["history_dataset"]


def history_dataset(history: History | Sequence[float], labels: Labels) -> xr.Dataset:
    """Lay out the loss of a fit, and what it was made of.

    Parameters
    ----------
    history
        Of a fit, or the loss at every step.
    labels
        What is known of the dimensions.

    Returns
    -------
    Dataset
        ``loss`` (step), ``log_likelihood_{site}`` and ``kl_{site}`` (noted_step, task), or
        (noted_step) where they are not split by task, and ``relatedness_{site}`` (snapshot_step,
        task, source).
    """
    history = getattr(history, "history", history)  # a fit's result has it
    if not isinstance(history, History):
        return labels.dataset({"loss": Variable(("step",), np.asarray(history, dtype=np.float64))})
    variables = {"loss": _variable(history.loss.double(), "step")}
    for kind in ("log_likelihood", "kl"):
        for site, terms in getattr(history, kind).items():
            variables[f"{kind}_{site}"] = _variable(terms, "noted_step", "task")
    for site, weights in history.relatedness.items():
        variables[f"relatedness_{site}"] = _variable(weights, "snapshot_step", "task", "source")
    made = labels.dataset(variables)
    for dim, steps in (("noted_step", history.step), ("snapshot_step", history.snapshot_step)):
        if dim in made.sizes:
            made = made.assign_coords({dim: steps.cpu().numpy()})
    return made


def _variable(values: Tensor, *dims: str) -> Variable:
    return Variable(dims[: values.ndim], values.detach().cpu().numpy())
