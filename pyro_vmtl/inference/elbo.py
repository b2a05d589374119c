"""The terms of an ELBO: log-likelihoods and KLs, per site and per task."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

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
from pyro_vmtl.handlers.program_handler import UNCONSTRAINED, Program
from pyro_vmtl.handlers.tracing import TracePair, sample_sites, trace_guide_and_model
from pyro_vmtl.inference.fixed_points import FixedPoints, kl_of_normals

__all__ = ["ELBOTerms", "Evaluation", "MeanFieldELBO", "evaluate"]


class MeanFieldELBO(TraceMeanField_ELBO):
    """Pyro's ``TraceMeanField_ELBO`` with the Jacobians of autoguides, and faster.

    ``AutoNormal`` samples a positive site as a point mass whose log density is the Jacobian of its
    transform. Pyro 1.9 ignores that log density in the KL of a point mass, so that posteriors of
    such sites come out wrong. Real sites, and other guides, are as in Pyro.

    Pyro computes the log density of every site, also where it then uses a closed-form KL. Here that
    is done only while Pyro's validation is on. With one particle, or fixed points, expectations
    that a guide hands over take the place of draws: ``infer={"expected": {site: values}}`` with a
    log-likelihood or a KL in the shape of the site's plates.

    Parameters
    ----------
    num_particles
        S, draws of every latent site. More than one are vectorised: they are a dimension to the
        left of the plates of model and guide.
    num_draws
        Numbers of draws of sites that are drawn less often than S times. With M draws of one site
        and L of another [1]_ all M * L pairs are used; the product of all numbers divides S.
    num_points
        S, an even number: fixed points of every normal site, and of sites that transform a normal,
        in place of draws (:mod:`pyro_vmtl.inference.fixed_points`). The loss of a program with no
        other sites then does not depend on draws, and :func:`~pyro_vmtl.fit` can use L-BFGS. 64 are
        enough for most programs with independent normals, and a joint normal needs two for each of
        its numbers.
    max_plate_nesting
        Bound on the number of nested plates in model and guide.

    Raises
    ------
    ValueError
        If a number of draws is below 1, or their product does not divide S, or if ``num_points`` is
        odd, or comes with numbers of draws; when it runs, if there is no such site, if a joint
        normal needs more points, or, with Pyro's validation on, if draws of the guide have no
        gradient.

    References
    ----------
    .. [1] Shen, J., Zhen, X., Worring, M. and Shao, L. (2021). Variational Multi-Task Learning with
       Gumbel-Softmax Priors. NeurIPS, arXiv 2111.05323, eq. 7.

    Examples
    --------
    >>> MeanFieldELBO(num_particles=4)(model, guide)(data).shape
    torch.Size([])
    """

    fixed_graph = True

    def __init__(
        self,
        num_particles: int = 1,
        *,
        num_draws: Mapping[str, int] | None = None,
        num_points: int | None = None,
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
        if num_points is not None:
            if num_particles != 1 or num_draws or num_points < 2 or num_points % 2:
                raise ValueError(
                    f"num_points is {num_points} with num_particles={num_particles} and num_draws="
                    f"{self.num_draws}, expected an even number, without draws."
                )
            num_particles = num_points
        self.num_points = num_points
        super().__init__(
            num_particles=num_particles,
            vectorize_particles=num_particles > 1,
            max_plate_nesting=max_plate_nesting,
        )

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> TracePair:
        with self._draws():
            if is_validation_enabled() or isinstance(poutine.unwrap(guide), Messenger):
                return TracePair(*super()._get_trace(model, guide, args, kwargs))
            traces = trace_guide_and_model(model, guide, *args, **kwargs)
            return TracePair(*map(prune_subsample_sites, traces))

    def _draws(self) -> AbstractContextManager[Any]:
        if self.num_points is not None:
            return FixedPoints(self.num_points)
        return CrossedDraws(self.num_draws) if self.num_particles > 1 else nullcontext()

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss."""
        return evaluate(self, model, guide, *args, **kwargs).loss

    def _differentiable_loss_particle(self, model_trace: Trace, guide_trace: Trace) -> Any:
        # the other methods of Pyro's class call this one
        loss = sum(
            values.sum() if kind == "kl" else -values.sum()
            for kind, _, _, values in _site_terms(self, model_trace, guide_trace)
        )
        return torch_item(loss), loss


@dataclass(frozen=True)
class ELBOTerms:
    """The terms of one ELBO estimate in nats, with their weights in it, by site.

    Each is of shape (T,), or () outside the task plate and on some tasks only.
    """

    log_likelihood: dict[str, Tensor] = field(default_factory=dict)
    kl: dict[str, Tensor] = field(default_factory=dict)

    @property
    def loss(self) -> Tensor:
        """The sum of all ``kl`` minus the sum of all ``log_likelihood``, ()."""
        terms = [*self.kl.values(), *(-values for values in self.log_likelihood.values())]
        return sum((values.sum() for values in terms[1:]), terms[0].sum())

    def __mul__(self, factor: float) -> ELBOTerms:
        return self._map(lambda values: values * factor)

    def detach(self) -> ELBOTerms:
        """Detach the terms from the gradient."""
        return self._map(Tensor.detach)

    def by_name(self) -> dict[str, Tensor]:
        """Return the terms by names such as ``kl.w``."""
        return {f"{kind}.{site}": v for kind, of in vars(self).items() for site, v in of.items()}

    def _map(self, function: Callable[[Tensor], Tensor]) -> ELBOTerms:
        kinds = (self.log_likelihood, self.kl)
        return ELBOTerms(*({site: function(v) for site, v in kind.items()} for kind in kinds))


