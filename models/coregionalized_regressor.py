r"""The coregionalized regressor: smooth functions that tasks combine, and slopes of their own.

================== ============================================ ================ ===============
symbol             meaning                                      site             shape
================== ============================================ ================ ===============
:math:`u_q`        coefficients of function q, of features      ``factors``      (Q (F + M),)
                   and of kernel features
:math:`a_{tq}`     what task t has of function q                ``loadings``     (T, 1, Q)
:math:`\tau`       scale of a task's own coefficients           ``w_scale``      (F,)
:math:`w_t`        coefficients of the features in task t       ``w``            (T, 1, F)
:math:`\sigma_t`   standard deviation of the noise              ``noise_scale``  (T, 1)
:math:`y_{tn}`     target of row n of task t                    ``y``            (T, N)
================== ============================================ ================ ===============

.. math:: g_q(x) = u_q^\top (x, \varphi(x)), \qquad
    y_{tn} \sim N\Bigl(\sum_q a_{tq}\, g_q(x_{tn}) + \varepsilon_t^\top x_{tn},\
    \sigma_t^2\Bigr), \qquad \varepsilon_t \sim N(0, \tau^2)

with :math:`w_t = \sum_q a_{tq} u_q^{(x)} + \varepsilon_t`. Each :math:`g_q` is a Gaussian process
whose kernel is linear and squared exponential: together they are a linear model of
coregionalization [1]_ with random slopes. Tasks that combine the functions alike are related.

References
----------
.. [1] M. A. Álvarez, L. Rosasco and N. D. Lawrence. Kernels for vector-valued functions, 2012.
"""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_vmtl.data.plates import subsample_tasks
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.linear_predictor import combine, linear_predictor

__all__ = ["CoregionalizedRegressor"]


class CoregionalizedRegressor(nn.Module):
    """Functions of linear and kernel features that each task combines.

    Parameters
    ----------
    features
        Returns kernel features (..., M) of rows (..., F), for example
        :class:`~pyro_vmtl.models.KernelFeatures`.
    num_inputs, num_features, num_factors
        F, M and Q.
    noise
        Returns the standard deviations of the noise, (T, 1), inside a plate over tasks.

    Examples
    --------
    >>> from pyro_vmtl.models import KernelFeatures, LogNormalNoise
    >>> features = KernelFeatures(torch.eye(2), torch.zeros(2))
    >>> model = CoregionalizedRegressor(features, 2, 2, 3, LogNormalNoise())
    >>> poutine.trace(model).get_trace(data).nodes["loadings"]["fn"].batch_shape
    torch.Size([3, 1])
    """

    fixed_graph = True
    usual_loadings: Tensor

    def __init__(
        self,
        features: nn.Module,
        num_inputs: int,
        num_features: int,
        num_factors: int,
        noise: Callable[[], Tensor],
    ) -> None:
        super().__init__()
        self.features, self.noise = features, noise
        self.sizes = num_inputs, num_features
        # All tasks have about as much of the first function, as in a mixed model.
        self.register_buffer("usual_loadings", torch.eye(num_factors)[0])
        self.raw_factor_scale = nn.Parameter(torch.tensor([0.3, 1.0]).log())
        self.raw_loading_scale = nn.Parameter(torch.zeros(num_factors))
        self.raw_scale = nn.Parameter(torch.tensor(0.3).log())

    @property
    def factor_scale(self) -> Tensor:
        """Prior standard deviation of the numbers of a factor, (F + M,)."""
        linear, smooth = self.raw_factor_scale.exp()
        return torch.cat([linear.expand(self.sizes[0]), smooth.expand(self.sizes[1])])

    def forward(self, data: TaskData) -> None:
        """Sample functions, combinations and targets; condition on targets that are known."""
        num_inputs, num_factors = self.sizes[0], len(self.usual_loadings)
        scale = self.factor_scale.repeat(num_factors)
        factors = pyro.sample("factors", dist.Normal(torch.zeros_like(scale), scale).to_event(1))
        own_scale = self.raw_scale.expand(num_inputs)
        spread = torch.ones_like(own_scale)
        own_scale = pyro.sample("w_scale", dist.LogNormal(own_scale, spread).to_event(1))
        with pyro.plate("task", data.num_tasks, dim=-2):
            prior = dist.Normal(self.usual_loadings, self.raw_loading_scale.exp())
            common = combine(pyro.sample("loadings", prior.to_event(1)), factors)
            linear, smooth = common[..., :num_inputs], common[..., num_inputs:]
            w = pyro.sample("w", dist.Normal(linear, own_scale).to_event(1))
            rows = subsample_tasks(data)
            mean = linear_predictor(rows.x, w)
            # a product of batches would copy the features for each draw
            features = self.features(rows.x)
            smooth = smooth.squeeze(-2).to(features)
            mean = mean + torch.einsum("tnm,...tm->...tn", features, smooth)
            noise_scale = self.noise()
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=rows.mask):
                pyro.sample("y", dist.Normal(mean.to(w.dtype), noise_scale), obs=rows.y)
