r"""Fixed points in place of draws, so that an ELBO is a function of the parameters alone.

A normal :math:`N(\mu, L L^\top)` is replaced by S points :math:`\mu \pm L h_s` of equal weight. The
components of :math:`h` are columns of a random orthogonal matrix, S / 2 by S / 2, with mean square
1. So averages over the points are the exact expectations of linear functions and squares, and of
products of two components that have different columns, as by a sigma-point rule [1]_; other
functions are approximated as by so many antithetic draws, without noise.

Coefficients in a linear predictor need no columns of their own: where a model computes it by
:func:`~pyro_vmtl.handlers.linear_predictor.linear_predictor`, the predictor of each row is normal
with known moments, and is put at points itself.

References
----------
.. [1] McNamee, J. and Stenger, F. (1967). Construction of fully symmetric numerical integration
   formulas. Numerische Mathematik 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.util import sum_rightmost
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from pyro_vmtl.data.plates import TASK_PLATE
from pyro_vmtl.handlers.linear_predictor import arguments, predict_linearly
from pyro_vmtl.handlers.tracing import is_sample
from pyro_vmtl.sharing.pool import once
from pyro_vmtl.sharing.transformed import untransformed

__all__ = ["FixedPoints", "kl_of_normals"]

PARTICLES = "num_particles_vectorized"
"""Name of Pyro's plate over vectorized particles."""


class FixedPoints(Messenger):
    """Put the normal sites of a guide, and sites that transform a normal, at S fixed points.

    It encloses guide and model of an ELBO whose S vectorized particles are the points. Tasks have
    the same points, as they are independent of each other.
    """

    def __init__(self, num_points: int) -> None:
        super().__init__()
        self.num_points = num_points
        self.num_sites = 0
        self.normals: dict[int, tuple[Tensor, Any, int]] = {}
        self.too_large: dict[int, tuple[str, int]] = {}

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        if self.too_large and exception[0] is None:
            name, size = next(iter(self.too_large.values()))
            raise ValueError(
                f"num_points is {self.num_points}, expected at least {2 * size}: the "
                f"{size} numbers of {name!r} have covariances, which fewer points distort. "
                "Use more points, or a guide of independent normals."
            )

    def _pyro_sample(self, msg: Any) -> None:
        if msg["done"] or msg["is_observed"] or not is_sample(msg):
            return
        dims = {frame.name: frame.dim for frame in msg["cond_indep_stack"] if frame.vectorized}
        # of a site that depends on others, the points are those of its marginal, if it is known
        marginal = msg["infer"].get("marginal")
        expanded = msg["fn"] if marginal is None else marginal.expand(msg["fn"].batch_shape)
        fn, transforms = untransformed(expanded)
        if not isinstance(fn, Normal | MultivariateNormal) or PARTICLES not in dims:
            return
        event_dim = len(msg["fn"].event_shape)
        shape = list(fn.loc.shape)
        for name in {PARTICLES, TASK_PLATE} & set(dims):
            shape[dims[name] - event_dim] = 1
        points = self._points(shape, dims[PARTICLES] - event_dim, fn.loc)
        if isinstance(fn, Normal):
            value = fn.loc + fn.scale * points
        else:
            value = fn.loc + (fn.scale_tril @ points[..., None]).squeeze(-1)
            if 2 * fn.event_shape[0] > self.num_points:
                self.too_large[id(value)] = msg["name"], fn.event_shape[0]
        for transform in transforms:
            value = transform(value)
        if not transforms:
            self.normals[id(value)] = value, fn, dims[PARTICLES] - event_dim
        msg["value"], msg["done"] = value, True

    def _pyro_post_sample(self, msg: Any) -> None:
        dims = {frame.name: frame.dim for frame in msg["cond_indep_stack"] if frame.vectorized}
        if PARTICLES in dims and is_sample(msg) and not msg["is_observed"]:
            # what is the same at all points is computed once
            particles = dims[PARTICLES] - len(msg["fn"].event_shape)
            if msg["value"].ndim >= -particles:
                msg["value"] = _first(msg["value"], particles)

    def _pyro_linear_predictor(self, msg: Any) -> None:
        given = arguments(msg)
        x, w, event_dim = given["x"], given["w"], given.get("event_dim", 1)
        more = given.get("more", ())
        sites = [id(w), *(id(u) for _, u in more if id(u) in self.normals)]
        if id(w) not in self.normals or len({*sites}) < len(sites):  # terms are not independent
            return
        mean, var = self._moments(msg["fn"], x, w, event_dim)
        for phi, u in more:  # a sum of normals is put at points, as those of its terms could cancel
            if id(u) in self.normals:
                further = self._moments(predict_linearly, phi, u, event_dim)
                mean, var = mean + further[0], var + further[1]
            else:
                mean = mean + predict_linearly(phi, u, event_dim)
        particles = self.normals[id(w)][2]
        shape = [1] * mean.ndim
        if event_dim == 2:
            shape[-1] = mean.shape[-1]
        points = self._points(shape, particles + 1, mean)
        # a padded row has variance 0, where the root has no gradient
        msg["value"], msg["done"] = mean + var.clamp_min(1e-20).sqrt() * points, True

    def _moments(
        self, product: Callable[..., Tensor], x: Tensor, w: Tensor, event_dim: int
    ) -> tuple[Tensor, Tensor]:
        """Compute mean and variance of the product of features and normal coefficients."""
        self.too_large.pop(id(w), None)
        _, fn, particles = self.normals[id(w)]
        mean = product(x, _first(fn.loc, particles), event_dim)
        if isinstance(fn, Normal):
            return mean, product(x**2, _first(fn.scale, particles) ** 2, event_dim)
        root = _first(fn.scale_tril, particles - 1)
        if event_dim == 1:
            return mean, ((x @ root.squeeze(-3)) ** 2).sum(-1)
        # (T, C, N, F) to (T, N, C)
        return mean, ((x.unsqueeze(-3) @ root.squeeze(-4)) ** 2).sum(-1).mT

    def _points(self, shape: list[int], dim: int, like: Tensor) -> Tensor:
        """Return points of this shape, but with the particles at a dimension."""
        size = torch.Size(shape).numel()
        points = _points(self.num_points)
        # number j of the kth site has another column than number j of others
        columns = (torch.arange(size) + self.num_sites) % points.shape[1]
        points = points[:, columns].to(like)
        self.num_sites += 1
        shape = [1] * (-dim - len(shape)) + shape
        return points.reshape(*shape[:dim], self.num_points, *shape[len(shape) + dim + 1 :])