class Evaluation(NamedTuple):
    """One estimate of an ELBO: its negative, ``loss``, which ``terms`` split by site and task."""

    loss: Tensor
    terms: ELBOTerms
    traces: list[TracePair]
    """One pair for each particle that is not vectorised."""


def evaluate(
    elbo: Trace_ELBO, model: Program, guide: Program, *args: Any, **kwargs: Any
) -> Evaluation:
    """Estimate an ELBO, keeping its terms and traces; of Pyro's own, only the loss has a gradient.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> def program():
    ...     pyro.sample("w", dist.Normal(torch.tensor(0.0), 1.0))
    >>> evaluate(MeanFieldELBO(), program, program).terms.kl
    {'w': tensor(0.)}
    """
    if isinstance(elbo, MeanFieldELBO):
        traces = [TracePair(*pair) for pair in elbo._get_traces(model, guide, args, kwargs)]
        terms = _add_up(elbo, traces)
        return Evaluation(terms.loss, terms, traces)
    # Pyro's own ELBOs return the loss only, hence the programs keep their traces.
    traced_model, traced_guide = _Traced(model), _Traced(guide)
    loss = elbo.differentiable_loss(traced_model, traced_guide, *args, **kwargs)
    num_runs = 1 if elbo.vectorize_particles else elbo.num_particles
    both = (traced.traces[-num_runs:] for traced in (traced_model, traced_guide))
    traces = [TracePair(*pair) for pair in zip(*both, strict=True)]
    with torch.no_grad():
        return Evaluation(loss, _add_up(elbo, traces), traces)


class _Traced:
    """A program that keeps the traces of its runs."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.traces: list[Trace] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with poutine.trace() as tracer:
            result = self.program(*args, **kwargs)
        self.traces.append(prune_subsample_sites(tracer.trace))
        return result


def _add_up(elbo: Trace_ELBO, traces: Iterable[TracePair]) -> ELBOTerms:
    """Average the terms of all particles, for each site and task."""
    terms = ELBOTerms()
    for model_trace, guide_trace in traces:
        for kind, name, site, values in _site_terms(elbo, model_trace, guide_trace):
            share = values if elbo.num_particles == 1 else values / elbo.num_particles
            _add(getattr(terms, kind), name, site, share)
    return terms


def _site_terms(
    elbo: Trace_ELBO, model_trace: Trace, guide_trace: Trace
) -> Iterator[tuple[Literal["log_likelihood", "kl"], str, Any, Tensor]]:
    """Yield kind, name, site and values of every term of the loss of one particle."""
    latent = set()
    expected = _expected_terms(elbo, guide_trace)
    for name, site in sample_sites(model_trace).items():
        if site["infer"].get("_deterministic"):
            continue
        if name in expected:
            latent.add(name)
            yield "log_likelihood" if site["is_observed"] else "kl", name, site, expected[name]
        elif site["is_observed"]:
            yield "log_likelihood", name, site, _log_prob(site)
        else:
            latent.add(name)
            yield "kl", name, site, _kl(elbo, site, guide_trace.nodes[name])
    for name, site in sample_sites(guide_trace).items():
        if is_validation_enabled() and isinstance(elbo, MeanFieldELBO):
            check_fully_reparametrized(site)  # other draws have no gradient
        if name not in model_trace.nodes and site["mask"] is not False:
            # AutoNormal's `w_unconstrained` has the entropy of `w`
            target = name.removesuffix(UNCONSTRAINED)
            yield "kl", target if target in latent else name, site, _log_prob(site)


def _expected_terms(elbo: Trace_ELBO, guide_trace: Trace) -> dict[str, Tensor]:
    """Return the terms whose expectations the guide has in closed form, by site."""
    if not isinstance(elbo, MeanFieldELBO) or elbo.num_particles > (elbo.num_points or 1):
        return {}
    return {
        name: elbo.num_particles * values * site["scale"]
        for site in sample_sites(guide_trace).values()
        for name, values in site["infer"].get("expected", {}).items()
    }


def _kl(elbo: Trace_ELBO, model_site: Any, guide_site: Any) -> Tensor:
    """Compute the KL of a site as the ELBO does: in closed form where there is one."""
    if isinstance(elbo, TraceMeanField_ELBO):
        at_points = isinstance(elbo, MeanFieldELBO) and elbo.num_points is not None
        try:
            kl = kl_of_normals(guide_site, model_site) if at_points else None
            if kl is None:
                kl = kl_divergence(guide_site["fn"], model_site["fn"])
        except NotImplementedError:
            pass
        else:
            if kl.shape != guide_site["fn"].batch_shape:
                raise ValueError(
                    f"The KL of site {guide_site['name']!r} has shape {tuple(kl.shape)}, expected "
                    f"{tuple(guide_site['fn'].batch_shape)} as the guide's batch shape. Use the "
                    "same event dimensions of the site in model and guide."
                )
            kl = scale_and_mask(kl, guide_site["scale"], guide_site["mask"])
            if isinstance(elbo, MeanFieldELBO) and isinstance(guide_site["fn"], Delta):
                fn = guide_site["fn"]
                kl = kl + scale_and_mask(fn.log_density, guide_site["scale"], guide_site["mask"])
            return kl
    return _log_prob(guide_site) - _log_prob(model_site)


def _log_prob(site: Any) -> Any:
    """Compute the log density of a site at its value, with its weight in the ELBO."""
    if "log_prob" not in site:
        log_prob = site["fn"].log_prob(site["value"])
        site["log_prob"] = scale_and_mask(log_prob, site["scale"], site["mask"])
    return site["log_prob"]


def _add(terms: dict[str, Tensor], name: str, site: Any, values: Tensor) -> None:
    """Add the values of a site, summed within tasks, or over all if it has only some tasks."""
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
