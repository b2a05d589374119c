r"""Attention: each row's counterpart in every other task.

The prior of a representation :math:`z_{tn}` is a pool of :math:`q(z | x_{tn}, D_i)`, where
:math:`D_i` are the training rows of task i. As in the code of Shen et al. [1]_, they enter through
:math:`\tilde x_{tni}`, a mean of the rows of task i weighted by their similarity to :math:`x_{tn}`:

.. math:: \tilde x_{tni} = \sum_m \mathrm{softmax}_m\Bigl(
    \frac{x_{tn}^\top x_{im}}{\max_m - \min_m}\Bigr) x_{im}

over the rows m of task i with the class of :math:`y_{tn}`. For real targets, which the paper
does not define, m runs over all rows of task i. This depends on the data alone and is computed
once.

References
----------
.. [1] J. Shen, X. Zhen, M. Worring, L. Shao. Variational Multi-Task Learning with Gumbel-Softmax
   Priors. NeurIPS 2021.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from pyro_vmtl.data.task_data import Attended, TaskData

__all__ = ["attend"]


@torch.no_grad()
def attend(data: TaskData) -> TaskData:
    """Compute each row's counterparts in the other tasks, which shared representations need.

    Parameters
    ----------
    data
        Training rows of at least two tasks.

    Returns
    -------
    TaskData
        The same rows, with ``attended``.

    See Also
    --------
    pyro_vmtl.guides.EncodedNormal : The guide that encodes rows and counterparts.

    Examples
    --------
    >>> X = [[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]]
    >>> data = attend(TaskData.classification(X, [0, 0, 0], ["a", "a", "b"]))
    >>> data.attended.x[2, 0]  # both rows of task a are equally similar to (0, 2)
    tensor([2., 0.])
    """
    if data.y is None:
        raise ValueError(
            "The rows have no targets, expected training rows: attention is within a class. "
            "Call attend on the data to fit."
        )
    if data.num_tasks < 2:
        raise ValueError("There is 1 task, expected at least 2: rows attend to other tasks.")
    task, _ = data.mask.nonzero(as_tuple=True)
    x, y, row = data.x[data.mask], data.y[data.mask], data.row[data.mask]
    out = x.new_zeros(len(x), data.num_tasks - 1, data.num_features)
    present = torch.zeros(out.shape[:2], dtype=torch.bool, device=x.device)
    for source in range(data.num_tasks):
        keys, targets = x[task == source], y[task == source]
        others = (task != source).nonzero().squeeze(1)
        if not len(keys):
            continue
        similarity = x[others] @ keys.mT
        allowed = torch.ones_like(similarity, dtype=torch.bool)
        if data.classes is not None:
            allowed = y[others][:, None] == targets
        found = allowed.any(1)
        others, similarity, allowed = others[found], similarity[found], allowed[found]
        high = similarity.masked_fill(~allowed, -torch.inf)
        low = similarity.masked_fill(~allowed, torch.inf)
        spread = high.amax(1, keepdim=True) - low.amin(1, keepdim=True)
        weights = (similarity / (spread + 1e-9)).masked_fill(~allowed, -torch.inf).softmax(1)
        place = row[others], source - (source > task[others]).long()
        out[place], present[place] = weights @ keys, True
    return replace(data, attended=Attended(out, present))
