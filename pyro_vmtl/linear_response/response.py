r"""Covariances by linear response.

A fit minimizes :math:`F(\eta) = -\mathrm{ELBO}`, and :math:`m(\eta)` are posterior means. If the log
density of the model had the further term :math:`\epsilon^\top \theta`, the exact posterior mean would
change by :math:`\mathrm{Cov}(\theta)\, \epsilon`. That of the approximate posterior changes by
:math:`\Sigma \epsilon` with [1]_

.. math:: \Sigma = \Big(\frac{\partial m}{\partial \eta}\Big)^\top H^{-1}
    \frac{\partial m}{\partial \eta}, \qquad H = \frac{\partial^2 F}{\partial \eta\, \partial \eta^\top}

at the optimum. So where a guide has the right means, and goes on having them, :math:`\Sigma` is the
covariance, although the guide itself has none. Between tasks, too, and with what is not known of
numbers that are learned as points, such as scales of priors and transfer scales: they are in
:math:`\eta`.

References
----------
.. [1] Giordano, R., Broderick, T. and Jordan, M. I. (2018). Covariances, Robustness, and
   Variational Bayes. JMLR 19(51).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import check_no_bare_parameters, isolated, validation
from pyro_vmtl.handlers.program_handler import Program, ProgramWithHandler
from pyro_vmtl.handlers.temper import kl_weights_of
from pyro_vmtl.handlers.tracing import sample_sites, trace_guide_and_model
from pyro_vmtl.inference.elbo import MeanFieldELBO, evaluate
from pyro_vmtl.inference.step import batch_of
from pyro_vmtl.linear_response.curvature import AT_ONCE, Curvature
from pyro_vmtl.linear_response.normals import AtMeans, Covariances, NewCovariances
from pyro_vmtl.sharing.messengers import Sharing
from pyro_vmtl.sharing.sources import Sources

__all__ = ["LinearResponse"]

LEAST_WEIGHT = 0.05
"""Weight of a source, over that of the nearest one, below which its logit is held: it runs to minus
infinity, and has no optimum."""

FAR = 0.5
"""Standard deviations from the optimum that matter."""

Quantity = str | Callable[[Mapping[str, Tensor]], Tensor]
"""Name of a site, or a function of the posterior means of all sites, by name."""


class LinearResponse:
    """Linear response of a fit: covariances of its posterior means.

    Programs are copied, in double precision. The fit is not changed.

    Parameters
    ----------
    model, guide
        Pyro programs, fitted, whose learnable numbers are module parameters.
    *args
        Arguments of both, targets included.
    elbo
        That of the fit, without draws, such as ``MeanFieldELBO(num_points=4)``; by default
        :class:`~pyro_vmtl.MeanFieldELBO`.

    Attributes
    ----------
    distance
        How far the optimum is at most, in standard deviations of any linear function of the means.
    curvature
        The Hessian of the loss; ``curvature.residual`` says how well systems were solved.

    Raises
    ------
    ValueError
        If the loss depends on draws, sources are detached, or latent sites have different KL
        weights. With the same weight everywhere, the covariance is that of the generalised
        posterior, whose likelihood has the power one over the weight.

    Warns
    -----
    UserWarning
        If the fit is not at its optimum, where alone the formula holds.

    Notes
    -----
    The means are those of normal posteriors; of positive sites, those of the logarithms. Point
    masses have the covariances of Laplace's approximation.

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
        self.guide = guide
        self._args = tuple(map(_as_double, args))
        self._model, self._guide = map(_module_as_double, copy.deepcopy((model, guide)))
        loss_of = elbo(self._model, self._guide).eval()
        modules = list(loss_of.modules())
        if any(isinstance(m, Sharing) and m.detach_sources for m in modules):
            raise ValueError(
                "The sources of the sharing model are detached from the gradient, so that its steps "
                "minimize no single loss. Use share(detach_sources=False)."
            )
        self._kl_weight = self._common_kl_weight()
        shifts = [getattr(m, name) for m in modules for name in getattr(m, "shifts", ())]
        parameters = [p for p in loss_of.parameters() if p.requires_grad]
        parameters += [shift.requires_grad_() for shift in shifts]
        loss, again = (self._loss(elbo, seed) for seed in (0, 1))
        if loss.item() != again.item():
            raise ValueError(
                f"Two losses of the same parameters are {loss.item():.8g} and {again.item():.8g}, "
                "expected equal ones: no term may depend on draws. Fit and call this with "
                "elbo=MeanFieldELBO(num_points=4), and weights='categorical' where tasks share."
            )
        held = {id(m.logits): _held(m.logits.detach()) for m in modules if isinstance(m, Sources)}
        free = [~held.get(id(p), torch.zeros_like(p, dtype=torch.bool)) for p in parameters]
        self.curvature = Curvature(loss, parameters, free)
        step = self.curvature.solve(self.curvature.gradient[None])[0]
        self.distance = max(0.0, float(self.curvature.gradient @ step)) ** 0.5
        if self.curvature.damping > 1e-3 or self.distance > FAR:
            warnings.warn(
                f"The optimum of the ELBO is up to {self.distance:.2g} standard deviations away, "
                f"with damping {self.curvature.damping:.1g}, expected at most {FAR} and 0.001. "
                "Covariances by linear response hold at the optimum. Fit again from here, by "
                "optimizer='lbfgs' or more steps.",
                stacklevel=2,
            )

    def covariance(self, of: Quantity) -> Tensor:
        r"""Compute the covariances of a quantity of any shape, (\*shape, \*shape).

        Parameters
        ----------
        of
            A site, or a function of the posterior means by site, such as
            ``lambda means: means["w"][0] - means["w"][1]``. If it is not linear, this is the delta
            method.
        """
        values, _ = self._values(of)
        flat = values.flatten()
        covariance = self._covariance(flat, torch.eye(len(flat)).to(flat)[None])[0]
        return covariance.reshape(*values.shape, *values.shape)

    def stddev(self, of: Quantity) -> Tensor:
        """Compute the standard deviations of a quantity, in its shape.

        They take little memory, however many they are.
        """
        values, _ = self._values(of)
        flat = values.flatten()
        each = self._covariance(flat, torch.eye(len(flat)).to(flat)[:, None])
        return each.clamp_min(0).sqrt().reshape(values.shape)

    def correct(self, *sites: str) -> ProgramWithHandler:
        """Return the guide with these covariances at some of its sites.

        Draws from it, as :func:`~pyro_vmtl.analysis.from_pyro_svi` makes them of
        ``model, response.correct("w")``, have the intervals of linear response. Within each cell
        of the plates, such as a task, the numbers of a site have the covariances among them; sites
        and cells are independent of each other. The pools of a sharing model stay as they are.

        Parameters
        ----------
        *sites
            Names of sites with normal or log-normal posteriors.
        """
        found = Covariances()
        for site in sites:
            loc, event_dim = self._values(site)
            size = loc.shape[loc.ndim - event_dim :].numel()
            rows = torch.eye(loc.numel()).to(loc).unflatten(0, (-1, size))
            root = torch.linalg.cholesky(self._covariance(loc.flatten(), rows))
            batch = loc.shape[: loc.ndim - event_dim]
            found.add(site, loc.detach(), root.reshape(*batch, size, size))
        return ProgramWithHandler(self.guide, NewCovariances, found)

    def _covariance(self, flat: Tensor, rows: Tensor) -> Tensor:
        """Compute covariances of products of rows (B, P, M) with values (M,), (B, P, P)."""
        found = []
        for some in rows.split(max(1, AT_ONCE // rows.shape[1])):
            moved = self.curvature.pull_back(flat, some.flatten(0, 1))
            solved = self.curvature.solve(moved).unflatten(0, some.shape[:2])
            covariance = moved.unflatten(0, some.shape[:2]) @ solved.mT
            found.append(self._kl_weight * (covariance + covariance.mT) / 2)
        return torch.cat(found)

    def _values(self, of: Quantity) -> tuple[Tensor, int]:
        """Return a quantity, with a graph, and the number of event dimensions of a site."""
        handler = AtMeans()
        with isolated(0), validation(False), handler, batch_of(self._args, None) as args:
            self._guide(*args)
        if not isinstance(of, str):
            return of(handler.means), 0
        if of not in handler.means:
            raise ValueError(
                f"The guide has no normal posterior of {of!r}, found {sorted(handler.means)}."
            )
        return handler.means[of], handler.event_dims[of]

    def _loss(self, elbo: Trace_ELBO, seed: int) -> Tensor:
        with isolated(seed), validation(False), batch_of(self._args, None) as args:
            return evaluate(elbo, self._model, self._guide, *args).loss

    def _common_kl_weight(self) -> float:
        """Return the KL weight that all latent sites have."""
        with isolated(0), torch.no_grad(), batch_of(self._args, None) as args:
            trace = trace_guide_and_model(self._model, self._guide, *args).model
            check_no_bare_parameters(self._model, self._guide)
        tempered = kl_weights_of(self._model) if isinstance(self._model, nn.Module) else {}
        found = {
            name: tempered.get(name, 1.0)
            for name, node in sample_sites(trace).items()
            # source weights without a prior are masked
            if not node["is_observed"] and (name in tempered or node["mask"] is not False)
        }
        if len(set(found.values())) != 1 or not min(found.values()) > 0:
            raise ValueError(
                f"The KL weights of the latent sites are {found}, expected one number above 0 for "
                "all of them: otherwise the ELBO has no posterior to be the approximation of. "
                "Temper all latent sites alike."
            )
        return min(found.values())


def _held(logits: Tensor) -> Tensor:
    """Return which logits are held: of unused sources, and one of each task, as a sum is free."""
    weights = logits.softmax(-1)
    most = weights.max(-1, keepdim=True)
    held = weights < LEAST_WEIGHT * most.values
    return held.scatter_(-1, most.indices, True)


def _as_double(arg: Any) -> Any:
    if isinstance(arg, TaskData):
        return arg.map_rows(_as_double)
    return arg.double() if isinstance(arg, Tensor) and arg.is_floating_point() else arg


def _module_as_double(program: Program) -> Program:
    return program.double() if isinstance(program, nn.Module) else program
