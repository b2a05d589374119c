"""Import the ArviZ that is installed, and draw its plots on given Axes.

On Python 3.12 and newer that is ArviZ 1.x. The last release for Python 3.11 has the same functions
in ``arviz.preview``. All other modules import ``az`` from here.
"""

import sys
from typing import Any

import xarray as xr
from matplotlib.axes import Axes

if sys.version_info >= (3, 12):
    import arviz as az
else:
    import arviz.preview as az

__all__ = ["az", "collection_on"]


def collection_on(ax: Axes, data: xr.Dataset, **aes: list[str]) -> Any:
    """Return a ``PlotCollection`` that draws every variable on the same Axes.

    Parameters
    ----------
    ax
        Axes to draw on.
    data
        What is drawn.
    **aes
        For each aesthetic the dimensions that are mapped to it.
    """
    plots = dict.fromkeys(data.data_vars, ((), ax))
    groups = {"/": xr.Dataset({"figure": ((), ax.figure)}), "/plot": xr.Dataset(plots)}
    return az.PlotCollection(data, xr.DataTree.from_dict(groups), aes=aes, backend="matplotlib")
