"""What can be wrong with programs or a loss, and the errors that say so."""

from __future__ import annotations

from typing import Any

import torch
from pyro.infer.elbo import ELBOModule

from pyro_vmtl.handlers.tracing import TracePair, sample_sites
from pyro_vmtl.inference.elbo import ELBOTerms

__all__ = ["NonFiniteLossError", "check_latent_sites", "non_finite"]


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
