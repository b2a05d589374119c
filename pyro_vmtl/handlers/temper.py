"""Tempering: the weight of a site's KL in the ELBO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_vmtl.handlers.program_handler import (
    UNCONSTRAINED,
    Program,
    ProgramWithHandler,
    SiteMessenger,
)
from pyro_vmtl.handlers.schedules import Schedule, Scheduled, as_schedule
from pyro_vmtl.handlers.tracing import is_sample

__all__ = ["KL_WEIGHT", "KLWeights", "ScaleSites", "temper"]

KL_WEIGHT = "_kl_weight"
"""Key in the ``infer`` of a tempered site for the weight of its KL."""


def temper(
    model: Program, guide: Program, *, kl_weights: float | Schedule | Mapping[str, float | Schedule]
) -> tuple[ProgramWithHandler, ProgramWithHandler]:
    """Scale the KL of latent sites.

    The ELBO becomes ``E[log p(y | ...)] - sum_site kl_weights[site] * KL(site)``. A weight of 1 is
    Bayesian inference, 0 excludes the site's KL. With the same weight ``b`` for all latent sites a
    fit approximates the generalised posterior [1]_ ``p(theta) * p(y | theta) ** (1 / b)``, where
    ``1 / b`` is the learning rate of the likelihood. A ``b`` below 1 is a cold posterior [2]_. With
    different weights a fit approximates no posterior, see :func:`target_learning_rate`.

    Model and guide need the same weights, or the objective is silently wrong: hence one call for
    both.

    Parameters
    ----------
    model, guide
        Pyro programs.
    kl_weights
        Weight of all latent sites, at least 0, or a schedule of the step; or by site, where others
        have weight 1.

    Returns
    -------
    tuple
        The tempered model and guide.

    See Also
    --------
    target_learning_rate : Return the learning rate of a pair of programs.
    pyro_vmtl.share : Let tasks borrow from one another.

    References
    ----------
    .. [1] Bissiri, P. G., Holmes, C. C. and Walker, S. G. (2016). A General Framework for Updating
       Belief Distributions. JRSS B 78(5).
    .. [2] Wenzel, F. et al. (2020). How Good is the Bayes Posterior in Deep Neural Networks Really?
       ICML, arXiv 2002.02405.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist, torch
    >>> from pyro.infer import TraceMeanField_ELBO
    >>> def model():
    ...     pyro.sample("w", dist.Normal(0.0, 1.0))
    >>> def guide():
    ...     pyro.sample("w", dist.Normal(torch.tensor(2.0), 1.0))
    >>> TraceMeanField_ELBO().loss(*temper(model, guide, kl_weights=0.5))
    1.0
    """
    by_site = kl_weights if isinstance(kl_weights, Mapping) else {None: kl_weights}
    for site, weight in by_site.items():
        if not callable(weight) and not weight >= 0:
            where = "kl_weights" if site is None else f"kl_weights[{site!r}]"
            raise ValueError(f"{where} is {weight}, expected a number of at least 0.")
    weights = KLWeights(by_site)
    return ProgramWithHandler(model, ScaleSites, weights), ProgramWithHandler(
        guide, ScaleSites, weights
    )


class KLWeights(Scheduled):
    """The KL weight of each tempered site at the current step of a fit; of all, if for None."""

    fixed_graph = True
    values: Tensor

    def __init__(self, kl_weights: Mapping[Any, float | Schedule]) -> None:
        super().__init__()
        self.schedules = {site: as_schedule(weight) for site, weight in kl_weights.items()}
        self.sites = tuple(kl_weights)
        self.now: list[float] = []
        # One buffer for all sites, as their names may have dots. Scalar doubles do not promote.
        values = torch.zeros(len(self.sites), dtype=torch.float64)
        self.register_buffer("values", values, persistent=False)  # a setting, not learned
        self.at_step(0)

    def place(self, site: str) -> int | None:
        """Return the place of a site among the weights; None where it is not tempered."""
        named = site if site in self.sites else None
        return self.sites.index(named) if named in self.sites else None

    def at_step(self, step: int) -> None:
        """Set the weights to their values at a step."""
        now = [schedule(step) for schedule in self.schedules.values()]
        if now != self.now:
            self.now = now
            for place, weight in enumerate(now):
                self.values[place].fill_(weight)  # an assignment would make a GPU wait

    @property
    def graph_key(self) -> tuple[bool, ...]:
        """Whether the weight of each site is not 0: sites with weight 0 are masked."""
        return tuple(weight != 0 for weight in self.now)


class ScaleSites(SiteMessenger):
    """Scale tempered sites, and mask those with weight 0."""

    changes_posterior = False
    fixed_graph = True

    def __init__(self, weights: KLWeights) -> None:
        super().__init__(site for site in weights.sites if site is not None)
        self.weights = weights

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        name, of_all = msg["name"], None in self.weights.sites
        auxiliary = msg["infer"].get("is_auxiliary")
        joint = auxiliary and name.startswith("_") and name.endswith("_latent")  # AutoContinuous
        if joint and not of_all:
            raise ValueError(
                "The guide draws all sites at once, so that no site has a KL of its own to scale. "
                "Use one number for all sites, or a mean-field guide such as AutoNormal."
            )
        place = self.weights.place(name.removesuffix(UNCONSTRAINED) if auxiliary else name)
        if place is None or not is_sample(msg) or (of_all and msg["is_observed"]):
            return
        if msg["is_observed"]:
            raise ValueError(
                f"kl_weights has the observed site {name!r}, expected latent sites: a likelihood "
                "has no KL. Remove it."
            )
        weight = self.weights.now[place]
        if "expected" in msg["infer"] and weight != 1:
            raise ValueError(
                f"The guide hands over the terms of site {name!r} in closed form, for a KL weight "
                "of 1. Use a guide such as FullRankNormal."
            )
        before = msg["infer"].get(KL_WEIGHT, 1.0)
        msg["infer"] = {**msg["infer"], KL_WEIGHT: before * weight}
        if weight == 0:
            msg["mask"] = False  # 0 * inf would be nan
        else:
            msg["scale"] = msg["scale"] * self.weights.values[place]
