r"""The latent regressor: linear regression on representations, with normal noise.

================= ==================================== ============ ====================
symbol            meaning                              site         shape
================= ==================================== ============ ====================
:math:`x_{tn}`    features of row n of task t          (given)      ``data.x`` (T, N, F)
:math:`z_{tn}`    its representation                   ``z``        (T, N, D)
:math:`w_t`       coefficients of task t               ``w``        (T, 1, D)
:math:`\sigma_t`  standard deviation of the noise      (learned)    ``noise_scale`` (T, 1)
:math:`y_{tn}`    target of row n of task t            ``y``        ``data.y`` (T, N)
================= ==================================== ============ ====================

.. math:: w_t \sim p(w), \qquad z_{tn} \sim N(0, I), \qquad
    y_{tn} \sim N(w_t^\top z_{tn}, \sigma_t^2)

The features enter through the guide of ``z`` alone, an encoder (Shen et al., NeurIPS 2021). With a
bias, ``w`` has D + 1 numbers, of which the last is the bias.
"""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
from pyro import poutine
from torch import Tensor, nn

from pyro_vmtl.data.plates import subsample_tasks
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.models.paper.latent_classifier import standard_normal, times

__all__ = ["LatentRegressor"]


class LatentRegressor(nn.Module):
    """Linear regression on a latent representation of every row.

    Parameters
    ----------
    prior
        Returns the prior of one task's ``w``, a normal with event shape (D,), or (D + 1,) with a
        bias.
    latent_size
        D.
    noise
        As for :class:`~pyro_vmtl.models.LinearRegressor`.

    See Also
    --------
    pyro_vmtl.guides.EncodedNormal : The guide with an encoder for ``z``.

    Examples
    --------
    >>> from pyro_vmtl.models import StandardNormal, TaskNoise
    >>> model = LatentRegressor(StandardNormal([5]), 4, TaskNoise(3))
    >>> poutine.trace(model).get_trace(data).nodes["z"]["value"].shape
    torch.Size([3, 12, 4])
    """

    fixed_graph = True

    def __init__(
        self, prior: Callable[[], dist.Independent], latent_size: int, noise: Callable[[], Tensor]
    ) -> None:
        super().__init__()
        self.prior = prior
        self.latent_size = latent_size
        self.noise = noise

    def forward(self, data: TaskData) -> None:
        """Sample coefficients, representations and targets; condition on known targets."""
        prior = self.prior()
        with pyro.plate("task", data.num_tasks, dim=-2):
            w, rows = pyro.sample("w", prior), subsample_tasks(data)  # (T, 1, D)
            noise_scale = self.noise()
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=rows.mask):
                z = pyro.sample("z", standard_normal(data.x, self.latent_size))
                mean = times(z, w).squeeze(-1)
                pyro.sample("y", dist.Normal(mean, noise_scale), obs=rows.y)
