"""Names for the dimensions of a site: those of its plates, and what its own are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from pyro_vmtl.analysis.export.labels import Labels, Variable
from pyro_vmtl.data.plates import DATA_PLATE, TASK_PLATE

__all__ = ["DATA_PLATE", "DRAWS", "SiteDims"]

DRAWS = "_draws"
"""Name of the plate over draws."""


class SiteDims:
    """Lays values of sites out, as ArviZ has them.

    Parameters
    ----------
    labels
        What is known of the dimensions.
    dims
        The user's own names: for each site those of its dimensions, all of them or those to the
        right of its plates.
    representations
        Are the features of coefficients latent?
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
        """Name the dimensions of a value, and take padding out.

        Parameters
        ----------
        name
            Name of the site.
        site
            The site as traced in a plate over draws.
        value
            Its value, or other numbers with the dimensions of its plates.
        event_dim
            Number of dimensions to the right of the plates; by default those of the site.
        drawn
            Is there one for each draw? Then the first dimension is that of draws.
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
        of_event = tuple(shape[-draws:])
        plates = [self._plate(name, frames.get(draws + i), i) for i in range(1, -draws)]
        kept = [i for i, plate in enumerate(plates, 1) if draws + i in frames or shape[i] > 1]
        value = value.expand(shape).reshape(shape[0], *(shape[i] for i in kept), *of_event)
        names = [plates[i - 1] for i in kept]
        of_rows = self._row_plates(frames)
        if of_rows is not None:
            places = [1 + names.index(plate) for plate in of_rows]
            value = self.labels.of_rows(value.movedim(places, (1, 2)))
            names = ["row", *(plate for plate in names if plate not in of_rows)]
        event_names = self._event(name, of_event, of_rows=of_rows is not None)
        names = self._own(name, names, event_names)
        array = value.detach().cpu().numpy()
        array = array.astype(np.int8) if array.dtype == bool else array
        return Variable(("draw", *names), array) if drawn else Variable(tuple(names), array[0])

    def _plate(self, name: str, frame: Any, place: int) -> str:
        if frame is None:  # numbers side by side that no plate declares
            return f"{name}_plate_{place}"
        if frame.size != frame.full_size:
            raise ValueError(
                f"Plate {frame.name!r} of site {name!r} has {frame.size} of its {frame.full_size} "
                "places, drawn anew at every run, expected all. Run the programs without "
                "subsampling: pass `subsample_size=None` to the plate."
            )
        return str(frame.name)

    def _row_plates(self, frames: Mapping[int, Any]) -> tuple[str, str] | None:
        """Find the plates over tasks and rows, where rows are laid out by tasks."""
        rows = self.labels.rows
        sizes = {frame.name: frame.size for frame in frames.values()}
        if rows is None or sizes.pop(TASK_PLATE, None) != rows.num_tasks:
            return None
        fitting = [name for name, size in sizes.items() if size == rows.num_rows]
        if DATA_PLATE in fitting or len(fitting) == 1:
            return TASK_PLATE, DATA_PLATE if DATA_PLATE in fitting else fitting[0]
        return None

    def _event(self, name: str, shape: tuple[int, ...], *, of_rows: bool) -> list[str]:
        names, rows = [f"{name}_dim_{i}" for i in range(len(shape))], self.labels.rows
        if rows is None or of_rows or not shape:
            return names
        if shape[-1] == rows.num_features and not self.representations:
            names[-1] = "feature"
        place = -2 if len(shape) > 1 else -1
        if rows.classes is not None and shape[place] == rows.num_classes:
            names[place] = "class" if names[place] != "feature" else "feature"
        return names

    def _own(self, name: str, plates: list[str], event: list[str]) -> list[str]:
        """Take the user's names where there are any."""
        own = self.dims.get(name)
        if own is None:
            return [*plates, *event]
        own = [own] if isinstance(own, str) else list(own)
        if len(own) == len(plates) + len(event):
            return own
        if len(own) == len(event):
            return [*plates, *own]
        raise ValueError(
            f"dims[{name!r}] is {own}, expected {len(plates) + len(event)} names, for {plates} "
            f"and {len(event)} more, or {len(event)}."
        )


def _event_dim(site: Any, value: Tensor, draws: int, size: int) -> int:
    """Number of dimensions to the right of the plates."""
    if not site["infer"].get("_deterministic"):
        return len(site["fn"].event_shape)
    # such a site does not know its plates; draws are on the left of all
    depends = value.ndim >= -draws and value.shape[0] == size
    return value.ndim + draws if depends else 0
