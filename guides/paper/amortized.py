r"""Amortized coefficients: one network computes every task's posterior from its rows.

=================== ================================ =========== ========================
symbol              meaning                          code        shape
=================== ================================ =========== ========================
:math:`c_t`         summary of task t's rows         ``summary`` (T, C, F), or (T, F)
:math:`q(w_t|c_t)`  posterior of its coefficients    site ``w``  (T, 1, C, D), (T, 1, D)
=================== ================================ =========== ========================

For classes the summary is the mean feature of each class, as in VMTL-AC of Shen et al. (NeurIPS
2021). For real targets it is the mean of the features weighted by the target, which for centred
features determines the direction of a least-squares fit.
"""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vmtl.data.plates import sample_posterior
from pyro_vmtl.data.task_data import TaskData

__all__ = ["AmortizedNormal", "class_means", "target_weighted_mean"]


class AmortizedNormal(nn.Module):
    """Guide of ``w`` with one network for all tasks.

    Parameters
    ----------
    encoder
        Computes the posterior of summaries (..., F), such as :class:`~pyro_vmtl.guides.MLPEncoder`.
    data
        Training rows, which are summarized once, here.

    Examples
    --------
    >>> from pyro_vmtl.guides import LinearEncoder
    >>> AmortizedNormal(LinearEncoder(2, 2), data)().shape
    torch.Size([3, 1, 2])
    """

    fixed_graph = True
    summary: Tensor

    def __init__(self, encoder: nn.Module, data: TaskData) -> None:
        super().__init__()
        self.encoder = encoder
        summarize = target_weighted_mean if data.classes is None else class_means
        self.register_buffer("summary", summarize(data))

    def draw(self) -> Tensor:
        """Sample ``w``, inside a plate over tasks."""
        rows = self.encoder(self.summary)
        normal = dist.Normal(rows.mean.unsqueeze(1), rows.stddev.unsqueeze(1))
        return sample_posterior("w", normal.to_event(self.summary.ndim - 1))

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Sample ``w``; the model's arguments are ignored."""
        with pyro.plate("task", len(self.summary), dim=-2):
            return self.draw()


def class_means(data: TaskData) -> Tensor:
    """Compute the mean feature of every class in every task, (T, C, F).

    A class without rows in a task has its mean over the rows of all tasks.
    """
    if data.y is None or data.classes is None:
        raise ValueError("The rows have no classes, expected training rows of a classification.")
    member = torch.nn.functional.one_hot(data.y, data.num_classes) * data.mask[..., None]
    member = member.to(data.x)  # (T, N, C)
    counts, sums = member.sum(1), member.mT @ data.x
    total = counts.sum(0)
    if (total == 0).any():
        missing = data.classes[int((total == 0).nonzero()[0])]
        raise ValueError(
            f"Class {missing!r} has no training row in any task, and so no mean feature. Add a "
            "row, or leave it out of `classes=`."
        )
    overall = sums.sum(0) / total[:, None]
    return torch.where(counts[..., None] > 0, sums / counts.clamp(min=1)[..., None], overall)


def target_weighted_mean(data: TaskData) -> Tensor:
    """Compute the mean of target times features in every task, (T, F); 0 for tasks without rows."""
    if data.y is None:
        raise ValueError("The rows have no targets, expected training rows.")
    y = data.y.to(data.x) * data.mask
    return (y.unsqueeze(1) @ data.x).squeeze(1) / data.mask.sum(1, keepdim=True).clamp(min=1)
