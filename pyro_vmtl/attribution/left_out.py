"""What is left out in turn, single rows or whole tasks, with the user's labels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_vmtl.data.arrays import as_labels
from pyro_vmtl.data.task_data import TaskData

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["LeftOut"]


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Rows that are left out one by one, or tasks.

    ``places`` are those of the rows in the padded arrays, (L, 2), or of the tasks, (L,).
    """

    data: TaskData
    places: Tensor

    @classmethod
    def of(cls, data: TaskData, leave: str, only: Any = None) -> LeftOut:
        """Choose rows by their positions in the user's arrays, or tasks by their labels."""
        if leave == "task":
            labels = list(data.task_labels if only is None else only)
            new = [label for label in labels if label not in data.task_labels]
            if new:
                raise ValueError(f"only has task {new[0]!r}, expected one of {data.task_labels}.")
            return cls(data, torch.tensor([data.task_labels.index(label) for label in labels]))
        places = data.mask.nonzero()
        places = places[data.row[data.mask].argsort()]
        if only is None:
            return cls(data, places)
        rows = data.row[data.mask].sort().values
        wanted = torch.as_tensor(np.asarray(only, dtype=np.int64))
        index = torch.searchsorted(rows, wanted).clamp(max=len(rows) - 1)
        if (rows[index] != wanted).any():
            lack = wanted[rows[index] != wanted][0].item()
            raise ValueError(f"only has row {lack}, expected a position among the rows of the fit.")
        return cls(data, places[index])

    @property
    def is_tasks(self) -> bool:
        """Whether tasks are left out."""
        return self.places.ndim == 1

    @cached_property
    def masks(self) -> Tensor:
        """What is left out in turn, (L, T, N), True for the rows."""
        masks = torch.zeros(len(self.places), *self.data.mask.shape, dtype=torch.bool)
        masks[torch.arange(len(masks)), *self.places.reshape(len(masks), -1).T] = True
        return masks

    def sum(self, values: Tensor) -> Tensor:
        r"""Add up values of rows, (\*shape, T, N), to (L, \*shape)."""
        if self.is_tasks:
            return values.sum(-1)[..., self.places].movedim(-1, 0)
        return values[..., self.places[:, 0], self.places[:, 1]].movedim(-1, 0)

    def dataset(
        self, variables: Mapping[str, Tensor], *, tasks: Sequence[Hashable] | None, **attrs: Any
    ) -> xr.Dataset:
        """Label values whose first dimension is what is left out, the second ``tasks`` if any."""
        import xarray as xr

        own = as_labels(self.data.task_labels)
        coords: dict[str, Any] = {} if tasks is None else {"task": own}
        if self.is_tasks:
            first = "left_task"
            coords[first] = own[self.places.tolist()]
        else:
            first = "row"
            task, number = self.places.T
            coords[first] = self.data.row[task, number].numpy()
            coords["row_task"] = first, own[task.tolist()]
        content = {}
        for name, values in variables.items():
            further = [f"of_{i}" for i in range(values.ndim - 1)]
            if tasks is not None and further:
                further[0] = "task"
            content[name] = ([first, *further], values.detach().numpy())
        return xr.Dataset(content, coords, attrs)
