r"""The latent classifier: softmax regression on representations.

=============== ==================================== ============ ======================
symbol          meaning                              site         shape
=============== ==================================== ============ ======================
:math:`x_{tn}`  features of row n of task t          (given)      ``data.x`` (T, N, F)
:math:`z_{tn}`  its representation                   ``z``        (T, N, D)
:math:`w_t`     coefficients of task t's classes     ``w``        (T, 1, C, D)
:math:`y_{tn}`  class of row n of task t             ``y``        ``data.y`` (T, N)
=============== ==================================== ============ ======================

.. math:: w_t \sim p(w), \qquad z_{tn} \sim N(0, I), \qquad
    y_{tn} \sim \mathrm{Categorical}(\mathrm{softmax}(w_t z_{tn}))

The features enter through the guide of ``z`` alone, an encoder (Shen et al., NeurIPS 2021). With a
bias, ``w`` has D + 1 columns, of which the last is the bias.
"""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
from pyro import poutine
from torch import Tensor, nn

from pyro_vmtl.data.plates import subsample_tasks
from pyro_vmtl.data.task_data import TaskData

__all__ = ["LatentClassifier", "standard_normal", "times"]


class LatentClassifier(nn.Module):
    """Softmax regression on a latent representation of every row.

    Parameters
    ----------
    prior
        Returns the prior of one task's ``w``, a normal with event shape (C, D), or (C, D + 1) with
        a bias.
    latent_size
        D.

    See Also
    --------
    pyro_vmtl.guides.EncodedNormal : The guide with an encoder for ``z``.
    LinearClassifier : The same on the features themselves.

    Examples
    --------
    >>> from pyro_vmtl import TaskData
    >>> from pyro_vmtl.models import StandardNormal
    >>> classes = TaskData.classification([[0.0], [1.0]], ["no", "yes"], ["a", "b"])
    >>> model = LatentClassifier(StandardNormal([2, 5]), latent_size=4)
    >>> poutine.trace(model).get_trace(classes).nodes["z"]["value"].shape
    torch.Size([2, 1, 4])
    """

    fixed_graph = True

    def __init__(self, prior: Callable[[], dist.Independent], latent_size: int) -> None:
        super().__init__()
        self.prior = prior
        self.latent_size = latent_size

    def forward(self, data: TaskData) -> None:
        """Sample coefficients, representations and classes; condition on known classes."""
        prior = self.prior()
        with pyro.plate("task", data.num_tasks, dim=-2):
            w, rows = pyro.sample("w", prior), subsample_tasks(data)
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=rows.mask):
                z = pyro.sample("z", standard_normal(data.x, self.latent_size))
                logits = times(z, w.squeeze(-3))  # (T, N, C)
                pyro.sample("y", dist.Categorical(logits=logits), obs=rows.y)


def standard_normal(like: Tensor, size: int) -> dist.Independent:
    """Return the prior N(0, I) of a representation, with the dtype and device of a tensor."""
    return dist.Normal(like.new_zeros(size), like.new_ones(size)).to_event(1)


def times(z: Tensor, w: Tensor) -> Tensor:
    """Multiply (T, N, D) by (T, C, D), or by (T, C, D + 1) with a bias in its last column."""
    size = z.shape[-1]
    out = (z @ w[..., :size].mT).to(w.dtype)  # under autocast only products have low precision
    return out if w.shape[-1] == size else out + w[..., size:].mT
