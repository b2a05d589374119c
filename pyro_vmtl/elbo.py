"""What an ELBO is made of: log-likelihood and KL, per site and per task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vmtl.handled import TASK_PLATE, UNCONSTRAINED

__all__ = ["ELBOTerms", "MeanFieldELBO", "elbo_terms", "kept_traces"]

TracePair = tuple[Trace, Trace]


class MeanFieldELBO(TraceMeanField_ELBO):
    """Pyro's ``TraceMeanField_ELBO``, with the Jacobians of autoguides.

    ``AutoNormal`` samples a positive site as a point mass with a log density, the Jacobian of its
    transform. Pyro 1.9 takes the KL of a point mass without that log density, so that posteriors of
    such sites come out wrong. Real sites, and guides of other kinds, are as in Pyro.
    """

    def _differentiable_loss_particle(self, model_trace: Trace, guide_trace: Trace) -> Any:
        loss, surrogate_loss = super()._differentiable_loss_particle(model_trace, guide_trace)
        for name, site in _sample_sites(guide_trace):
            if name in model_trace.nodes and isinstance(site["fn"], Delta):
                jacobian = _log_jacobian(site).sum()
                loss, surrogate_loss = loss + jacobian.item(), surrogate_loss + jacobian
        return loss, surrogate_loss


def _log_jacobian(site: Any) -> Tensor:
    """Log density of a point mass, as weighted in the ELBO."""
    return scale_and_mask(site["fn"].log_density, site["scale"], site["mask"])


@dataclass(frozen=True)
class ELBOTerms:
    """The terms of one ELBO estimate, as weighted in it.

    The loss is the sum of all ``kl`` minus the sum of all ``log_likelihood``.

    Attributes
    ----------
    log_likelihood
        for each observed site its log-likelihood in nats: (T,), or () outside the task plate.
    kl
        the same for the KL of each latent site.
    """

    log_likelihood: dict[str, Tensor] = field(default_factory=dict)
    kl: dict[str, Tensor] = field(default_factory=dict)

    @property
    def loss(self) -> Tensor:
        """The loss they add up to, ()."""
        kl = sum((term.sum() for term in self.kl.values()), torch.tensor(0.0))
        return kl - sum((term.sum() for term in self.log_likelihood.values()), torch.tensor(0.0))


@contextmanager
def kept_traces(elbo: Trace_ELBO) -> Iterator[list[TracePair]]:
    """Keep the traces (model, guide) that an ELBO looks at.

    Pyro's ELBOs give a number and forget what it is made of. The list holds the pairs of the last
    evaluation, one for each particle that was not vectorised.
    """
    kept: list[TracePair] = []
    get_traces = elbo._get_traces

    def keeping(*args: Any, **kwargs: Any) -> Iterator[TracePair]:
        kept.clear()
        for pair in get_traces(*args, **kwargs):
            kept.append(pair)
            yield pair

    before = vars(elbo).get("_get_traces")
    elbo._get_traces = keeping
    try:
        yield kept
    finally:
        del elbo._get_traces  # the class's own method shows again
        if before is not None:
            elbo._get_traces = before


@torch.no_grad()
def elbo_terms(elbo: Trace_ELBO, traces: list[TracePair]) -> ELBOTerms:
    """Split an ELBO estimate by site and task.

    Parameters
    ----------
    elbo
        The ELBO that looked at the traces.
    traces
        What :func:`kept_traces` kept of one evaluation.
    """
    terms = ELBOTerms()
    for model_trace, guide_trace in traces:
        for name, site in _sample_sites(model_trace):
            if site["infer"].get("_deterministic"):
                continue
            if site["is_observed"]:
                _add(terms.log_likelihood, name, site, site["log_prob"] / elbo.num_particles)
            else:
                kl = _kl(elbo, site, guide_trace.nodes[name])
                _add(terms.kl, name, site, kl / elbo.num_particles)
        for name, site in _sample_sites(guide_trace):
            if name not in model_trace.nodes and site["mask"] is not False:
                # AutoNormal's `w_unconstrained` has the entropy of `w`
                target = name.removesuffix(UNCONSTRAINED)
                target = target if target in terms.kl else name
                _add(terms.kl, target, site, site["log_prob"] / elbo.num_particles)
    return terms


def _sample_sites(trace: Trace) -> Iterator[tuple[str, Any]]:
    return ((name, site) for name, site in trace.nodes.items() if site["type"] == "sample")


def _kl(elbo: Trace_ELBO, model_site: Any, guide_site: Any) -> Tensor:
    """A site's KL as the ELBO computes it: in closed form where there is one."""
    if isinstance(elbo, TraceMeanField_ELBO):
        try:
            kl = kl_divergence(guide_site["fn"], model_site["fn"])
            kl = scale_and_mask(kl, guide_site["scale"], guide_site["mask"])
            if isinstance(elbo, MeanFieldELBO) and isinstance(guide_site["fn"], Delta):
                kl = kl + _log_jacobian(guide_site)
            return kl
        except NotImplementedError:
            pass
    return guide_site["log_prob"] - model_site["log_prob"]


def _add(terms: dict[str, Tensor], name: str, site: Any, values: Tensor) -> None:
    """Add up a site's values in each task."""
    dims = {frame.name: frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
    if TASK_PLATE in dims:
        task = values.ndim + dims[TASK_PLATE]
        values = values.movedim(task, 0).reshape(values.shape[task], -1).sum(-1)
    else:
        values = values.sum()
    terms[name] = terms[name] + values if name in terms else values
