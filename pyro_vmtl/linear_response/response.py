r"""Covariances by linear response [1]_.

A fit minimizes :math:`F(\eta) = -\mathrm{ELBO}`, and :math:`m(\eta)` are posterior means. If the
log density of a model had a further term :math:`\epsilon^\top \theta`, its exact posterior mean
would change by :math:`\mathrm{Cov}(\theta)\, \epsilon`, and that of the fit changes by
:math:`\Sigma \epsilon` with

.. math:: \Sigma = \frac{\partial m}{\partial \eta}^\top
    \Big(\frac{\partial^2 F}{\partial \eta\, \partial \eta^\top}\Big)^{-1}
    \frac{\partial m}{\partial \eta}

at the optimum. So where the means are right, and go on being so, :math:`\Sigma` is the covariance,
whatever that of the guide. It has covariances between tasks, and what is not known of numbers that
are learned as points, such as scales of priors, as these are in :math:`\eta`.

References
----------
.. [1] Giordano, R., Broderick, T. and Jordan, M. I. (2018). Covariances, Robustness, and
   Variational Bayes. JMLR 19(51).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import check_no_bare_parameters, isolated, validation
from pyro_vmtl.handlers.program_handler import Program, ProgramWithHandler
from pyro_vmtl.handlers.target import learning_rate_of
from pyro_vmtl.handlers.tracing import sample_sites, trace_guide_and_model
from pyro_vmtl.inference.elbo import MeanFieldELBO, evaluate
from pyro_vmtl.inference.step import batch_of
from pyro_vmtl.linear_response.curvature import Curvature
from pyro_vmtl.linear_response.hessian import AT_ONCE
from pyro_vmtl.linear_response.normals import AtMeans, NewCovariances
from pyro_vmtl.sharing.messengers import Sharing
from pyro_vmtl.sharing.sources import Sources

__all__ = ["LinearResponse", "as_double", "free_numbers", "in_double", "kl_weight_and_supports"]

LEAST_WEIGHT = 0.05
"""Weight of a source, relative to the largest, below which its logit is held: it has no optimum."""

FAR, MOST_DESCENT = 0.5, 1e-3
"""Standard deviations from the optimum, and descent, beyond which the formula does not hold."""


class LinearResponse:
    """Covariances of the posterior means of a fit, by linear response.

    Means are those of unconstrained values: of a positive site, of its logarithm. Point masses have
    the covariances of Laplace's approximation. The programs are copied, in double precision.

    Parameters
    ----------
    model, guide
        Pyro programs, fitted, whose learnable numbers are module parameters.
    *args
        Arguments of both, targets included.
    elbo
        That of the fit, without draws; by default :class:`~pyro_vmtl.MeanFieldELBO`.

    Attributes
    ----------
    distance
        Bound on how far the optimum is: standard deviations of any linear function of the means.
    at_optimum
        Whether that is near enough, and the loss does not descend in any direction.
    curvature
        The Hessian of the loss. ``curvature.residual`` says how well systems were solved.

    Raises
    ------
    ValueError
        If the loss depends on draws, sources are detached, or KL weights differ between sites. The
        covariances are those of the target, see :func:`~pyro_vmtl.target_learning_rate`.

    Warns
    -----
    UserWarning
        If the fit is not at its optimum, where alone the formula holds.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> from pyro.infer.autoguide import AutoNormal
    >>> from pyro_vmtl import fit
    >>> def model(y):
    ...     mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("task", len(y)):
    ...         w = pyro.sample("w", dist.Normal(mean, 1.0))
    ...         pyro.sample("y", dist.Normal(w, 1.0), obs=y)
    >>> guide, y, elbo = AutoNormal(model), torch.tensor([0.2, 1.0]), MeanFieldELBO(num_points=4)
    >>> result = fit(model, guide, y, elbo=elbo, optimizer="lbfgs")
    >>> response = LinearResponse(model, guide, y, elbo=elbo)
    >>> response.covariance("w")  # exact: [[5, 1], [1, 5]] / 8
    tensor([[0.6250, 0.1250],
            [0.1250, 0.6250]], dtype=torch.float64)
    >>> response.stddev(lambda means: means["w"][1] - means["w"][0]).round(decimals=4)
    tensor(1., dtype=torch.float64)
    """

    def __init__(
        self, model: Program, guide: Program, *args: Any, elbo: Trace_ELBO | None = None
    ) -> None:
        elbo = MeanFieldELBO() if elbo is None else elbo
        self._fitted_guide = guide
        self._model, self._guide, self._args = in_double(model, guide, args)
        self._kl_weight, self._supports = kl_weight_and_supports(
            self._model, self._guide, self._args
        )
        modules = list(elbo(self._model, self._guide).eval().modules())
        if any(isinstance(m, Sharing) and m.detach_sources for m in modules):
            raise ValueError(
                "The sources are detached from the gradient, so that steps minimize no single "
                "loss. Use share(detach_sources=False)."
            )
        parameters = [p for p in modules[0].parameters() if p.requires_grad]
        shifts = [getattr(m, name) for m in modules for name in getattr(m, "shifts", ())]
        parameters += [shift.requires_grad_() for shift in shifts]
        loss, again = (self._loss(elbo, seed) for seed in (0, 1))
        if loss.item() != again.item():
            raise ValueError(
                f"Two losses of the same parameters are {loss.item():.8g} and {again.item():.8g}, "
                "expected equal ones: no term may depend on draws. Fit and call this with "
                "elbo=MeanFieldELBO(num_points=4), and weights='categorical' where tasks share."
            )
        self.curvature = Curvature(loss, parameters, free_numbers(modules, parameters))
        step = self.curvature.solve(self.curvature.gradient[None])[0]
        squared = float(self.curvature.gradient @ step) / self._kl_weight
        self.distance = max(0.0, squared) ** 0.5
        self.at_optimum = self.distance <= FAR and self.curvature.descent <= MOST_DESCENT
        if not self.at_optimum:
            warnings.warn(
                f"The optimum of the ELBO is up to {self.distance:.2g} standard deviations away, "
                f"with a descent of {self.curvature.descent:.1g}, expected at most {FAR} and "
                f"{MOST_DESCENT}: linear response holds at the optimum only. Fit again from here.",
                stacklevel=2,
            )

    def covariance(self, of: str | Callable[[Mapping[str, Tensor]], Tensor]) -> Tensor:
        r"""Compute the covariances of a quantity of any shape, (\*shape, \*shape).

        It is a site, or a function of the posterior means by site, such as
        ``lambda means: means["w"][0] - means["w"][1]``; by the delta method if not linear.
        """
        values, _ = self._values(of)
        rows = torch.eye(values.numel()).to(values)[None]
        return self._covariances(values, rows).reshape(*values.shape, *values.shape)

    def stddev(self, of: str | Callable[[Mapping[str, Tensor]], Tensor]) -> Tensor:
        """Compute the standard deviations of such a quantity, in its shape, one by one."""
        values, _ = self._values(of)
        rows = torch.eye(values.numel()).to(values)[:, None]
        return self._covariances(values, rows).clamp_min(0).sqrt().reshape(values.shape)

    def correct(self, *sites: str) -> ProgramWithHandler:
        """Return the guide with these covariances at normal or log-normal sites, to draw from.

        ``from_pyro_svi(model, response.correct("w"), data)`` has intervals by linear response. The
        numbers of a site in one cell of its plates, such as a task, have covariances; cells and
        sites are independent. The pools of a sharing model stay as they are.
        """
        normals = {}
        for site in sites:
            loc, event_dim = self._values(site)
            batch = loc.shape[: loc.ndim - event_dim]
            rows = torch.eye(loc.numel()).to(loc).reshape(batch.numel(), -1, loc.numel())
            root = torch.linalg.cholesky(self._covariances(loc, rows))
            normals[site] = loc.detach(), root.reshape(*batch, *root.shape[1:])
        state = nn.Module()
        state.normals, state.supports = normals, self._supports  # type: ignore[assignment]
        return ProgramWithHandler(self._fitted_guide, NewCovariances, state)

    def _covariances(self, values: Tensor, rows: Tensor) -> Tensor:
        """Compute covariances of products of rows (B, P, M) with M values, (B, P, P)."""
        found = []
        for some in rows.split(max(1, AT_ONCE // rows.shape[1])):
            moved = self.curvature.pull_back(values.flatten(), some.flatten(0, 1))
            solved = self.curvature.solve(moved).unflatten(0, some.shape[:2])
            covariance = moved.unflatten(0, some.shape[:2]) @ solved.mT
            found.append(self._kl_weight * (covariance + covariance.mT) / 2)
        return torch.cat(found)

    def _values(self, of: str | Callable[..., Tensor]) -> tuple[Tensor, int]:
        """Return a quantity, with a graph, and the event dimensions of a site."""
        handler = AtMeans(self._supports)
        with isolated(0), validation(False), handler, batch_of(self._args, None) as args:
            self._guide(*args)
        if callable(of):
            return of(handler.means), 0
        if of not in handler.means:
            raise ValueError(f"No normal posterior of {of!r}, found {sorted(handler.means)}.")
        return handler.means[of], handler.event_dims[of]

    def _loss(self, elbo: Trace_ELBO, seed: int) -> Tensor:
        with isolated(seed), validation(False), batch_of(self._args, None) as args:
            return evaluate(elbo, self._model, self._guide, *args).loss


def free_numbers(modules: Sequence[nn.Module], parameters: Sequence[Tensor]) -> Tensor:
    """Return which numbers have an optimum, (n,): not all logits, nor common factors of scales."""
    held = {id(m.logits): _held(m.logits.detach()) for m in modules if isinstance(m, Sources)}
    factors = (f for m in modules for f in getattr(m, "raw_common_scales", {}).values())
    held |= {id(factor): torch.ones_like(factor, dtype=torch.bool) for factor in factors}
    masks = (held.get(id(p), torch.zeros_like(p, dtype=torch.bool)) for p in parameters)
    return ~torch.cat([mask.flatten() for mask in masks])


def _held(logits: Tensor) -> Tensor:
    """Return which logits are held: of unused sources, and one of each task, as a sum is free."""
    weights = logits.softmax(-1)
    most = weights.max(-1, keepdim=True)
    return (weights < LEAST_WEIGHT * most.values).scatter_(-1, most.indices, True)


def in_double(
    model: Program, guide: Program, args: tuple[Any, ...]
) -> tuple[Program, Program, tuple[Any, ...]]:
    """Copy programs and their arguments, in double precision."""
    model, guide = copy.deepcopy((model, guide))
    for program in (model, guide):
        if isinstance(program, nn.Module):
            program.double()
    return model, guide, tuple(map(as_double, args))


def kl_weight_and_supports(
    model: Program, guide: Program, args: tuple[Any, ...]
) -> tuple[float, dict[str, Any]]:
    """Return the KL weight that all latent sites have, and the supports of all sites."""
    with isolated(0), torch.no_grad(), batch_of(args, None) as batch:
        trace = trace_guide_and_model(model, guide, *batch).model
        check_no_bare_parameters(model, guide)
    nodes = sample_sites(trace)
    supports = {name: node["fn"].support for name, node in nodes.items()}
    return 1 / learning_rate_of(nodes), supports


def as_double(arg: Any) -> Any:
    """Copy rows or a tensor in double precision; return anything else as it is."""
    if isinstance(arg, TaskData):
        return replace(arg.map_rows(as_double), attended=as_double(arg.attended))
    return arg.double() if isinstance(arg, Tensor) and arg.is_floating_point() else arg
