"""What can be wrong with programs or a loss, and the errors that say so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer.elbo import ELBOModule
from torch import Tensor

from pyro_vmtl.data.plates import DATA_PLATE, TASK_PLATE
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.handlers.tracing import TracePair, sample_sites
from pyro_vmtl.inference.elbo import ELBOTerms

__all__ = ["NonFiniteLossError", "check_latent_sites", "check_padding", "non_finite"]


class NonFiniteLossError(FloatingPointError):
    """The loss of a fit was not a finite number."""


def check_latent_sites(traces: TracePair) -> None:
    """Check that model and guide have the same latent sites."""
    in_model, in_guide = (
        {
            name
            for name, site in sample_sites(trace).items()
            if not site["is_observed"] and not site["infer"].get("is_auxiliary")
        }
        for trace in traces
    )
    if in_guide != in_model:
        raise ValueError(
            f"Model and guide do not have the same latent sites: only the model has "
            f"{sorted(in_model - in_guide)}, only the guide {sorted(in_guide - in_model)}. Pass "
            "the two that `share` or `temper` returned together, and rows that have targets."
        )


def check_padding(
    traces: TracePair, model: Program, args: tuple[Any, ...], tasks: Tensor | None = None
) -> None:
    """Check that padded rows do not count: their log-likelihoods must be masked.

    The traces are of these arguments, with all ``tasks`` or some. Where a site is not in plates
    over tasks and rows, the model runs again with other targets in the padded rows, on the same
    draws, and its log density must stay what it is.
    """
    rows = next((arg for arg in args if isinstance(arg, TaskData)), None)
    if rows is None or rows.mask.all():
        return
    padded = ~(rows.mask if tasks is None else rows.mask[tasks])
    observed = {name: s for name, s in sample_sites(traces.model).items() if s["is_observed"]}
    cells = {name: _cells(site, padded) for name, site in observed.items()}
    counted = [name for name, values in cells.items() if values is not None and values.any()]
    if None in cells.values() and rows.y is not None:
        real = rows.y[rows.mask]
        filled = rows.y.where(rows.mask, real[real.abs().argmax()])
        runs = []
        for y in (rows.y, filled):
            again = (replace(rows, y=y) if arg is rows else arg for arg in args)
            with torch.random.fork_rng(devices=[]):
                run = poutine.trace(poutine.replay(model, trace=traces.guide)).get_trace(*again)
            runs.append({name: _log_prob(run.nodes[name]).sum() for name in observed})
        counted += [
            name for name in observed if name not in counted and runs[0][name] != runs[1][name]
        ]
    if counted:
        task = int(padded.any(1).nonzero()[0])
        label = rows.task_labels[task if tasks is None else int(tasks[task])]
        raise ValueError(
            f"Site {counted[0]!r} counts the padding of task {label!r} as data, "
            f"{int(padded[task].sum())} of {rows.num_rows} rows, expected its own rows only. Mask "
            f'it: `with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask): '
            f"pyro.sample({counted[0]!r}, ...)`."
        )


def _cells(site: Any, padded: Tensor) -> Tensor | None:
    """Return the log densities of a site in padded rows; None where no plates are of their rows."""
    frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
    pairs = [
        (outer.dim, inner.dim)
        for outer in frames
        for inner in frames
        if (outer.size, inner.size) == padded.shape
        and (outer.dim < inner.dim or (outer.name, inner.name) == (TASK_PLATE, DATA_PLATE))
    ]
    if not pairs:
        return None
    return _log_prob(site).movedim(pairs[-1], (0, 1))[padded]


def _log_prob(site: Any) -> Tensor:
    log_prob = site["fn"].log_prob(site["value"])
    return torch.as_tensor(scale_and_mask(log_prob, site["scale"], site["mask"]))


def non_finite(
    step: int, loss_of: ELBOModule | None, terms: ELBOTerms, args: tuple[Any, ...]
) -> NonFiniteLossError:
    """Make the error that says where a loss is not finite, and what to try."""
    labels = next((arg.task_labels for arg in args if hasattr(arg, "task_labels")), None)
    places = []
    for kind, sites in (("log-likelihood", terms.log_likelihood), ("KL", terms.kl)):
        for site, values in sites.items():
            bad = (~torch.isfinite(values)).reshape(-1).nonzero().flatten().tolist()
            names = ", ".join(repr(labels[t] if labels else t) for t in bad[:3])
            more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
            if bad:
                where = f" in task {names}{more}" if values.ndim else ""
                places.append(f"{kind} of site {site!r}{where}")
    parameters = [] if loss_of is None else loss_of.named_parameters()
    broken = [n for n, p in parameters if not torch.isfinite(p).all()]
    cause = f" The update before it left {', '.join(broken)} not finite." if broken else ""
    return NonFiniteLossError(
        f"The loss is not finite at step {step}: {'; '.join(places) or 'cause unknown'}.{cause} "
        "Try a smaller learning_rate, features on a scale of about 1, or tighter priors."
    )
