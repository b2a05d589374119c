"""Files of data sets that are not part of the project."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["VARIABLE", "check_files", "data_file"]

VARIABLE = "PYRO_VMTL_DATA"
"""Environment variable that names the folder with the files."""


def data_file(name: str) -> Path:
    """Path of a file below ``PYRO_VMTL_DATA``, which must be there."""
    path = Path(os.environ.get(VARIABLE, "")) / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing. Set {VARIABLE} to the folder that holds {name}; the data set's "
            "`provenance` says where it comes from."
        )
    return path


def check_files(files: Mapping[str, str], *, needed_by: str, provenance: str) -> None:
    """Check that files are there and are the right ones.

    Parameters
    ----------
    files
        For each file below ``PYRO_VMTL_DATA`` its SHA-256.
    needed_by
        Name of the data set, for messages.
    provenance
        Where to get it, for messages.

    Raises
    ------
    FileNotFoundError
        If the variable is not set, or a file is missing.
    ValueError
        If a file has another checksum.
    """
    if not files:
        return
    if not os.environ.get(VARIABLE):
        raise FileNotFoundError(
            f"Data set {needed_by!r} is not embedded, and {VARIABLE} is not set. Set it to a "
            f"folder that holds {', '.join(files)}. Source: {provenance}"
        )
    for name, expected in files.items():
        path = Path(os.environ[VARIABLE]) / name
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing, which data set {needed_by!r} needs. Put it there, or set "
                f"{VARIABLE} to the folder that holds {name}. Source: {provenance}"
            )
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise ValueError(
                f"{path} has SHA-256 {found}, expected {expected}: it is damaged, or another file. "
                f"Get it anew. Source: {provenance}"
            )
