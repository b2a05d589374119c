"""Names of the dimensions of sites: plates, features and classes, or the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from pyro_vmtl.analysis.export.labels import Labels, Variable
from pyro_vmtl.data.plates import DATA_PLATE, TASK_PLATE

__all__ = ["DATA_PLATE", "DRAWS", "SiteDims", "plate_name"]

DRAWS = "_draws"
"""Name of the plate over draws."""


class SiteDims:
    """Convert values of sites to arrays with named dimensions, as ArviZ has them.

    ``dims`` are the user's own names by site, of all its dimensions or of those that are no plates.
    """

    def __init__(
        self,
        labels: Labels,
        dims: Mapping[str, Sequence[str]] | None = None,
        *,
        representations: bool = False,
    ) -> None:
        self.labels = labels
        self.dims = dict(dims or {})
        self.representations = representations

    def __call__(
        self,
        name: str,
        site: Any,
        value: Tensor,
        *,
        event_dim: int | None = None,
        drawn: bool = True,
    ) -> Variable:
        """Name the dimensions of a value of a site traced in a plate over draws; remove padding.

        The value may also be other numbers with the plates of the site, and ``event_dim``
        dimensions to their right. Unless ``drawn``, the first draw stands for all.
        """
        frames = {f.dim: f for f in site["cond_indep_stack"] if f.vectorized}
        draws = min(frames)
        size = frames.pop(draws).size
        event = _event_dim(site, value, draws, size) if event_dim is None else event_dim
        batch = value.ndim - event
        value = value.reshape((1,) * (-draws - batch) + tuple(value.shape))
        shape = list(value.shape)
        for dim, frame in frames.items():
            shape[dim - draws] = frame.size
        shape[0] = size if drawn else 1
        plates = {
            i: plate_name(name, frames.get(draws + i), i)
            for i in range(1, -draws)
            if draws + i in frames or shape[i] > 1
        }
        value = value.expand(shape).reshape(shape[0], *(shape[i] for i in plates), *shape[-draws:])
        names = list(plates.values())
        row_plates = self._row_plates(frames)
        if row_plates is not None:
            places = [1 + names.index(plate) for plate in row_plates]
            value = self.labels.of_rows(value.movedim(places, (1, 2)))
            names = ["row", *(plate for plate in names if plate not in row_plates)]
        names = self.names(name, names, shape[-draws:], of_rows=row_plates is not None)
        array = value.detach().cpu().numpy()
        array = array.astype(np.int8) if array.dtype == bool else array  # for NetCDF
        return Variable(("draw", *names), array) if drawn else Variable(tuple(names), array[0])

    def _row_plates(self, frames: Mapping[int, Any]) -> tuple[str, str] | None:
        """Return the names of the plates over tasks and padded rows, if the site has both."""
        rows = self.labels.rows
        sizes = {frame.name: frame.size for frame in frames.values()}
        if rows is None or sizes.pop(TASK_PLATE, None) != rows.num_tasks:
            return None
        fitting = [name for name, size in sizes.items() if size == rows.num_rows]
        if DATA_PLATE in fitting or len(fitting) == 1:
            return TASK_PLATE, DATA_PLATE if DATA_PLATE in fitting else fitting[0]
        return None

    def names(
        self, name: str, plates: list[str], event: Sequence[int], *, of_rows: bool = False
    ) -> list[str]:
        """Return names of the plates and of the event, the user's own where there are any."""
        names, rows = [f"{name}_dim_{i}" for i in range(len(event))], self.labels.rows
        if rows is not None and event and not of_rows:
            if event[-1] == rows.num_features and not self.representations:
                names[-1] = "feature"
            place = -2 if len(event) > 1 else -1
            by_class = rows.classes is not None and event[place] == rows.num_classes
            if by_class and names[place] != "feature":
                names[place] = "class"
        own = self.dims.get(name)
        if own is None:
            return [*plates, *names]
        own = [own] if isinstance(own, str) else list(own)
        if len(own) == len(plates) + len(names):
            return own
        if len(own) == len(names):
            return [*plates, *own]
        raise ValueError(
            f"dims[{name!r}] is {own}, expected {len(plates) + len(names)} names, for {plates} "
            f"and {len(names)} more, or {len(names)}."
        )


def plate_name(site: str, frame: Any, place: int) -> str:
    """Return the name of a plate, or one for a batch dimension without a plate."""
    if frame is None:
        return f"{site}_plate_{place}"
    if frame.size != frame.full_size:
        raise ValueError(
            f"Plate {frame.name!r} of site {site!r} has {frame.size} of its {frame.full_size} "
            "places, drawn anew at every run, expected all. Run the programs without "
            "subsampling: pass `subsample_size=None` to the plate."
        )
    return str(frame.name)


def _event_dim(site: Any, value: Tensor, draws: int, size: int) -> int:
    """Return the number of dimensions to the right of the plates."""
    if not site["infer"].get("_deterministic"):
        return len(site["fn"].event_shape)
    # a deterministic site does not know its plates; draws are leftmost
    depends = value.ndim >= -draws and value.shape[0] == size
    return value.ndim + draws if depends else 0
