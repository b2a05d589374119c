"""What an HDF5 file may hold to be read: numbers and texts of its own, of a limited size.

HDF5 can lead elsewhere, by links and by data in other files, which whoever writes a file can
choose. It can also declare arrays of any size in a few bytes, and refer to one text many times.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py

from pyro_vmtl.data.limits import check_limit

__all__ = ["check_hdf5"]

MAX_OBJECTS = 10_000
"""Groups and variables in a file."""

BLOCK = 1_000_000_000
"""Bytes of text that are read at once, at most."""


def check_hdf5(path: Path) -> None:
    """Raise an error if an HDF5 file leads elsewhere, or unpacks to more than is allowed."""
    size = path.stat().st_size
    check_limit("RUN_BYTES", size, path)
    with h5py.File(path, "r") as file:
        groups, seen, total = [file["/"]], {h5py.h5o.get_info(file.id).addr}, 0
        while groups:
            group = groups.pop()
            total += _attribute_bytes(group, size)
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"{group.name}/{name} is a link, which is not followed")
                found = group[name]
                address = h5py.h5o.get_info(found.id).addr
                if address in seen or len(seen) > MAX_OBJECTS:
                    raise ValueError(f"{found.name} is there twice, or has too many beside it")
                seen.add(address)
                if isinstance(found, h5py.Group):
                    groups.append(found)
                else:
                    total += _variable_bytes(found, size, path)
                check_limit("RUN_BYTES", total, path)


def _variable_bytes(variable: Any, file_size: int, path: Path) -> int:
    """Return the memory that a variable needs; what is no variable raises an error."""
    if not isinstance(variable, h5py.Dataset) or variable.external or variable.is_virtual:
        raise ValueError(f"{variable.name} has no numbers of its own in the file")
    if variable.size is None or variable.dtype.kind not in "biufSVO":
        raise ValueError(f"{variable.name} has values of type {variable.dtype}, expected numbers")
    total = variable.size * max(variable.dtype.itemsize, 8)  # codes may be decoded to float64
    check_limit("RUN_BYTES", total, path)
    if h5py.check_string_dtype(variable.dtype) is not None and variable.dtype.kind == "O":
        each = file_size * math.prod(variable.shape[1:])  # every entry may be all of the file
        step = max(1, BLOCK // each)
        check_limit("RUN_BYTES", each, path)
        for start in range(0, len(variable) if variable.shape else 0, step):
            total += sum(map(len, variable[start : start + step].flat))
            check_limit("RUN_BYTES", total, path)
    return total + _attribute_bytes(variable, file_size)


def _attribute_bytes(owner: Any, file_size: int) -> int:
    """Return the memory that attributes need."""
    total = 0
    for name in owner.attrs:
        attribute = owner.attrs.get_id(name)
        if math.prod(attribute.shape or ()) * file_size > BLOCK:
            raise ValueError(f"{owner.name} has a long attribute {name!r}")
        value = owner.attrs[name]
        total += len(value) if isinstance(value, str) else getattr(value, "nbytes", 0)
    return total
