"""Data sets in files that are not part of the project."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from benchmarks.datasets.data_set import DataSet

__all__ = ["VARIABLE", "DataSetOnDisk", "data_file"]

VARIABLE = "PYRO_VMTL_DATA"
"""Environment variable that names the folder with the files."""


def data_file(name: str) -> Path:
    """Return the path of an existing file below ``PYRO_VMTL_DATA``."""
    path = Path(os.environ.get(VARIABLE, "")) / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing. Set {VARIABLE} to the folder that holds {name}; the data set's "
            "`provenance` says where it comes from."
        )
    return path


class DataSetOnDisk(DataSet):
    """A data set in files below the folder ``PYRO_VMTL_DATA``.

    Attributes
    ----------
    files
        SHA-256 of each file.
    """

    files: ClassVar[Mapping[str, str]]

    def check(self) -> None:
        """Check that the files exist and have the right checksums.

        Raises
        ------
        FileNotFoundError
            If the variable is not set, or a file is missing.
        ValueError
            If a file has another checksum.
        """
        source = f"Source: {self.provenance}"
        if not os.environ.get(VARIABLE):
            raise FileNotFoundError(
                f"Data set {self.name!r} is not embedded, and {VARIABLE} is not set. Set it to a "
                f"folder that holds {', '.join(self.files)}. {source}"
            )
        for name, expected in self.files.items():
            path = Path(os.environ[VARIABLE]) / name
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} is missing, which data set {self.name!r} needs. Put it there, or set "
                    f"{VARIABLE} to the folder that holds {name}. {source}"
                )
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != expected:
                raise ValueError(
                    f"{path} has SHA-256 {found}, expected {expected}: it is damaged, or another "
                    f"file. Get it anew. {source}"
                )
