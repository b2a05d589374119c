r"""NUTS draws from the target of a fit: a reference for the posteriors of small models.

A guide belongs to a family, most often independent normals, and a fit may end early or in a local
optimum. NUTS has no family, and its draws are from the target itself. The target is that of the
fit:

- in a tempered fit the likelihood has the power :math:`1 / b`, with :math:`b` the KL weight
  (:func:`~pyro_vmtl.target_learning_rate`);
- in a shared fit the prior of a task is its pool of the guide's posteriors of the other tasks, with
  the source weights at their posterior mean. Both are fixed: a sibling's posterior is no prior that
  could be sampled jointly with it. For the logarithmic pool, whose log density is linear in the
  weights, the mean is exact, for others nearly. Unless the sources of a fit are detached, a task
  also adapts to those that borrow from it, which is not part of its own target and explains some of
  the differences from the reference;
- learned parameters, such as noise scales, stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from pyro import poutine
from pyro.infer import MCMC, NUTS
from torch import Tensor

from pyro_vmtl.analysis.tree_parts import get_variable
from pyro_vmtl.handlers.isolation import evaluating, isolated, validation
from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.handlers.target import learning_rate_of
from pyro_vmtl.handlers.tracing import sample_sites, trace_guide_and_model
from pyro_vmtl.inference.step import batch_of
from pyro_vmtl.sharing.fixed_pools import with_fixed_pools

__all__ = ["nuts_reference"]


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
        If latent sites have different KL weights, or a weight of 0: then the fit has no target.

    Examples
    --------
    >>> settings = {"num_samples": 10, "warmup": 10, "num_chains": 1}
    >>> nuts = nuts_reference(model, guide, data, like=tree, **settings)
    >>> dict(nuts["posterior"]["w"].sizes)
    {'chain': 1, 'draw': 10, 'task': 3, 'feature': 2}
    """
    draws: dict[str, list[Tensor]] = {}
    diverging = np.zeros((num_chains, num_samples), dtype=bool)
    with validation(False), evaluating(model, guide):
        with isolated(seed), torch.no_grad():
            traces = trace_guide_and_model(model, guide, *args)
            fixed = with_fixed_pools(model, traces.guide)
        power = learning_rate_of(sample_sites(traces.model))

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
