r"""NUTS draws from the target of a fit: a reference for the posteriors of small models.

A guide belongs to a family, most often independent normals, and a fit may end early or in a local
optimum. NUTS has no family, and its draws are from the target itself. The target is that of the
fit:

- in a tempered fit the likelihood has the power :math:`1 / b`, with :math:`b` the KL weight;
- in a shared fit the prior of a task is its pool of the guide's posteriors of the other tasks, with
  the source weights at their posterior mean. Both are fixed: a sibling's posterior is no prior that
  could be sampled jointly with it. For the logarithmic pool, whose log density is linear in the
  weights, the mean is exact, for others nearly. Unless the sources of a fit are detached, a task
  also adapts to those that borrow from it, which is not part of its own target and explains some of
  the differences from the reference;
- learned parameters, such as noise scales, stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from pyro_vmtl.analysis.tree_parts import get_variable
from pyro_vmtl.handlers.isolation import isolated, validation
from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.handlers.temper import kl_weights_of
from pyro_vmtl.inference.step import batch_of
from pyro_vmtl.sharing.messengers import RECORDED, Sharing, detached_sources, recorded_sources

__all__ = ["nuts_reference"]

WEIGHT_DRAWS = 4000
"""Draws of the source weights to compute their mean from."""


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
    """Sample the target of a fit by NUTS, to compare the draws of its guide with.

    For small models: a second per few hundred numbers and hundred draws is common, and a minute is
    soon reached. Neither the fit nor global state is changed. To draw both, from as many draws:
    ``az.plot_forest({"fit": like, "NUTS": reference.isel(chain=[0])})``.

    Parameters
    ----------
    model, guide
        Pyro programs, fitted, as ``share`` and ``temper`` return them. Of the guide only the pools
        of a shared model are taken.
    *args
        Arguments of both, targets included.
    like
        Tree of the fit: the reference has its dimensions and labels.
    num_samples, warmup
        Draws of each chain to keep, and draws before them to adapt.
    num_chains
        Chains, run sequentially from different starts.
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
        If latent sites are tempered by different KL weights, or by 0: then the ELBO has no single
        target.
    """
    draws: dict[str, list[Tensor]] = {}
    diverging = np.zeros((num_chains, num_samples), dtype=bool)
    with validation(False):
        fixed = _with_fixed_pools(model, guide, args, seed)
        power = 1 / _common_weight(fixed, args, kl_weights_of(model), seed)

        def target() -> None:
            with batch_of(args, None) as batch, poutine.scale(scale=power):
                fixed(*batch)

        for chain in range(num_chains):
            with isolated(seed + chain):
                mcmc = MCMC(NUTS(target), num_samples, warmup, disable_progbar=True)
                mcmc.run()
            for site, values in mcmc.get_samples().items():
                draws.setdefault(site, []).append(values.detach().cpu())
            diverging[chain, list(mcmc.diagnostics()["divergences"]["chain 0"])] = True
    variables = {}
    for site, chains in draws.items():
        form = get_variable(like, "posterior", site).isel(chain=0, draw=0, drop=True)
        values = torch.stack(chains).reshape(num_chains, num_samples, *form.shape).numpy()
        variables[site] = form.expand_dims(chain=num_chains, draw=num_samples).copy(data=values)
    stats = xr.Dataset({"diverging": (("chain", "draw"), diverging)})
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(variables), "sample_stats": stats})
    tree.attrs = {"inference": "NUTS", "warmup": warmup, "seed": seed}
    return tree


def _common_weight(
    target: Program, args: tuple[Any, ...], kl_weights: Mapping[str, float], seed: int
) -> float:
    """Return the KL weight that all latent sites have."""
    with isolated(seed), torch.no_grad():
        trace = prune_subsample_sites(poutine.trace(target).get_trace(*args))
    found = {site: kl_weights.get(site, 1.0) for site in trace.stochastic_nodes}
    if not found or len(set(found.values())) > 1 or not min(found.values()) > 0:
        raise ValueError(
            f"The KL weights of the latent sites are {found}, expected one number above 0 for all "
            "of them: otherwise the ELBO has no single target to sample. Temper all latent sites "
            "alike."
        )
    return min(found.values())


def _with_fixed_pools(model: Program, guide: Program, args: tuple[Any, ...], seed: int) -> Program:
    """Return the model with its pools fixed, at the mean source weights."""
    modules = guide.modules() if isinstance(guide, nn.Module) else ()
    fixed = poutine.Trace()
    with isolated(seed), torch.no_grad():
        trace = poutine.trace(guide).get_trace(*args)
        for sharing in modules:
            if not isinstance(sharing, Sharing):
                continue
            for site, sources in sharing.items():
                posterior = sources.weights_posterior(sources.logits)
                log_weights = posterior.sample(torch.Size([WEIGHT_DRAWS]))
                mean = log_weights.logsumexp(0) - math.log(WEIGHT_DRAWS)
                node = dict(trace.nodes[f"{site}_sources"])
                node["value"] = mean.reshape(node["value"].shape)
                recorded = detached_sources(recorded_sources(trace, site))
                node["infer"] = {**node["infer"], RECORDED: recorded}
                fixed.add_node(f"{site}_sources", **node)
    return poutine.block(poutine.replay(model, trace=fixed), hide=list(fixed.nodes))
