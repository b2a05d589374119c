r"""The normal guide with full covariance.

======================= ================================ ================================ ========
symbol                  meaning                          code                             shape
======================= ================================ ================================ ========
:math:`\mu_t, \sigma_t` means and standard deviations    ``MeanFieldNormal``'s            (F,)
:math:`L_t`             unit lower-triangular matrix     ``raw_trils``, below the         (F, F)
                                                         diagonal
:math:`R_t`             rows of L of length 1: Cholesky  ``normalize(lower)``             (F, F)
                        factor of the correlations
======================= ================================ ================================ ========

.. math:: q(w_t) = N(\mu_t,\ \mathrm{diag}(\sigma_t) R_t R_t^\top \mathrm{diag}(\sigma_t))

The marginals are those of the mean-field guide with the same numbers; it starts as that guide [1]_.

References
----------
.. [1] A. Kucukelbir, D. Tran, R. Ranganath, A. Gelman, D. Blei. Automatic Differentiation
   Variational Inference. JMLR 18(14), 2017: mean-field and full-rank Gaussians.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
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

    @torch.no_grad()
    def start_at(self, site: str, loc: Tensor, scale: Tensor) -> None:
        """Set the means and standard deviations, each (T, ...); correlations are 0."""
        super().start_at(site, loc, scale)
        if site in self.raw_trils:
            self.raw_trils[site].zero_()

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
