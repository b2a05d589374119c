"""DataTrees in files: written whole or not at all, and read into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pyro_vmtl.data.atomic_files import atomic_write

__all__ = ["read_netcdf", "write_netcdf"]

LEVEL = 4
"""Of compression: next to the smallest, in a fraction of the time."""


def write_netcdf(tree: xr.DataTree, path: str | Path) -> None:
    """Write a tree to a NetCDF file, compressed. An earlier one stays until it is complete.

    Parameters
    ----------
    tree
        Such as :func:`~pyro_vmtl.analysis.to_datatree` makes.
    path
        The file to write.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> tree = xr.DataTree.from_dict({"/posterior": xr.Dataset({"w": ("task", [1.0, 2.0])})})
    >>> with TemporaryDirectory() as folder:
    ...     write_netcdf(tree, Path(folder) / "tree.nc")
    ...     read_netcdf(Path(folder) / "tree.nc").identical(tree)
    True
    """
    path = Path(path)
    encoding: dict[str, Any] = {}
    for node in tree.subtree:
        numbers = {
            name: {"zlib": True, "complevel": LEVEL, "shuffle": True}
            for name, values in node.data_vars.items()
            if np.issubdtype(values.dtype, np.number) and values.ndim
        }
        if numbers:
            encoding[node.path] = numbers
    with atomic_write(path) as scratch:
        tree.to_netcdf(scratch, engine="h5netcdf", encoding=encoding)


def read_netcdf(path: str | Path) -> xr.DataTree:
    """Read a tree from a NetCDF file into memory, and close the file.

    Parameters
    ----------
    path
        What :func:`write_netcdf`, or ArviZ, wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no NetCDF file, or a part of one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}, expected what `write_netcdf` wrote.")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            tree.load()
            return tree
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be read as a DataTree ({error}). It is broken or of another kind: "
            "export the fit again, or take an unchanged copy."
        ) from error
