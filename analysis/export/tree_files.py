"""DataTrees in NetCDF files, written atomically and read into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from pyro_vmtl.analysis.export.hdf5_checks import check_hdf5
from pyro_vmtl.data.atomic_files import atomic_write

__all__ = ["read_netcdf", "write_netcdf"]

LEVEL = 4
"""Compression level: nearly the smallest files, in a fraction of the time."""

DAMAGED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Errors raised while reading files whose content was changed."""


def write_netcdf(tree: xr.DataTree, path: str | Path) -> None:
    """Write a tree to a compressed NetCDF file, atomically.

    An earlier file at the path stays until the new one is complete.

    Parameters
    ----------
    tree
        A tree such as that of :func:`~pyro_vmtl.analysis.to_datatree`.
    path
        The file to write.

    See Also
    --------
    read_netcdf : Read the file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_netcdf(tree, f"{folder}/fit.nc")
    ...     Path(f"{folder}/fit.nc").exists()
    True
    """
    compressed = {"zlib": True, "complevel": LEVEL, "shuffle": True}
    encoding = {
        node.path: {
            name: compressed
            for name, values in node.data_vars.items()
            if np.issubdtype(values.dtype, np.number) and values.ndim
        }
        for node in tree.subtree
    }
    with atomic_write(Path(path)) as scratch:
        tree.to_netcdf(scratch, engine="h5netcdf", encoding=encoding)


def read_netcdf(path: str | Path) -> xr.DataTree:
    """Read a tree from a NetCDF file into memory, and close the file.

    Parameters
    ----------
    path
        A file that :func:`write_netcdf`, or ArviZ, wrote.

    Raises
    ------
    ValueError
        If it is damaged, leads to other files, or unpacks to more than 1 GB (docs/safety.md).

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_netcdf(tree, f"{folder}/fit.nc")
    ...     "posterior" in read_netcdf(f"{folder}/fit.nc")
    True
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}, expected one that `write_netcdf` wrote.")
    try:
        check_hdf5(path)
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            tree.load()
            return tree
    except DAMAGED as error:
        raise ValueError(
            f"{path} cannot be read as a DataTree ({error}). It is damaged or of another format: "
            "export the fit again, or use an intact copy."
        ) from error
