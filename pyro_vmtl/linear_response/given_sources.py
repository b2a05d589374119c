r"""Covariances within each task, given its sources and all else that is learned.

The Hessian of a large sharing fit takes too long. Where sources are held, tasks depend on each
other no more, and the covariances of the best normal for task t are

.. math:: \Sigma_t = \big(-\mathbb{E}_q\, \nabla^2 \log p(y_t, w_t \mid \text{sources})\big)^{-1}

(Opper and Archambeau 2009 [1]_), which is the inverse Hessian of the negative ELBO in its means.
P products with the Hessian are enough for all tasks of P numbers. In linear regression with known
scales this is the exact posterior given the sources. What others do not know is left out: the
covariances of :class:`~pyro_vmtl.LinearResponse` are of the whole fit.

References
----------
.. [1] M. Opper and C. Archambeau. The Variational Gaussian Approximation Revisited. Neural
   Computation 21(3), 2009.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from pyro_vmtl.handlers.isolation import isolated, validation
from pyro_vmtl.handlers.program_handler import Program, ProgramWithHandler
from pyro_vmtl.inference.elbo import MeanFieldELBO, evaluate
from pyro_vmtl.inference.step import batch_of
from pyro_vmtl.linear_response.hessian import Hessian
from pyro_vmtl.linear_response.normals import AtMeans, NewCovariances, ShiftMean
from pyro_vmtl.linear_response.response import in_double, kl_weight_and_supports
from pyro_vmtl.sharing.messengers import Sharing

__all__ = ["given_sources"]


def given_sources(
    model: Program, guide: nn.Module, *args: Any, elbo: Trace_ELBO | None = None
) -> ProgramWithHandler:
    """Return a sharing guide with the covariances that its shared sites have given the sources.

    Parameters
    ----------
    model, guide
        Programs that share, fitted.
    *args
        Arguments of both, targets included.
    elbo
        That of the fit; by default :class:`~pyro_vmtl.MeanFieldELBO`.

    Raises
    ------
    ValueError
        If KL weights differ between sites, the posterior of a shared site is not normal or has
        plates besides that over tasks, or the loss is not convex in its means.
    """
    elbo = MeanFieldELBO() if elbo is None else elbo
    fitted_guide = guide
    model, copied, args = in_double(model, guide, args)
    kl_weight, supports = kl_weight_and_supports(model, copied, args)
    sharing = [m for m in elbo(model, copied).eval().modules() if isinstance(m, Sharing)]
    for module in sharing:
        module.detach_sources = True
    at_means = AtMeans(supports)
    with isolated(0), torch.no_grad(), validation(False), at_means, batch_of(args, None) as batch:
        copied(*batch)
    state = nn.Module()
    normals: dict[str, tuple[Tensor, Tensor]] = {}
    for site in dict.fromkeys(site for module in sharing for site in module.sites):
        mean = at_means.means.get(site)
        batch_shape = None if mean is None else mean.shape[: mean.ndim - at_means.event_dims[site]]
        if mean is None or batch_shape is None or batch_shape.numel() != len(mean):
            raise ValueError(f"Site {site!r} has no normal posterior with the plate of tasks only.")
        shift = torch.zeros_like(mean).requires_grad_()

        def shifted(*args: Any, site: str = site, shift: Tensor = shift) -> Any:
            with ShiftMean(site, shift):
                return copied(*args)

        with isolated(0), validation(False), batch_of(args, None) as batch:
            loss = evaluate(elbo, model, shifted, *batch).loss
        size = mean[0].numel()
        # number j of all tasks at once, as their Hessian has no entries between tasks
        units = torch.eye(size).to(mean)[:, None].expand(size, len(mean), size)
        every = torch.ones(mean.numel(), dtype=torch.bool)
        rows = Hessian(loss, [shift], every).times(units.reshape(size, -1))
        precision = rows.reshape(size, len(mean), size).movedim(0, 1) / kl_weight
        factor, failed = torch.linalg.cholesky_ex((precision + precision.mT) / 2)
        if failed.any():
            raise ValueError(f"The loss is not convex in the means of {site!r}. Fit again.")
        root = torch.linalg.cholesky(torch.cholesky_inverse(factor))
        normals[site] = mean, root.reshape(*batch_shape, size, size)
    state.normals, state.supports = normals, supports  # type: ignore[assignment]
    return ProgramWithHandler(fitted_guide, NewCovariances, state)
