r"""Log densities of draws: under the target of a fit, and under its guide.

The ELBO is the expectation of an integrand: the log density of all sites of the model minus that of
all sites of the guide, each with its weight. Divided by the least KL weight :math:`b` it is

.. math:: \log p(\theta) - \log q(\theta), \qquad
    p(\theta) \propto p(\theta) \prod_n p(y_n \mid \theta)^{1/b}

where all sites have that weight: the generalised posterior which a tempered fit approximates. Where
sites have different weights, each enters with its weight divided by the least one.
"""

from __future__ import annotations

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyro_vmtl.analysis.export.tracing import Nodes, is_latent
from pyro_vmtl.data.plates import TASK_PLATE
from pyro_vmtl.handlers.program_handler import UNCONSTRAINED, Program
from pyro_vmtl.handlers.temper import kl_weights_of

__all__ = ["least_kl_weight", "log_densities", "num_tasks_apart"]


def least_kl_weight(model: Program, sites: Nodes) -> float:
    """Return the least KL weight of a model's latent sites, not counting weights of 0."""
    tempered = kl_weights_of(model)
    weights = [
        tempered.get(name, 1.0)
        for name, node in sites.items()
        if is_latent(node) and not node["is_observed"] and node["mask"] is not False
    ]
    return min((weight for weight in weights if weight > 0), default=1.0)


def num_tasks_apart(model_sites: Nodes, guide_sites: Nodes) -> int | None:
    """Return the number of tasks if densities are sums over tasks, else None."""
    frames = (frame for node in model_sites.values() for frame in node["cond_indep_stack"])
    sizes = [frame.size for frame in frames if frame.name == TASK_PLATE and frame.vectorized]
    known = all(name.removesuffix(UNCONSTRAINED) in model_sites for name in guide_sites)
    return sizes[0] if sizes and known else None


def log_densities(
    sites: Nodes, draws: int, num_draws: int, num_tasks: int | None
) -> tuple[Tensor, Tensor | None]:
    """Sum the weighted log densities of S draws in dimension ``draws``, (S,), and by task, (S, T).

    All in float64. The latter is None where ``num_tasks`` is.
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
        values = values.movedim(draws, 0).cpu()  # dimensions are counted from the right
        if by_task is not None and TASK_PLATE in dims:
            each = values.movedim(dims[TASK_PLATE], 1)
            by_task = by_task + each.reshape(*each.shape[:2], -1).sum(2)
        total = total + values.reshape(num_draws, -1).sum(1)
    return total, by_task
