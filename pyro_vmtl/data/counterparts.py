r"""Attention: each row's counterpart in every other task.

The prior of a representation :math:`z_{tn}` is a pool of :math:`q(z | x_{tn}, D_i)`, where
:math:`D_i` are the training rows of task i. As in the code of Shen et al. (NeurIPS 2021), they
enter through :math:`\tilde x_{tni}`, a mean of the rows of task i weighted by their likeness to
:math:`x_{tn}`:

.. math:: \tilde x_{tni} = \sum_m \mathrm{softmax}_m\Bigl(
    \frac{x_{tn}^\top x_{im}}{\max_m - \min_m}\Bigr) x_{im}

over the rows m of task i with the class of :math:`y_{tn}`. This depends on the data alone and is
computed once. The paper has no form for regression: there m runs over all rows of task i and, if
wanted, likeness of the targets, :math:`-(y_{tn} - y_{im})^2` over its range, adds to that of the
features.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pyro_vmtl.data.task_data import Attended, TaskData

__all__ = ["attend"]


@torch.no_grad()
def attend(data: TaskData) -> TaskData:
    """Find each row's counterparts in the other tasks, which shared representations need.

    Parameters
    ----------
    data
        Training rows.

    Returns
    -------
    TaskData
        The same rows, with ``attended``.

    Raises
    ------
    ValueError
        If the targets are not known, or there is only one task.

    Examples
    --------
    >>> X = [[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]]
    >>> data = attend(TaskData.classification(X, [0, 0, 0], ["a", "a", "b"]))
    >>> data.attended.x[2, 0]  # both rows of task a are equally far from (0, 2)
    tensor([2., 0.])
    """
    if data.y is None:
        raise ValueError(
            "The rows have no targets, expected training rows: attention is within a class. "
            "Call attend on the data to fit."
        )
    if data.num_tasks < 2:
        raise ValueError("There is 1 task, expected at least 2 to look at one another's rows.")
    task, _ = data.mask.nonzero(as_tuple=True)
    x, y, row = data.x[data.mask], data.y[data.mask], data.row[data.mask]
    out = x.new_zeros(len(x), data.num_tasks - 1, data.num_features)
    present = torch.zeros(out.shape[:2], dtype=torch.bool, device=x.device)
    for source in range(data.num_tasks):
        others = task != source
        keys, targets = x[task == source], y[task == source]
        if not len(keys):
            continue
        likeness = x[others] @ keys.mT
        allowed = torch.ones_like(likeness, dtype=torch.bool)
        if data.classes is not None:
            allowed = y[others][:, None] == targets
        scores = _over_range(likeness, allowed)
        any_allowed = allowed.any(1)
        weights = scores.masked_fill(~allowed, -torch.inf)[any_allowed].softmax(1)
        place = row[others], source - (source > task[others]).long()
        out[place] = out.new_zeros(len(likeness), data.num_features).masked_scatter(
            any_allowed[:, None], weights @ keys
        )
        present[place] = any_allowed
    return replace(data, attended=Attended(out, present))


def _over_range(scores: Tensor, allowed: Tensor) -> Tensor:
    """Divide each row of scores by the range of its allowed ones."""
    high = scores.masked_fill(~allowed, -torch.inf).amax(1, keepdim=True)
    low = scores.masked_fill(~allowed, torch.inf).amin(1, keepdim=True)
    return scores / (high - low + 1e-9)