def kl_of_normals(guide_site: Any, model_site: Any) -> Tensor | None:
    """Compute the KL of normals, on average over S points, in the batch shape (S, ...) of the site.

    None if one is no normal, or more than the mean of the prior depends on the point.
    """
    fn, prior_fn = guide_site["fn"], model_site["fn"]
    (posterior, no), (prior, nor) = untransformed(fn), untransformed(prior_fn)
    if no or nor or not type(posterior) is type(prior) is dist.Normal:
        return None
    loc, scale, prior_scale = map(once, (posterior.loc, posterior.scale, prior.scale))
    same = all(len(values) == 1 for values in (loc, scale, prior_scale))
    same = same and (fn.batch_shape, fn.event_shape) == (prior_fn.batch_shape, prior_fn.event_shape)
    if not same or getattr(guide_site["mask"], "ndim", 0) == len(fn.batch_shape):
        return None
    means = once(prior.loc)
    square = (loc - means.mean(0, keepdim=True)).square() + means.var(0, False, keepdim=True)
    ratio = (scale / prior_scale).square()
    kl = (square / prior_scale.square() + ratio - 1 - ratio.log()) / 2
    kl = sum_rightmost(kl.expand(1, *posterior.batch_shape[1:]), len(fn.event_shape))
    return kl.expand(fn.batch_shape)


def _first(values: Tensor, dim: int) -> Tensor:
    """Undo an expansion over particles."""
    return once(values, values.ndim + dim + 1)


@cache
def _points(num_points: int) -> Tensor:
    """Return S points of S / 2 numbers, (S, S / 2), each column with mean 0 and mean square 1."""
    half = num_points // 2
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(half, half, generator=generator, dtype=torch.float64)
    orthogonal = torch.linalg.qr(normal).Q * math.sqrt(half)
    return torch.cat([orthogonal, -orthogonal])
