r"""Log densities of draws: under the target of a fit, and under its guide.

The ELBO is the mean over draws of an integrand: the log density of all sites of the model less that
of all sites of the guide, each as weighed in it. Divided by the least KL weight :math:`b`,

.. math:: \log p(\theta) - \log q(\theta), \qquad
    p(\theta) \propto p(\theta) \prod_n p(y_n \mid \theta)^{1/b}

where all sites have that weight: the generalised posterior which a tempered fit is after. Where
sites have weights of their own, each enters with its weight over the least one.
"""

from __future__ import annotations

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor, nn

from pyro_vmtl.analysis.export.tracing import Nodes, is_latent
from pyro_vmtl.data.plates import TASK_PLATE
from pyro_vmtl.handlers.program_handler import UNCONSTRAINED, Program
from pyro_vmtl.handlers.temper import KLWeights

__all__ = ["least_kl_weight", "log_densities", "num_tasks_apart"]


def least_kl_weight(model: Program, sites: Nodes) -> float:
    """Give the least KL weight of the latent sites, those apart that are left out of the ELBO.

    Parameters
    ----------
    model
        The model, tempered or not.
    sites
        Its sample sites.
    """
    modules = model.modules() if isinstance(model, nn.Module) else ()
    tempered = [module for module in modules if isinstance(module, KLWeights)]
    weights = []
    for name, node in sites.items():
        if is_latent(node) and not node["is_observed"] and node["mask"] is not False:
            weight = 1.0
            for module in tempered:
                if name in module.sites:
                    weight *= module.now[module.sites.index(name)]
            weights.append(weight)
    return min((weight for weight in weights if weight > 0), default=1.0)


def num_tasks_apart(model_sites: Nodes, guide_sites: Nodes) -> int | None:
    """Count the tasks over which densities are sums; None where they are not.

    A guide that draws all sites at once has one density for all tasks.
    """
    frames = (frame for node in model_sites.values() for frame in node["cond_indep_stack"])
    sizes = [frame.size for frame in frames if frame.name == TASK_PLATE and frame.vectorized]
    known = all(name.removesuffix(UNCONSTRAINED) in model_sites for name in guide_sites)
    return sizes[0] if sizes and known else None


def log_densities(
    sites: Nodes, draws: int, num_draws: int, num_tasks: int | None
) -> tuple[Tensor, Tensor | None]:
    """Add the log densities of sites up, as weighed in the ELBO, in float64.

    Parameters
    ----------
    sites
        Sample sites of a run on many draws.
    draws
        Dimension of the draws, to the left of all plates.
    num_draws
        S.
    num_tasks
        T; None where tasks are not told apart.

    Returns
    -------
    tuple of Tensor
        (S,), and (S, T) of what is inside the task plate.
    """
    total = torch.zeros(num_draws, dtype=torch.float64)
    by_task = None if num_tasks is None else torch.zeros(num_draws, num_tasks, dtype=torch.float64)
    for site in sites.values():
        if site["mask"] is False or site["infer"].get("_deterministic"):
            continue
        fn = site["fn"]
        values = scale_and_mask(fn.log_prob(site["value"]), site["scale"], site["mask"]).double()
        values = values.expand(torch.broadcast_shapes(values.shape, fn.batch_shape))
        dims = {frame.name: frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
        values = values.movedim(draws, 0).cpu()  # the others keep their places from the right
        if by_task is not None and TASK_PLATE in dims:
            each = values.movedim(dims[TASK_PLATE], 1)
            by_task = by_task + each.reshape(*each.shape[:2], -1).sum(2)
        total = total + values.reshape(num_draws, -1).sum(1)
    return total, by_task
