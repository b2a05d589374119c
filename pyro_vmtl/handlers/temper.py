"""Tempering: the weight of a site's KL in the ELBO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vmtl.handlers.program_handler import (
    UNCONSTRAINED,
    Program,
    ProgramWithHandler,
    SiteMessenger,
)
from pyro_vmtl.handlers.schedules import Schedule, Scheduled, as_schedule

__all__ = ["KLWeights", "ScaleSites", "kl_weights_of", "temper"]


def temper(
    model: Program, guide: Program, *, kl_weights: Mapping[str, float | Schedule]
) -> tuple[ProgramWithHandler, ProgramWithHandler]:
    """Scale the KL of latent sites.

    The ELBO becomes ``E[log p(y | ...)] - sum_site kl_weights[site] * KL(site)``. A weight of 1 is
    Bayesian inference, less is a cold posterior [1]_, 0 excludes the site's KL. Model and guide
    need the same weights, or the objective is silently wrong: hence one call for both.

    Parameters
    ----------
    model, guide
        Pyro programs.
    kl_weights
        Weight of each site, at least 0, or a schedule of the step. Other sites have weight 1.

    Returns
    -------
    tuple
        The tempered model and guide.

    See Also
    --------
    pyro_vmtl.share : Let tasks borrow from one another.

    References
    ----------
    .. [1] Wenzel, F. et al. (2020). How Good is the Bayes Posterior in Deep Neural Networks Really?
       ICML, arXiv 2002.02405.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist, torch
    >>> from pyro.infer import TraceMeanField_ELBO
    >>> def model():
    ...     pyro.sample("w", dist.Normal(0.0, 1.0))
    >>> def guide():
    ...     pyro.sample("w", dist.Normal(torch.tensor(2.0), 1.0))
    >>> TraceMeanField_ELBO().loss(*temper(model, guide, kl_weights={"w": 0.5}))
    1.0
    """
    for site, weight in kl_weights.items():
        if not callable(weight) and not weight >= 0:
            raise ValueError(f"kl_weights[{site!r}] is {weight}, expected a number of at least 0.")
    weights = KLWeights(kl_weights)
    return ProgramWithHandler(model, ScaleSites, weights), ProgramWithHandler(
        guide, ScaleSites, weights
    )


class KLWeights(Scheduled):
    """The KL weight of each tempered site at the current step of a fit."""

    fixed_graph = True
    values: Tensor

    def __init__(self, kl_weights: Mapping[str, float | Schedule]) -> None:
        super().__init__()
        self.schedules = {site: as_schedule(weight) for site, weight in kl_weights.items()}
        self.sites = tuple(kl_weights)
        self.now: list[float] = []
        # One buffer for all sites, as their names may have dots. Scalar doubles do not promote.
        values = torch.zeros(len(self.sites), dtype=torch.float64)
        self.register_buffer("values", values, persistent=False)  # a setting, not learned
        self.at_step(0)

    def __getitem__(self, site: str) -> Tensor | None:
        """Return the weight of a site; None where it is 0."""
        place = self.sites.index(site)
        return self.values[place] if self.graph_key[place] else None

    def at_step(self, step: int) -> None:
        """Set the weights to their values at a step."""
        now = [schedule(step) for schedule in self.schedules.values()]
        if now != self.now:
            self.now = now
            for place, weight in enumerate(now):
                self.values[place] = weight

    @property
    def graph_key(self) -> tuple[bool, ...]:
        """Whether the weight of each site is not 0: sites with weight 0 are masked."""
        return tuple(weight != 0 for weight in self.now)


class ScaleSites(SiteMessenger):
    """Scale tempered sites, and mask those with weight 0."""

    changes_posterior = False
    fixed_graph = True

    def __init__(self, weights: KLWeights) -> None:
        super().__init__(weights.sites)
        self.weights = weights

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        name = msg["name"]
        auxiliary = msg["infer"].get("is_auxiliary")
        if auxiliary and name.startswith("_") and name.endswith("_latent"):  # AutoContinuous
            raise ValueError(
                "The guide draws all sites at once, so that no site has a KL of its own to scale. "
                "Use a mean-field guide such as AutoNormal."
            )
        if auxiliary:
            name = name.removesuffix(UNCONSTRAINED)
        if name not in self.weights.sites:
            return
        if msg["is_observed"]:
            raise ValueError(
                f"kl_weights has the observed site {name!r}, expected latent sites: a likelihood "
                "has no KL. Remove it."
            )
        weight = self.weights[name]
        if weight is None:
            msg["mask"] = False  # 0 * inf would be nan
        else:
            msg["scale"] = msg["scale"] * weight


def kl_weights_of(program: Program) -> dict[str, float]:
    """Return the current KL weight of each tempered site; repeated weights multiply."""
    weights: dict[str, float] = {}
    for module in program.modules() if isinstance(program, nn.Module) else ():
        if isinstance(module, KLWeights):
            for site, weight in zip(module.sites, module.now, strict=True):
                weights[site] = weights.get(site, 1.0) * weight
    return weights
