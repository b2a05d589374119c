r"""The conditional random field of a star: exact, where feedback is approximate.

An output of the row, such as the intent of a sentence, is coupled to each of its words, and words
are not coupled to one another. With scores :math:`a_i` of the centre, :math:`a_{lc}` of the leaves
and a symmetric coupling :math:`A_{ci}`

.. math:: \log Z = \log \sum_i \exp\Big(a_i + \sum_l \log \sum_c \exp(a_{lc} + A_{ci})\Big)

so that likelihood, marginals and the most probable joint labels cost as much as I classifications.
Feedback with ``symmetric=True`` is the parallel mean-field update of this model (where the mean
over the words is their sum).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["StarCRF"]


@dataclass(frozen=True, eq=False)
class StarCRF:
    """A centre of I classes and L leaves of C classes, for each of N rows.

    Parameters
    ----------
    centre
        (N, I), scores of the centre.
    leaves
        (N, L, C), scores of the leaves.
    coupling
        (C, I), scores of pairs.
    mask
        (N, L), False for leaves that a row does not have; all by default.

    Examples
    --------
    >>> star = StarCRF(torch.zeros(1, 2), torch.zeros(1, 3, 4), torch.zeros(4, 2))
    >>> star.log_prob(torch.tensor([0]), torch.tensor([[1, 2, 3]])).exp() * 2 * 4**3
    tensor([1.])
    """

    centre: Tensor
    leaves: Tensor
    coupling: Tensor
    mask: Tensor | None = None

    def log_prob(self, centre: Tensor, leaves: Tensor) -> Tensor:
        """Compute the log probability, (N,), of joint labels (N,) and (N, L)."""
        pairs = self.coupling[leaves, centre[:, None]]
        of_leaves = self.leaves.gather(2, leaves[..., None])[..., 0] + pairs
        score = self.centre.gather(1, centre[:, None])[:, 0] + self._of_row(of_leaves).sum(1)
        return score - self._centre_scores().logsumexp(1)

    def marginals(self) -> tuple[Tensor, Tensor]:
        """Compute the marginals of the centre, (N, I), and of the leaves, (N, L, C)."""
        centre = self._centre_scores().softmax(1)
        given = self._pairs().softmax(2)  # (N, L, C, I), of a leaf given the centre
        return centre, (given * centre[:, None, None]).sum(3)

    def mode(self) -> tuple[Tensor, Tensor]:
        """Return the most probable joint labels, (N,) and (N, L)."""
        best, label = self._pairs().max(2)  # (N, L, I)
        centre = (self.centre + self._of_row(best).sum(1)).argmax(1)
        return centre, label.gather(2, centre[:, None, None].expand(*label.shape[:2], 1))[..., 0]

    def _pairs(self) -> Tensor:
        return self.leaves[..., None] + self.coupling

    def _centre_scores(self) -> Tensor:
        """Return the unnormalized log marginal of the centre, (N, I)."""
        return self.centre + self._of_row(self._pairs().logsumexp(2)).sum(1)

    def _of_row(self, values: Tensor) -> Tensor:
        """Set values of leaves that a row does not have to 0."""
        if self.mask is None:
            return values
        mask = self.mask.reshape(*self.mask.shape, *[1] * (values.ndim - 2))
        return torch.where(mask, values, 0.0)
