r"""A normal guide of coefficients given the mean that tasks have in common.

============================= ================================ =================== ============
symbol                        meaning                          code                shape
============================= ================================ =================== ============
:math:`\mu, V`                mean and variances of the mean   ``w_mean``          event
:math:`\Lambda`               mean of :math:`\tau^{-2}`, the   of ``w_scale``      event
                              precision about the mean
:math:`\mu_t, S_t`            mean of task t, and covariance   ``w``               (T, 1,
                              given the mean of all tasks                          \*event)
============================= ================================ =================== ============

Where the rows of a task say little, its coefficients move with the mean of all tasks. Independent
posteriors cannot; they make the mean seem known as well as if all coefficients were, so that a
prior of the mean that is learned collapses to 0. Here

.. math:: q(w_t \mid m) = N(\mu_t + S_t \Lambda (m - \mu),\ S_t)

which is how the exact posterior of linear regression depends on m. The expected KL from the prior
:math:`N(m, \tau^2)` is closed, and handed over to the ELBO.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vmtl.data.plates import sample_posterior
from pyro_vmtl.guides.conjugate import covariance_root
from pyro_vmtl.guides.full_rank import FullRankNormal

__all__ = ["NormalGivenMean"]

SITES = "w", "w_mean", "w_scale"


class _Parts(NamedTuple):
    """Numbers of the posterior; the letters are those of the module."""

    loc: Tensor  # mu_t, (T, 1, *event)
    root: Tensor  # of S_t, (T, 1, *event, F)
    gain: Tensor  # S_t Lambda, (T, 1, *event, F)
    mean: dist.Normal  # of m, event
    log_scale: Tensor  # mean of the logarithm of tau, event
    precision: Tensor  # Lambda, event


class NormalGivenMean(FullRankNormal):
    """The guide of :class:`~pyro_vmtl.models.HierarchicalNormal` with latent scales.

    Covariances are of the last dimension of an event.

    Parameters
    ----------
    event_shapes, num_tasks, **settings
        Those of :class:`~pyro_vmtl.guides.MeanFieldNormal`. The sites are ``w``, and in common
        ``w_mean`` and ``w_scale``, positive; others are independent.

    See Also
    --------
    ConjugateNormal : Linear regression, computed from the rows.

    Examples
    --------
    >>> common = {"w_mean": (5,), "w_scale": (5,)}
    >>> guide = NormalGivenMean({"w": (5,)}, 4, common=common, positive=["w_scale"])
    >>> guide()["w"].shape
    torch.Size([4, 1, 5])
    """

    fixed_graph = True

    def _parts(self) -> _Parts:
        w, mean, scale = (super(NormalGivenMean, self).posterior(s) for s in SITES)
        while isinstance(w, dist.Independent):
            w = w.base_dist
        log_scale = scale.base_dist
        precision = (2 * (log_scale.scale**2 - log_scale.loc)).exp()
        gain = w.covariance_matrix * precision.unsqueeze(-2)
        return _Parts(w.loc, w.scale_tril, gain, mean.base_dist, log_scale.loc, precision)

    def posterior(self, site: str) -> dist.TorchDistribution:
        """Return the marginal posterior of a site; the covariance of ``w`` includes that of m."""
        return self._marginal(self._parts()) if site == "w" else super().posterior(site)

    @staticmethod
    def _marginal(of: _Parts) -> dist.TorchDistribution:
        moves = of.gain * of.mean.scale.unsqueeze(-2)
        covariance = of.root @ of.root.mT + moves @ moves.mT
        root = covariance_root(covariance)
        return dist.MultivariateNormal(of.loc, scale_tril=root).to_event(of.loc.ndim - 3)

    def expected_kl(self, of: _Parts) -> Tensor:
        """Compute the expected KL of ``w``, (T, 1)."""
        apart = (of.gain - torch.eye(of.gain.shape[-1]).to(of.gain)) * of.mean.scale.unsqueeze(-2)
        squares = of.root.square().sum(-1) + apart.square().sum(-1) + (of.loc - of.mean.loc) ** 2
        log_ratio = of.log_scale - of.root.diagonal(dim1=-2, dim2=-1).log()
        return (0.5 * (of.precision * squares - 1) + log_ratio).flatten(2).sum(-1)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample every site; the model's arguments are ignored."""
        common, of = self.draw_common(), self._parts()
        apart = common["w_mean"] - of.mean.loc
        event_dim = of.loc.ndim - 2
        with pyro.plate("task", self.num_tasks, dim=-2):
            some = of._replace(
                loc=pyro.subsample(of.loc, event_dim=event_dim),
                root=pyro.subsample(of.root, event_dim=event_dim + 1),
                gain=pyro.subsample(of.gain, event_dim=event_dim + 1),
            )
            loc = some.loc + (some.gain @ apart.unsqueeze(-1)).squeeze(-1)
            given = dist.MultivariateNormal(loc, scale_tril=some.root).to_event(event_dim - 1)
            expected = {"w": self.expected_kl(some)}
            infer = {"expected": expected, "marginal": self._marginal(some)}
            values = {
                site: pyro.sample(site, given, infer=infer)
                if site == "w"
                else sample_posterior(site, self.posterior(site))
                for site in self.sites
            }
        return {**common, **values}
