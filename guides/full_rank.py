r"""The normal guide with full covariance [1]_.

The posterior of task t is :math:`N(\mu_t, D_t R_t R_t^\top D_t)`. Its means :math:`\mu_t` and
standard deviations :math:`D_t` are those of the mean-field guide. The rows of :math:`R_t`, the
Cholesky factor of the correlations, are those of a unit lower-triangular matrix (``raw_trils``
below the diagonal), each divided by its length. It starts at the identity.

References
----------
.. [1] A. Kucukelbir, D. Tran, R. Ranganath, A. Gelman, D. Blei. Automatic Differentiation
   Variational Inference. JMLR 18(14), 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import nn
from torch.nn import functional

from pyro_vmtl.guides.mean_field import MeanFieldNormal

__all__ = ["FullRankNormal"]


class FullRankNormal(MeanFieldNormal):
    """A normal with full covariance for the coefficients of every task.

    The covariances are of the last dimension of an event: with the event shape (C, F) each of C
    classes has a normal of its own. Common sites are independent normals.

    Parameters
    ----------
    event_shapes, num_tasks, **settings
        Those of :class:`~pyro_vmtl.guides.MeanFieldNormal`.

    See Also
    --------
    ConjugateNormal : Linear regression, computed from the rows.

    Examples
    --------
    >>> guide = FullRankNormal({"w": (5,)}, num_tasks=4)
    >>> guide.posterior("w").covariance_matrix.shape
    torch.Size([4, 1, 5, 5])
    """

    fixed_graph = True

    def __init__(
        self, event_shapes: Mapping[str, Sequence[int]], num_tasks: int, **settings: Any
    ) -> None:
        super().__init__(event_shapes, num_tasks, **settings)
        self.raw_trils = nn.ParameterDict(
            {
                site: torch.zeros(*self.locs[site].shape, event[-1])
                for site, event in event_shapes.items()
                if event
            }
        )

    def posterior(self, site: str) -> dist.TorchDistribution:
        """Return the posterior of a site, batch shape (T, 1); () outside the task plate."""
        marginals = super().posterior(site)
        if site not in self.raw_trils:
            return marginals
        normal, raw = marginals.base_dist, self.raw_trils[site]
        lower = raw.tril(-1) + torch.eye(raw.shape[-1], dtype=raw.dtype, device=raw.device)
        root = normal.scale[..., None] * functional.normalize(lower, dim=-1)
        posterior = dist.MultivariateNormal(normal.loc, scale_tril=root)
        return posterior.to_event(len(marginals.event_shape) - 1)
