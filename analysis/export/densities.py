r"""Log densities of draws: under the target of a fit, and under its guide.

The target is the generalised posterior :math:`p(\theta) \prod_n p(y_n \mid \theta)^{1/b}`, with
:math:`b` the KL weight of all latent sites (:func:`~pyro_vmtl.target_learning_rate`). Where tasks
share, it is that of each task given its pool, at the mean source weights: these have no density in
it, and draws of them do not matter. So :math:`\log p - \log q` is, but for the KL of the source
weights, the integrand of the ELBO over :math:`b`.
"""

from __future__ import annotations

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyro_vmtl.analysis.export.tracing import Nodes
from pyro_vmtl.data.plates import TASK_PLATE
from pyro_vmtl.handlers.program_handler import UNCONSTRAINED
from pyro_vmtl.sharing.fixed_pools import has_sources

__all__ = ["log_densities", "num_tasks_apart"]


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
        if site["mask"] is False or site["infer"].get("_deterministic") or has_sources(site):
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
