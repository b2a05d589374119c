"""What an ELBO is made of: log-likelihood and KL, per site and per task."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.util import check_fully_reparametrized, is_validation_enabled, torch_item
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vmtl.data.plates import TASK_PLATE
from pyro_vmtl.handlers.crossed_draws import CrossedDraws
from pyro_vmtl.handlers.program_handler import UNCONSTRAINED

__all__ = ["ELBOTerms", "MeanFieldELBO", "elbo_terms", "kept_traces"]

TracePair = tuple[Trace, Trace]


class MeanFieldELBO(TraceMeanField_ELBO):
    """Pyro's ``TraceMeanField_ELBO``, with the Jacobians of autoguides, and faster.

    ``AutoNormal`` samples a positive site as a point mass with a log density, the Jacobian of its
    transform. Pyro 1.9 takes the KL of a point mass without that log density, so that posteriors of
    such sites come out wrong. Real sites, and guides of other kinds, are as in Pyro.

    Pyro takes the log density of every site, also where it then uses a closed-form KL. Here that is
    done only while Pyro's validation is on.

    Parameters
    ----------
    num_particles
        S, draws of every latent site. More than one are vectorised: they are a dimension to the
        left of the plates of model and guide.
    num_draws
        Sites that are drawn less often, with their numbers. With M draws of one and L of another
        (Shen et al., NeurIPS 2021, have numbers of each), all M * L pairs are used; the product of
        all numbers divides S.
    max_plate_nesting
        The most plates the programs have within one another.

    Raises
    ------
    ValueError
        If a number of draws is below 1, or their product does not divide S; when it runs, if there
        is no such site, or, with Pyro's validation on, draws of the guide have no gradient.
    """

    def __init__(
        self,
        num_particles: int = 1,
        *,
        num_draws: Mapping[str, int] | None = None,
        max_plate_nesting: int = 2,
    ) -> None:
        for site, num in (num_draws or {}).items():
            if num < 1:
                raise ValueError(f"num_draws[{site!r}] is {num}, expected at least 1.")
        self.num_draws = dict(num_draws or {})
        if num_particles % math.prod(self.num_draws.values()):
            raise ValueError(
                f"num_draws is {self.num_draws}, whose product does not divide num_particles, "
                f"which is {num_particles}."
            )
        super().__init__(
            num_particles=num_particles,
            vectorize_particles=num_particles > 1,
            max_plate_nesting=max_plate_nesting,
        )

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> TracePair:
        if self.num_particles == 1:
            return self._trace_both(model, guide, args, kwargs)
        with CrossedDraws(self.num_draws):
            return self._trace_both(model, guide, args, kwargs)

    def _trace_both(self, model: Any, guide: Any, args: Any, kwargs: Any) -> TracePair:
        if is_validation_enabled() or isinstance(poutine.unwrap(guide), Messenger):
            pair: TracePair = super()._get_trace(model, guide, args, kwargs)
            return pair
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        replayed = poutine.replay(model, trace=guide_trace)
        model_trace = poutine.trace(replayed).get_trace(*args, **kwargs)
        return prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace)

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Give the loss."""
        return self.terms(model, guide, *args, **kwargs).loss

    def terms(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> ELBOTerms:
        """Give the loss split by site and task."""
        return _add_up(self, self._get_traces(model, guide, args, kwargs))

    def _differentiable_loss_particle(self, model_trace: Trace, guide_trace: Trace) -> Any:
        # what else Pyro's class has goes through here
        loss = sum(
            values.sum() if kind == "kl" else -values.sum()
            for kind, _, _, values in _site_terms(self, model_trace, guide_trace)
        )
        return torch_item(loss), loss


@dataclass(frozen=True)
class ELBOTerms:
    """The terms of one ELBO estimate, as weighted in it.

    The loss is the sum of all ``kl`` minus the sum of all ``log_likelihood``.

    Attributes
    ----------
    log_likelihood
        for each observed site its log-likelihood in nats: (T,), or () outside the task plate and
        on some tasks only.
    kl
        the same for the KL of each latent site.
    """

    log_likelihood: dict[str, Tensor] = field(default_factory=dict)
    kl: dict[str, Tensor] = field(default_factory=dict)

    @property
    def loss(self) -> Tensor:
        """The loss they add up to, ()."""
        terms = [*self.kl.values(), *(-values for values in self.log_likelihood.values())]
        return sum((values.sum() for values in terms[1:]), terms[0].sum())

    def __mul__(self, factor: float) -> ELBOTerms:
        """Weigh all terms."""
        return self._map(lambda values: values * factor)

    def detach(self) -> ELBOTerms:
        """Cut the terms off from the gradient."""
        return self._map(Tensor.detach)

    def _map(self, function: Callable[[Tensor], Tensor]) -> ELBOTerms:
        kinds = (self.log_likelihood, self.kl)
        return ELBOTerms(*({site: function(v) for site, v in kind.items()} for kind in kinds))


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
    return _add_up(elbo, traces)


def _add_up(elbo: Trace_ELBO, traces: Iterable[TracePair]) -> ELBOTerms:
    """Add the terms of all particles up, in each task."""
    terms = ELBOTerms()
    for model_trace, guide_trace in traces:
        for kind, name, site, values in _site_terms(elbo, model_trace, guide_trace):
            share = values if elbo.num_particles == 1 else values / elbo.num_particles
            _add(getattr(terms, kind), name, site, share)
    return terms


def _site_terms(
    elbo: Trace_ELBO, model_trace: Trace, guide_trace: Trace
) -> Iterator[tuple[Literal["log_likelihood", "kl"], str, Any, Tensor]]:
    """Give kind, name, site and values of every term of one particle's loss."""
    latent = set()
    for name, site in _sample_sites(model_trace):
        if site["infer"].get("_deterministic"):
            continue
        if site["is_observed"]:
            yield "log_likelihood", name, site, _log_prob(site)
        else:
            latent.add(name)
            yield "kl", name, site, _kl(elbo, site, guide_trace.nodes[name])
    for name, site in _sample_sites(guide_trace):
        if is_validation_enabled() and isinstance(elbo, MeanFieldELBO):
            check_fully_reparametrized(site)  # no gradient reaches other draws
        if name not in model_trace.nodes and site["mask"] is not False:
            # AutoNormal's `w_unconstrained` has the entropy of `w`
            target = name.removesuffix(UNCONSTRAINED)
            yield "kl", target if target in latent else name, site, _log_prob(site)


def _sample_sites(trace: Trace) -> Iterator[tuple[str, Any]]:
    return ((name, site) for name, site in trace.nodes.items() if site["type"] == "sample")


def _kl(elbo: Trace_ELBO, model_site: Any, guide_site: Any) -> Tensor:
    """A site's KL as the ELBO computes it: in closed form where there is one."""
    if isinstance(elbo, TraceMeanField_ELBO):
        try:
            kl = kl_divergence(guide_site["fn"], model_site["fn"])
        except NotImplementedError:
            pass
        else:
            if kl.shape != guide_site["fn"].batch_shape:
                raise ValueError(
                    f"The KL of site {guide_site['name']!r} has shape {tuple(kl.shape)}, expected "
                    f"{tuple(guide_site['fn'].batch_shape)} as the guide's batch shape. Give the "
                    "site the same event dimensions in model and guide."
                )
            kl = scale_and_mask(kl, guide_site["scale"], guide_site["mask"])
            if isinstance(elbo, MeanFieldELBO) and isinstance(guide_site["fn"], Delta):
                fn = guide_site["fn"]
                kl = kl + scale_and_mask(fn.log_density, guide_site["scale"], guide_site["mask"])
            return kl
    return _log_prob(guide_site) - _log_prob(model_site)


def _log_prob(site: Any) -> Any:
    """Log density of a site at its value, as weighted in the ELBO."""
    if "log_prob" not in site:
        log_prob = site["fn"].log_prob(site["value"])
        site["log_prob"] = scale_and_mask(log_prob, site["scale"], site["mask"])
    return site["log_prob"]


def _add(terms: dict[str, Tensor], name: str, site: Any, values: Tensor) -> None:
    """Add up a site's values in each task, or all of them where they are for some tasks only."""
    dims = {
        frame.name: frame.dim
        for frame in site["cond_indep_stack"]
        if frame.vectorized and frame.size == frame.full_size
    }
    if TASK_PLATE in dims:
        task = values.ndim + dims[TASK_PLATE]
        values = values.movedim(task, 0).flatten(1).sum(1) if values.ndim > 1 else values
    else:
        values = values.sum()
    terms[name] = terms[name] + values if name in terms else values
