"""The history of a fit as a group of a DataTree."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import xarray as xr
from torch import Tensor

from pyro_vmtl.analysis.export.labels import Labels, Variable
from pyro_vmtl.inference.history import History

__all__ = ["history_dataset"]


def history_dataset(history: History | Sequence[float], labels: Labels) -> xr.Dataset:
    """Convert the history of a fit to a dataset.

    Parameters
    ----------
    history
        History of a fit, its result, or the loss at every step.
    labels
        Labels of the dimensions.

    Returns
    -------
    Dataset
        ``loss`` (step), ``log_likelihood_{site}`` and ``kl_{site}`` (noted_step, task), or
        (noted_step) where they are not split by task, and ``relatedness_{site}`` (snapshot_step,
        task, source).
    """
    history = getattr(history, "history", history)  # of a fit's result
    if not isinstance(history, History):
        return labels.dataset({"loss": _variable(torch.as_tensor(history).double(), "step")})
    variables = {"loss": _variable(history.loss.double(), "step")}
    for kind in ("log_likelihood", "kl"):
        for site, terms in getattr(history, kind).items():
            variables[f"{kind}_{site}"] = _variable(terms, "noted_step", "task")
    for site, weights in history.relatedness.items():
        variables[f"relatedness_{site}"] = _variable(weights, "snapshot_step", "task", "source")
    made = labels.dataset(variables)
    steps = {"noted_step": history.step, "snapshot_step": history.snapshot_step}
    return made.assign_coords({d: s.cpu().numpy() for d, s in steps.items() if d in made.sizes})


def _variable(values: Tensor, *dims: str) -> Variable:
    return Variable(dims[: values.ndim], values.detach().cpu().numpy())
