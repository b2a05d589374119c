r"""The guide of coregionalized regressions, computed from the rows but for scales and loadings.

Given the functions, the loadings and the scales, the own coefficients :math:`\varepsilon_t` of a
task have a known normal posterior, and can be integrated out; what is left of the rows is quadratic
in what a task combines, :math:`m_t = \sum_q a_{tq} u_q`. So the best normal posterior of all
functions together is known, too. With :math:`X_t` the features and :math:`\Phi_t` these and the
kernel features (symbols as in :class:`~pyro_vmtl.models.CoregionalizedRegressor`; :math:`s_t` and
:math:`\Lambda` are means of :math:`\sigma_t^{-2}` and :math:`\tau^{-2}`),

.. math::

    S_t = (s_t X_t^\top X_t + \Lambda)^{-1}, \qquad
    K_t = s_t I - s_t^2 X_t S_t X_t^\top, \qquad H_t = \Phi_t^\top K_t \Phi_t, \\
    q(u) = N(V \textstyle\sum_t E[a_t] \otimes \Phi_t^\top K_t y_t,\ V), \qquad
    V = (\textstyle\sum_t E[a_t a_t^\top] \otimes H_t + \tau_0^{-2})^{-1}, \\
    q(w_t \mid m_t) = N(m_t^{(x)} + s_t S_t X_t^\top (y_t - \Phi_t m_t),\ S_t)

Loadings have independent normal posteriors, scales log-normal ones. The guide hands the ELBO the
expected log-likelihood with the own coefficients integrated out, with 0 as their KL.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.guides.conjugate import (
    LOG_2PI,
    InverseAndLogDet,
    LogNormals,
    covariance_root,
    sums_over_rows,
)
from pyro_vmtl.handlers.linear_predictor import combine

__all__ = ["CoregionalizedNormal", "Integrated", "integrate_own", "posterior_of_factors"]


class Integrated(NamedTuple):
    """The log-likelihood without own coefficients, -(k - 2 m'h + m'H m + log_det) / 2."""

    H: Tensor  # (T, P, P)
    h: Tensor  # (T, P, ...) as the sums of features times targets
    k: Tensor  # (T,)
    log_det: Tensor  # (T,)
    inverse: Tensor  # of I + s root X'X root, (T, F, F)


def integrate_own(
    xx: Tensor, xy: Tensor, yy: Tensor, precision: Tensor, own_scale: Tensor
) -> Integrated:
    """Integrate out own coefficients of the first F features.

    Parameters
    ----------
    xx, xy, yy
        (T, P, P), (T, P, C) and (T,), sums over the rows of products of features and targets.
    precision
        (T, 1), of the noise.
    own_scale
        (F,), standard deviations of the own coefficients.
    """
    size = len(own_scale)
    s = precision.unsqueeze(-1)
    units = own_scale[:, None] * own_scale
    eye = torch.eye(size, dtype=xx.dtype, device=xx.device)
    # eigenvalues are at least 1, however small or collinear the rows are
    inverse, log_det = InverseAndLogDet.apply(eye + s * xx[:, :size, :size] * units)
    half = s * own_scale[:, None] * xx[:, :size]  # (T, F, P)
    targets = s * own_scale[:, None] * xy[:, :size]  # (T, F, C)
    solved = inverse @ half
    H = s * xx - half.mT @ solved
    h = s * xy - solved.mT @ targets
    k = precision[:, 0] * yy - (targets * (inverse @ targets)).sum((-2, -1))
    return Integrated(H, h, k, log_det, inverse)


class Factors(NamedTuple):
    """The normal posterior of all functions together."""

    loc: Tensor  # (Q P, C)
    inverse: Tensor  # covariance (Q P, Q P) in units of the prior's
    log_det: Tensor  # of the precision in these units
    right: Tensor  # (Q P, C), precision times mean


def posterior_of_factors(
    own: Integrated, loadings: Tensor, second: Tensor, scale: Tensor
) -> Factors:
    """Compute the posterior of functions whose coefficients are normal a priori.

    Parameters
    ----------
    own
        The log-likelihood of a task's combination.
    loadings, second
        (T, Q) and (T, Q, Q), first and second moments of the loadings.
    scale
        (P,), prior standard deviations of the coefficients of a function.
    """
    num_factors, size = loadings.shape[1], len(scale)
    precision = second.flatten(1).mT @ own.H.flatten(1)
    precision = precision.unflatten(0, (num_factors, -1)).unflatten(-1, (size, size))
    precision = precision.transpose(1, 2).flatten(2).flatten(0, 1)
    scale = scale.repeat(num_factors)
    eye = torch.eye(len(scale), dtype=scale.dtype, device=scale.device)
    symmetric = scale[:, None] * (precision + precision.mT) / 2 * scale
    inverse, log_det = InverseAndLogDet.apply(eye + symmetric)
    right = (loadings.mT @ own.h.flatten(1)).reshape(len(scale), -1)
    loc = scale[:, None] * (inverse @ (scale[:, None] * right))
    return Factors(loc, inverse, log_det, right)


class CoregionalizedNormal(nn.Module):
    """Normal posteriors of functions and of own coefficients, computed from the rows.

    Parameters
    ----------
    model
        A :class:`~pyro_vmtl.models.CoregionalizedRegressor` of the rows, whose kernel features and
        prior scales this guide computes with.
    data
        Training rows with real targets.
    init_scale, init_noise_scale
        Initial scales of own coefficients and noise.

    Examples
    --------
    >>> from pyro_vmtl.models import CoregionalizedRegressor, KernelFeatures, LogNormalNoise
    >>> data = TaskData.regression([[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0], ["a", "a", "b"])
    >>> features = KernelFeatures(torch.ones(1, 1), torch.zeros(1))
    >>> model = CoregionalizedRegressor(features, 1, 1, 3, LogNormalNoise())
    >>> CoregionalizedNormal(model, data)()["w"].shape
    torch.Size([2, 1, 1])
    """

    fixed_graph = True

    xx: Tensor
    xy: Tensor
    yy: Tensor
    num_rows: Tensor
    informs_factors: Tensor
    shift: Tensor
    factor_shift: Tensor
    of_dtype: Tensor  # draws have its type

    shifts = ("shift", "factor_shift")
    """Zeros in the computed means, which are at their optimum: linear response moves them."""

    def __init__(
        self,
        model: Any,
        data: TaskData,
        *,
        init_scale: float = 0.3,
        init_noise_scale: float = 0.5,
    ) -> None:
        super().__init__()
        self.model = model
        self.num_tasks, self.num_inputs = data.num_tasks, data.num_features
        for name, values in self._sums(data).items():
            self.register_buffer(name, values)
        num_factors = len(model.usual_loadings)
        size = num_factors * self.xy.shape[1]
        self.register_buffer("informs_factors", torch.ones_like(self.yy))
        self.register_buffer("shift", torch.zeros_like(self.xy[:, : self.num_inputs]), False)
        self.register_buffer("factor_shift", self.xy.new_zeros(size), False)
        self.register_buffer("of_dtype", data.x.new_empty(()), False)
        num_tasks = torch.full((self.num_inputs,), float(self.num_tasks))
        self.scale = LogNormals(init_scale, num_tasks)
        self.noise = LogNormals(init_noise_scale, self.num_rows.float().unsqueeze(1))
        # Other functions than the first start at random, or their gradients would be 0.
        usual = model.usual_loadings.cpu()
        self.loading_loc = nn.Parameter(
            usual + 0.5 * (1 - usual) * torch.randn(self.num_tasks, 1, num_factors)
        )
        self.raw_loading_scale = nn.Parameter(torch.full_like(self.loading_loc, 0.3).log())

    def _sums(self, data: TaskData) -> dict[str, Tensor]:
        return sums_over_rows(data, torch.cat([data.x, self.model.features(data.x)], -1))

    def take_rows(self, data: TaskData) -> None:
        """Compute anew what depends on the training rows, as by other weights of them."""
        for name, values in self._sums(data).items():
            setattr(self, name, values)

    def start_last_task(self, start: object, rows: TaskData) -> None:
        """Leave what was learned of others as it is when a task is added."""
        for name, values in self._sums(rows).items():
            getattr(self, name)[-1] = values[-1]
        self.informs_factors[-1] = 0.0

    def _second_moments(self) -> Tensor:
        """Compute the second moments of the loadings, (T, Q, Q), in float64."""
        loc = self.loading_loc.double().squeeze(1)
        var = (2 * self.raw_loading_scale.double().squeeze(1)).exp()
        return loc.unsqueeze(-1) * loc.unsqueeze(-2) + torch.diag_embed(var)

    def _integrated(self) -> tuple[Integrated, Tensor, Tensor]:
        """Integrate out own coefficients; also return their scale and the noise's precision."""
        root = (-0.5 * self.scale.log_precision()).exp()
        s = self.noise.log_precision().exp()
        own = integrate_own(self.xx, self.xy[..., None], self.yy, s, root)
        return own, root, s

    def _factors(self, own: Integrated) -> tuple[Tensor, Tensor, Tensor]:
        """Compute mean (Q P,), covariance and KL of the factors, in float64."""
        informs, scale = self.informs_factors[:, None], self.model.factor_scale.double()
        loadings = informs * self.loading_loc.double().squeeze(1)
        second = informs[..., None] * self._second_moments()
        found = posterior_of_factors(own, loadings, second, scale)
        scale = scale.repeat(loadings.shape[1])
        loc, inverse = found.loc.squeeze(-1) + self.factor_shift, found.inverse
        kl = 0.5 * (((loc / scale) ** 2 + inverse.diagonal() - 1).sum() + found.log_det)
        return loc, scale[:, None] * inverse * scale, kl

    def _expected(self, own: Integrated, root: Tensor, loc: Tensor, cov: Tensor) -> Tensor:
        """Compute the expected log-likelihood without own coefficients, (T, 1)."""
        num_factors, size = self.loading_loc.shape[-1], self.xy.shape[1]
        each = loc.unflatten(0, (num_factors, size))
        mean = self.loading_loc.double().squeeze(1) @ each
        moments = (cov + loc[:, None] * loc).unflatten(0, (num_factors, size))
        moments = moments.unflatten(-1, (num_factors, size)).transpose(1, 2).flatten(2)
        traces = own.H.flatten(1) @ moments.flatten(0, 1).mT  # of H_t with E[u_q u_r'], (T, Q Q)
        squares = own.k - 2 * (mean * own.h.squeeze(-1)).sum(-1)
        squares = squares + (traces * self._second_moments().flatten(1)).sum(-1)
        log_scale = self.noise.loc.double().squeeze(1) + 0.5 * LOG_2PI
        found = -0.5 * (squares + own.log_det) - self.num_rows * log_scale
        # the prior of own coefficients has the mean of log tau
        return (found - (self.scale.loc.double() - root.log()).sum())[:, None]

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample every site; the model's arguments are ignored."""
        own, root, s = self._integrated()
        factor_loc, factor_cov, kl = self._factors(own)
        terms = {"y": self._expected(own, root, factor_loc, factor_cov)}
        # 0 but for linear response, which moves the mean of own coefficients
        apart = self.shift / root
        curved = torch.linalg.solve(own.inverse, apart[..., None]).squeeze(-1)
        terms["w"] = 0.5 * (apart * curved).sum(-1, keepdim=True)
        posterior = self._normal(factor_loc, factor_cov)
        factors = pyro.sample("factors", posterior, infer={"expected": {"factors": kl}})
        scale = pyro.sample("w_scale", self.scale.posterior().to_event(1))
        size = self.num_inputs
        # given what a task combines, w is linear in it
        gain = root[:, None] * own.inverse @ (s[..., None] * root[:, None] * self.xx[:, :size])
        offset = (
            root[:, None] * own.inverse @ (s[..., None] * (root * self.xy[:, :size])[..., None])
        )
        offset = offset.squeeze(-1) + self.shift
        cov = own.inverse * (root[:, None] * root)
        each = offset[:, None], gain[:, None], covariance_root(cov)[:, None]
        with pyro.plate("task", self.num_tasks, dim=-2):
            loadings = pyro.sample("loadings", self._loadings())
            offset, gain, tril = (
                pyro.subsample(values.to(self.of_dtype), event_dim=values.ndim - 2)
                for values in each
            )
            terms = {site: pyro.subsample(value, event_dim=0) for site, value in terms.items()}
            common = combine(loadings, factors)
            # a product of batches would copy the gains for each draw
            fitted = torch.einsum("tifp,...tip->...tif", gain, common)
            loc = offset + common[..., :size] - fitted
            posterior = dist.MultivariateNormal(loc, scale_tril=tril)
            w = pyro.sample("w", posterior, infer={"expected": terms})
            all_noise = self.noise.posterior()
            some = (pyro.subsample(v, event_dim=0) for v in (all_noise.loc, all_noise.scale))
            noise = pyro.sample("noise_scale", dist.LogNormal(*some))
        return {
            **{"factors": factors, "loadings": loadings, "w_scale": scale},
            **{"noise_scale": noise, "w": w},
        }

    @torch.no_grad()
    def task_shares(self) -> Tensor:
        r"""Compute the share of each task's fitted values that comes from the rows of each, (T, T).

        Means of functions and of own coefficients are linear in the targets of all tasks, so fitted
        values are sums :math:`f_t = \sum_i f_{ti}`, where other tasks' targets enter by
        :math:`f_{ti} = s_t^{-1} K_t \Phi_t \sum_q a_{tq} V_q (a_i \otimes \Phi_i^\top K_i y_i)`.
        Shares are :math:`f_t^\top f_{ti} / f_t^\top f_t`; the diagonal is without what own
        coefficients have of own rows. A task without rows has mean shares of the others.
        """
        own, root, s = self._integrated()
        loc, cov, _ = self._factors(own)
        loadings, size = self.loading_loc.double().squeeze(1), self.num_inputs
        w = loadings @ loc.unflatten(0, (loadings.shape[1], -1))
        left = self.xy[:, :size] - (self.xx[:, :size] @ w[..., None]).squeeze(-1)
        w[:, :size] += root * (own.inverse @ (s * root * left)[..., None]).squeeze(-1)
        along = (self.xx @ w[..., None]).squeeze(-1)
        said = self.informs_factors[:, None, None] * loadings[..., None] * own.h.mT
        moved = (own.H @ w[..., None]).squeeze(-1) / s
        parts = (loadings[..., None] * moved[:, None]).flatten(1) @ cov @ said.flatten(1).mT
        shares = parts / (w * along).sum(-1, keepdim=True).clamp_min(1e-12)
        empty = self.num_rows == 0
        shares[empty] = shares[~empty].mean(0)
        return shares

    def _loadings(self) -> dist.Independent:
        loc, raw_scale = self.loading_loc, self.raw_loading_scale
        loc, raw_scale = (pyro.subsample(values, event_dim=1) for values in (loc, raw_scale))
        return dist.Normal(loc, raw_scale.exp()).to_event(1)

    def _normal(self, loc: Tensor, cov: Tensor) -> dist.MultivariateNormal:
        return dist.MultivariateNormal(
            loc.to(self.of_dtype), scale_tril=covariance_root(cov).to(self.of_dtype)
        )
