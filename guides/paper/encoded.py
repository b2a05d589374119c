r"""Representations: an encoder computes the posterior of every row's ``z``.

===================== =========================================== ======== =============
symbol                meaning                                     site     shape
===================== =========================================== ======== =============
:math:`q(z | x_tn)`   posterior of row n of task t                ``z``    (T, N, D)
===================== =========================================== ======== =============

Where ``z`` is shared, the sources of a row are :math:`q(z | x_{tn}, D_i)`: the encoder applied to
the row's counterpart in task i (:mod:`pyro_vmtl.data.counterparts`).
"""

from __future__ import annotations

import pyro
from pyro import poutine
from torch import nn

from pyro_vmtl.data.plates import subsample_tasks
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.guides.mean_field import MeanFieldNormal
from pyro_vmtl.guides.paper.amortized import AmortizedNormal
from pyro_vmtl.sharing.sources import CellSources

__all__ = ["EncodedNormal"]


class EncodedNormal(nn.Module):
    """An encoder as guide of ``z``, next to a guide of the other sites.

    Parameters
    ----------
    encoder
        Computes the posterior of inputs (..., F), such as :class:`~pyro_vmtl.guides.LinearEncoder`.
    others
        Guide of the other sites, such as :class:`~pyro_vmtl.guides.MeanFieldNormal`.

    See Also
    --------
    pyro_vmtl.attend : Compute the counterparts of rows, which sharing ``z`` needs.

    Examples
    --------
    >>> from pyro_vmtl import trace_guide_and_model
    >>> from pyro_vmtl.guides import LinearEncoder
    >>> guide = EncodedNormal(LinearEncoder(2, 3), MeanFieldNormal({"w": (4,)}, num_tasks=3))
    >>> [*poutine.trace(guide).get_trace(data).stochastic_nodes]
    ['task', 'w', 'data', 'z']
    """

    fixed_graph = True

    def __init__(self, encoder: nn.Module, others: MeanFieldNormal | AmortizedNormal) -> None:
        super().__init__()
        self.encoder = encoder
        self.others = others

    def forward(self, data: TaskData) -> None:
        """Sample all sites."""
        if isinstance(self.others, MeanFieldNormal):
            self.others.draw_common()
        with pyro.plate("task", data.num_tasks, dim=-2):
            self.others.draw()
            rows = subsample_tasks(data)
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=rows.mask):
                infer = {"sources": lambda: self._sources(rows)}
                pyro.sample("z", self.encoder(rows.x), infer=infer)

    def _sources(self, data: TaskData) -> CellSources | None:
        """Encode the counterparts of training rows; rows to predict have none."""
        if getattr(self.encoder, "num_tasks", None) is not None:
            raise ValueError(
                "Site 'z' is shared, but every task has an encoder of its own, whose "
                "representations cannot be compared. Use one encoder, or do not share 'z'."
            )
        if data.attended is None:
            if self.training and data.y is not None:
                raise ValueError(
                    "Site 'z' is shared, but the rows have no counterparts in the other tasks. "
                    "Fit with `attend(data)`."
                )
            return None
        x, present = data.attended.of(data.row)
        return CellSources(self.encoder(x), present)
