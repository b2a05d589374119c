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

__all__ = ["ScaleSites", "temper"]


def temper(
    model: Program, guide: Program, *, kl_weights: Mapping[str, float | Schedule]
) -> tuple[ProgramWithHandler, ProgramWithHandler]:
    """Weigh the KL of latent sites.

    The ELBO becomes ``E[log p(y | ...)] - sum_site kl_weights[site] * KL(site)``. A weight of 1 is
    the Bayesian one, less is a cold posterior, 0 leaves the site's KL out. Model and guide must be
    weighed alike, or the objective is wrong without any error: hence one call for both.

    Parameters
    ----------
    model, guide
        Pyro programs.
    kl_weights
        For each site its weight, at least 0, or a schedule of the step. Other sites keep theirs.

    Returns
    -------
    tuple
        The tempered model and guide.

    Raises
    ------
    ValueError
        If a weight is negative; when the programs run, if they have no such latent site.

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

    values: Tensor

    def __init__(self, kl_weights: Mapping[str, float | Schedule]) -> None:
        super().__init__()
        self.schedules = {site: as_schedule(weight) for site, weight in kl_weights.items()}
        self.sites = tuple(kl_weights)
        self.now: list[float] = []
        # Names of sites have dots, and those of buffers not. A double weighs floats, too.
        values = torch.zeros(len(self.sites), dtype=torch.float64)
        self.register_buffer("values", values, persistent=False)  # a setting, not learned
        self.at_step(0)

    def __getitem__(self, site: str) -> Tensor | None:
        """Give the weight of a site; None where it is 0."""
        place = self.sites.index(site)
        return self.values[place] if self.form[place] else None

    def at_step(self, step: int) -> None:
        """Set the weights to their values at a step of the fit."""
        now = [schedule(step) for schedule in self.schedules.values()]
        if now != self.now:
            self.now = now
            for place, weight in enumerate(now):
                self.values[place] = weight

    @property
    def form(self) -> tuple[bool, ...]:
        """Which sites have a weight: the others are left out."""
        return tuple(weight != 0 for weight in self.now)


class ScaleSites(SiteMessenger):
    """Scales tempered sites, and leaves those with weight 0 out.

    Parameters
    ----------
    weights
        The weights of all of them.
    """

    def __init__(self, weights: KLWeights) -> None:
        super().__init__(weights.sites)
        self.weights = weights

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        name = msg["name"]
        auxiliary = msg["infer"].get("is_auxiliary")
        if auxiliary and name.startswith("_") and name.endswith("_latent"):  # AutoContinuous
            raise ValueError(
                "The guide draws all sites at once, so that none has a KL of its own to weigh. "
                "Use a mean-field guide such as AutoNormal."
            )
        if auxiliary:
            name = name.removesuffix(UNCONSTRAINED)
        if name not in self.weights.sites:
            return
        if msg["is_observed"]:
            raise ValueError(
                f"kl_weights has the observed site {name!r}, expected latent sites: a likelihood "
                "has no KL. Take it out."
            )
        weight = self.weights[name]
        if weight is None:
            msg["mask"] = False  # 0 * inf is not a number; a masked site is left out
        else:
            msg["scale"] = msg["scale"] * weight
