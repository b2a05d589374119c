r"""The conjugate guide of linear regressions whose coefficients have a normal prior in common.

Given the scales, the posterior of linear regression is normal and known. So this guide learns the
posteriors of the scales only, and computes that of the coefficients: it is the optimum for them.

==================== ======================================== ==================== =============
symbol               meaning                                  code                 shape
==================== ======================================== ==================== =============
:math:`\tau`         scale of coefficients about their mean   site ``w_scale``     (F,)
:math:`m`            mean of the coefficients over tasks      site ``w_mean``      (F,)
:math:`\sigma_t`     standard deviation of the noise          site ``noise_scale`` (T, 1)
:math:`w_t`          coefficients of task t                   site ``w``           (T, 1, F)
:math:`\Lambda, s_t` means of :math:`\tau^{-2}` (diagonal)    ``log_precision()``  (F,), (T,)
                     and :math:`\sigma_t^{-2}`
:math:`G_t, b_t`     :math:`X_t^\top X_t`,                    ``xx``, ``xy``       (T, F, F),
                     :math:`X_t^\top y_t`                                          (T, F)
==================== ======================================== ==================== =============

:math:`\tau` and :math:`\sigma_t` have log-normal posteriors, independent of everything else. Then

.. math::

    q(w_t \mid m) = N(S_t (s_t b_t + \Lambda m),\ S_t), \qquad
    S_t = (s_t G_t + \Lambda)^{-1}, \\
    q(m) = N(V \textstyle\sum_t \Lambda S_t s_t b_t,\ V), \qquad
    V = (\tau_0^{-2} I + \textstyle\sum_t \Lambda S_t s_t G_t)^{-1}

are the factors that maximize the ELBO [1]_, with :math:`\tau_0` the standard deviation of the
prior of m. Where the scales are known, they are the exact posterior. The expectations of the two
terms of the ELBO that depend on more than one site, the log-likelihood and the KL of w, are closed;
the guide hands them over to the ELBO, whose value then does not depend on draws.

References
----------
.. [1] C. Bishop. Pattern Recognition and Machine Learning, 2006, sections 3.3 and 10.1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_vmtl.data.task_data import TaskData

__all__ = [
    "LOG_2PI",
    "ConjugateNormal",
    "InverseAndLogDet",
    "LogNormals",
    "covariance_root",
    "sums_over_rows",
]

LOG_2PI = math.log(2 * math.pi)


class LogNormals(nn.Module):
    """Independent log-normal posteriors of scales."""

    fixed_graph = True

    def __init__(self, init: float, num_numbers: Tensor) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.full(num_numbers.shape, init).log())
        # about that of a scale which is estimated from so many numbers
        self.raw_spread = nn.Parameter(-0.5 * (2 * num_numbers + 1).log())

    def posterior(self) -> dist.LogNormal:
        """Return the posteriors."""
        return dist.LogNormal(self.loc, self.raw_spread.exp())

    def log_precision(self) -> Tensor:
        """Return the logarithm of the mean of scale^-2, in float64."""
        return 2 * ((2 * self.raw_spread.double()).exp() - self.loc.double())


class InverseAndLogDet(torch.autograd.Function):
    """The inverse of positive definite matrices and the logarithm of their determinants.

    As both come from one factor, their gradient takes two products where that of the factor would
    take triangular solves.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return inverse and logarithm of the determinant."""
        lower = torch.linalg.cholesky(matrix)
        inverse = torch.cholesky_inverse(lower)
        return inverse, 2 * lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        """Save the inverse."""
        ctx.save_for_backward(output[0])

    @staticmethod
    def backward(ctx: Any, of_inverse: Tensor, of_log_det: Tensor) -> Tensor:
        """Return the gradient of the matrix."""
        (inverse,) = ctx.saved_tensors
        return of_log_det[..., None, None] * inverse - inverse @ of_inverse @ inverse


class _Posterior(NamedTuple):
    """Posteriors of the coefficients; the letters are those of the module.

    The last four are in units of ``root``, in which the prior of w has variance 1, and
    :math:`C_t` is :math:`s_t G_t`.
    """

    offset: Tensor  # S_t s_t b_t, (T, F)
    gain: Tensor  # S_t Lambda, (T, F, F)
    cov: Tensor  # S_t, (T, F, F)
    mean_loc: Tensor  # (F,)
    mean_cov: Tensor  # V, (F, F)
    root: Tensor  # of 1 / Lambda, (F,)
    inverse: Tensor  # (I + C_t)^-1, (T, F, F)
    own: Tensor  # C_t (I + C_t)^-1, symmetric: what is not of m, (T, F, F)
    log_det: Tensor  # log |I + C_t|, (T,)


class ConjugateNormal(nn.Module):
    """Normal posteriors of linear regressions, computed from the rows.

    Parameters
    ----------
    data
        Training rows with real targets.
    init_scale, init_noise_scale
        Initial scales of coefficients and noise.

    Examples
    --------
    >>> data = TaskData.regression([[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0], ["a", "a", "b"])
    >>> ConjugateNormal(data)()["w"].shape
    torch.Size([2, 1, 1])
    """

    fixed_graph = True
    common = ("w_scale", "w_mean")
    sites = ("w", "noise_scale")

    xx: Tensor
    xy: Tensor
    yy: Tensor
    num_rows: Tensor
    informs_mean: Tensor
    shift: Tensor
    mean_shift: Tensor
    of_dtype: Tensor  # draws have its type

    shifts = ("shift", "mean_shift")
    """Zeros in the computed means, which are at their optimum: linear response moves them."""

    def __init__(
        self, data: TaskData, *, init_scale: float = 0.3, init_noise_scale: float = 0.6
    ) -> None:
        super().__init__()
        self.num_tasks = data.num_tasks
        for name, values in sums_over_rows(data).items():
            self.register_buffer(name, values)
        self.register_buffer("informs_mean", torch.ones_like(self.yy))
        self.register_buffer("shift", torch.zeros_like(self.xy), persistent=False)
        self.register_buffer("mean_shift", torch.zeros_like(self.xy[0]), persistent=False)
        self.register_buffer("of_dtype", data.x.new_empty(()), persistent=False)
        num_tasks = torch.full((data.num_features,), float(data.num_tasks))
        self.scale = LogNormals(init_scale, num_tasks)
        self.noise = LogNormals(init_noise_scale, self.num_rows.float().unsqueeze(1))
        self.raw_mean_scale = nn.Parameter(torch.zeros(()))

    def take_rows(self, data: TaskData) -> None:
        """Compute anew what depends on the training rows, as by other weights of them."""
        for name, values in sums_over_rows(data).items():
            setattr(self, name, values)

    def coefficients(self) -> _Posterior:
        """Compute the posteriors of the coefficients and of their mean, in float64."""
        root = (-0.5 * self.scale.log_precision()).exp()
        s = self.noise.log_precision().exp()  # (T, 1)
        units = root[:, None] * root
        of_data = s[..., None] * self.xx * units
        eye = torch.eye(len(root), dtype=root.dtype, device=root.device)
        # eigenvalues are at least 1, however small or collinear G is
        inverse, log_det = InverseAndLogDet.apply(eye + of_data)
        own = inverse @ of_data
        offset = root * (inverse @ (root * s * self.xy)[..., None]).squeeze(-1)
        precision = (self.informs_mean[:, None, None] * own).sum(0) / units
        precision = precision + (-2 * self.raw_mean_scale.double()).exp() * eye
        mean_cov, _ = InverseAndLogDet.apply((precision + precision.mT) / 2)
        right = (self.informs_mean[:, None] * offset).sum(0) / root**2
        mean_loc = mean_cov @ right + self.mean_shift
        offset = offset + self.shift
        gain, cov = root[:, None] * inverse / root, inverse * units
        return _Posterior(offset, gain, cov, mean_loc, mean_cov, root, inverse, own, log_det)

    def expected_terms(self, w: _Posterior) -> dict[str, Tensor]:
        """Compute the expected log-likelihood ``y`` and the expected KL of ``w``, each (T, 1)."""
        mean_cov = w.mean_cov / (w.root[:, None] * w.root)
        # w - m has the mean `apart`, and w has C_t (I + C_t)^-1 of the variance of m
        apart = w.offset - w.root * (w.own @ (w.mean_loc / w.root))
        loc = apart + w.mean_loc
        of_prior = ((w.own @ mean_cov) * w.own).sum((-2, -1))
        of_mean = (w.own * mean_cov).sum((-2, -1))
        of_rows = w.own.diagonal(dim1=-2, dim2=-1).sum(-1) + of_mean - of_prior
        s, log_sigma = self.noise.log_precision().exp(), self.noise.loc.double()
        fitted = (self.xx @ loc[..., None]).squeeze(-1)
        squares = self.yy + (loc * (fitted - 2 * self.xy)).sum(-1)
        log_likelihood = -0.5 * (s[:, 0] * squares + of_rows + self.num_rows * LOG_2PI)
        log_likelihood = log_likelihood - self.num_rows * log_sigma[:, 0]
        inverse = w.inverse.diagonal(dim1=-2, dim2=-1)
        kl = 0.5 * ((inverse - 1 + (apart / w.root) ** 2).sum(-1) + of_prior + w.log_det)
        kl = kl + (self.scale.loc.double() - w.root.log()).sum()
        return {"y": log_likelihood[:, None], "w": kl[:, None]}

    def posterior(self, site: str) -> Any:
        """Return the marginal posterior of a site; the covariance of ``w`` includes that of m."""
        if site == "w_scale":
            return self.scale.posterior().to_event(1)
        if site == "noise_scale":
            return self.noise.posterior()
        w = self.coefficients()
        if site == "w_mean":
            return self._normal(w.mean_loc, w.mean_cov)
        cov = w.cov + w.gain @ w.mean_cov @ w.gain.mT
        return self._normal((w.offset + w.gain @ w.mean_loc).unsqueeze(1), cov.unsqueeze(1))

    def start_last_task(self, start: object, rows: TaskData) -> None:
        """Leave what was learned of others as it is when a task is added."""
        self.informs_mean[-1] = 0.0

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample every site; the model's arguments are ignored."""
        w = self.coefficients()
        mean = pyro.sample("w_mean", self._normal(w.mean_loc, w.mean_cov))
        scale = pyro.sample("w_scale", self.posterior("w_scale"))
        terms = self.expected_terms(w)
        # one product: a batch of them would copy the gains for each draw
        of_mean = functional.linear(mean, w.gain.to(self.of_dtype).flatten(0, 1))
        of_mean = of_mean.reshape(*mean.shape[:-3], self.num_tasks, 1, mean.shape[-1])
        loc = w.offset.to(self.of_dtype).unsqueeze(1) + of_mean
        root = covariance_root(w.cov).to(self.of_dtype).unsqueeze(1)
        with pyro.plate("task", self.num_tasks, dim=-2):
            loc, root = pyro.subsample(loc, event_dim=1), pyro.subsample(root, event_dim=2)
            terms = {site: pyro.subsample(value, event_dim=0) for site, value in terms.items()}
            posterior = dist.MultivariateNormal(loc, scale_tril=root)
            value = pyro.sample("w", posterior, infer={"expected": terms})
            all_noise = self.noise.posterior()
            some = (pyro.subsample(v, event_dim=0) for v in (all_noise.loc, all_noise.scale))
            noise = pyro.sample("noise_scale", dist.LogNormal(*some))
        return {"w_scale": scale, "w_mean": mean, "noise_scale": noise, "w": value}

    def _normal(self, loc: Tensor, cov: Tensor) -> dist.MultivariateNormal:
        return dist.MultivariateNormal(
            loc.to(self.of_dtype), scale_tril=covariance_root(cov).to(self.of_dtype)
        )


def sums_over_rows(data: TaskData, x: Tensor | None = None) -> dict[str, Tensor]:
    """Compute the weighted sums over the rows of each task that the posteriors depend on.

    ``x`` are features (T, N, P) in place of those of the data. Targets may have columns (T, N, C),
    then ``xy`` is (T, P, C).
    """
    x = (data.x if x is None else x).double()
    y = x.new_zeros(x.shape[:2]) if data.y is None else data.y.double()
    weight = data.mask.to(x) if data.weight is None else data.weight.double() * data.mask
    weighted = weight[..., None] * x
    return {
        "xx": weighted.mT @ x,
        "xy": (weighted * y[..., None]).sum(1) if y.ndim == 2 else weighted.mT @ y,
        "yy": (weight * y.reshape(*weight.shape, -1).square().sum(-1)).sum(1),
        "num_rows": weight.sum(1),
    }


def covariance_root(cov: Tensor) -> Tensor:
    """Compute the Cholesky factor of covariances, of any scale in each dimension."""
    std = cov.diagonal(dim1=-2, dim2=-1).sqrt()
    correlation = cov / (std[..., :, None] * std[..., None, :])
    eye = torch.eye(cov.shape[-1], dtype=cov.dtype, device=cov.device)
    # without a check of errors, which a recorded step would make though nobody draws
    return std[..., :, None] * torch.linalg.cholesky_ex(correlation + 1e-10 * eye).L
