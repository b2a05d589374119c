r"""A reference for the posterior of small models: Hamiltonian Monte Carlo.

A guide is of a family, most often independent normals, and a fit may end early or in a local
optimum. NUTS (Hoffman and Gelman, JMLR 2014) has no family, and its draws are of the target itself.
The target is that of the fit:

- in a tempered one the likelihood has the power :math:`1 / b`, with :math:`b` the KL weight;
- in a shared one the prior of a task is its pool, made of the posteriors that the guide has for the
  other tasks, with the source weights at their posterior mean. Both are held: a sibling's posterior
  is no prior that could be sampled together with it. For the logarithmic pool, whose log density is
  linear in the weights, the mean is what the ELBO has, too; for others nearly. A fit whose sources
  are not detached lets a task also give way to those that borrow from it, which is no part of its
  own target: some of what is seen beside the reference comes from there;
- learned numbers, such as noise, stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import xarray as xr
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from pyro_vmtl.analysis.tree_parts import needed
from pyro_vmtl.handlers.isolation import isolated, validation
from pyro_vmtl.handlers.program_handler import Program, ProgramWithHandler
from pyro_vmtl.handlers.temper import KLWeights, ScaleSites
from pyro_vmtl.inference.step import batch_of
from pyro_vmtl.sharing.messengers import Sharing
from pyro_vmtl.sharing.sites import detached
from pyro_vmtl.sharing.sources import CellSources, Sources

__all__ = ["nuts_reference"]

WEIGHT_DRAWS = 4000
"""Draws of the source weights that their mean is taken of."""


def nuts_reference(
    model: Program,
    guide: Program,
    *args: Any,
    like: xr.DataTree,
    num_samples: int = 500,
    warmup: int = 500,
    num_chains: int = 2,
    seed: int = 0,
) -> xr.DataTree:
    """Draw from the target of a fit by NUTS, to lay beside the draws of its guide.

    For small models: a second per few hundred numbers and hundred draws is common, and a minute is
    soon reached. The fit stays as it is, and nothing global is changed.

    Parameters
    ----------
    model, guide
        Pyro programs, fitted, as ``share`` and ``temper`` return them. The guide gives the pools of
        a shared model, and is not looked at otherwise.
    *args
        What they are called with, targets included.
    like
        Tree of the fit: the reference has its dimensions and labels.
    num_samples, warmup
        Draws of each chain to keep, and those before to adapt.
    num_chains
        Chains, one after another, each from a start of its own.
    seed
        Seed of the chains.

    Returns
    -------
    DataTree
        ``posterior``, the sites of the model as in ``like``, without source weights, and
        ``sample_stats`` with ``diverging`` (chain, draw). Look at ``az.summary`` first: only chains
        that agree (``r_hat`` below 1.01) are a reference.

    Raises
    ------
    ValueError
        If latent sites are tempered by different KL weights, or not at all by one of 0: then the
        ELBO has no one target.
    """
    plain, kl_weights = _untempered(model)
    draws: dict[str, list[Tensor]] = {}
    diverging = np.zeros((num_chains, num_samples), dtype=bool)
    with validation(False), _held(guide, args, seed) as weights:
        held = poutine.condition(plain, data=weights)
        power = 1 / _common_weight(held, args, kl_weights, seed)

        def target() -> None:
            with batch_of(args, None) as batch, _Power(power):
                held(*batch)

        for chain in range(num_chains):
            with isolated(seed + chain):
                mcmc = MCMC(NUTS(target), num_samples, warmup, disable_progbar=True)
                mcmc.run()
            for site, values in mcmc.get_samples().items():
                draws.setdefault(site, []).append(values.detach().cpu())
            diverging[chain, list(mcmc.diagnostics()["divergences"]["chain 0"])] = True
    variables = {}
    for site, chains in draws.items():
        form = needed(like, "posterior", site).isel(chain=0, draw=0, drop=True)
        values = torch.stack(chains).reshape(num_chains, num_samples, *form.shape).numpy()
        variables[site] = form.expand_dims(chain=num_chains, draw=num_samples).copy(data=values)
    stats = xr.Dataset({"diverging": (("chain", "draw"), diverging)})
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(variables), "sample_stats": stats})
    tree.attrs = {"inference": "NUTS", "warmup": warmup, "seed": seed}
    return tree


def _untempered(model: Program) -> tuple[Program, Mapping[str, float]]:
    """Take tempering off, and give its KL weights."""
    weights: dict[str, float] = {}
    while isinstance(model, ProgramWithHandler) and model.handler is ScaleSites:
        state = model.state
        assert isinstance(state, KLWeights)
        for site, weight in zip(state.sites, state.now, strict=True):
            weights[site] = weights.get(site, 1.0) * weight
        model = model.program
    return model, weights


def _common_weight(
    target: Program, args: tuple[Any, ...], kl_weights: Mapping[str, float], seed: int
) -> float:
    """Find the one KL weight of all latent sites."""
    with isolated(seed), torch.no_grad():
        trace = prune_subsample_sites(poutine.trace(target).get_trace(*args))
    found = {site: kl_weights.get(site, 1.0) for site in trace.stochastic_nodes}
    if not found or len(set(found.values())) > 1 or not min(found.values()) > 0:
        raise ValueError(
            f"The KL weights of the latent sites are {found}, expected one number above 0 for all "
            "of them: otherwise the ELBO has no one target that could be sampled. Temper all "
            "latent sites alike."
        )
    return min(found.values())


@contextmanager
def _held(guide: Program, args: tuple[Any, ...], seed: int) -> Iterator[dict[str, Tensor]]:
    """Hold the pools: note the posteriors of the guide, and give the mean source weights."""
    modules = list(guide.modules()) if isinstance(guide, nn.Module) else []
    before = [(s, s.noted, s.posterior, s.pool) for s in modules if isinstance(s, Sources)]
    weights: dict[str, Tensor] = {}
    try:
        with isolated(seed), torch.no_grad():
            trace = poutine.trace(guide).get_trace(*args)
            for sharing in modules:
                if not isinstance(sharing, Sharing):
                    continue
                for site, sources in sharing.items():
                    posterior = sources.weights_posterior(sources.logits)
                    log_weights = posterior.sample(torch.Size([WEIGHT_DRAWS]))
                    mean = log_weights.logsumexp(0) - math.log(WEIGHT_DRAWS)
                    form = trace.nodes[f"{site}_sources"]["value"]
                    weights[f"{site}_sources"] = mean.reshape(form.shape)
                    noted = sources.posterior
                    if noted is not None and not isinstance(noted, CellSources):
                        sources.note(detached(noted))
        yield weights
    finally:
        for sources, noted, posterior, pool in before:
            sources.noted, sources.posterior, sources.pool = noted, posterior, pool


class _Power(Messenger):
    """Gives the likelihood a power."""

    def __init__(self, power: float) -> None:
        super().__init__()
        self.power = power

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] and not math.isclose(self.power, 1.0):
            msg["scale"] = msg["scale"] * self.power
