"""Tables of predictions: CSV or Parquet files, written completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from pyro_vmtl.cli.safe_text import write_csv
from pyro_vmtl.cli.user_errors import InputError
from pyro_vmtl.data.atomic_files import atomic_write

__all__ = ["check_table_path", "write_table"]


def check_table_path(path: Path, *, overwrite: bool) -> None:
    """Check that a table can be written to a file, before any work is done."""
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"{path} has an unknown format, expected .csv or .parquet to write to.")
    if path.is_dir():
        raise InputError(f"{path} is a folder, expected a file to write to.")
    if path.exists() and not overwrite:
        raise InputError(
            f"{path} exists already. Choose another file with --out, or pass --overwrite."
        )
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    # nothing is made there, not for a moment: it may be a run that is refused
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(
            f"{path} cannot be written: {parent} is no folder that can be written to. Choose "
            "another file with --out."
        )


def write_table(table: pd.DataFrame, path: Path, *, spreadsheet: bool = False) -> None:
    """Write a table to a .csv or .parquet file without its index, completely or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".csv":
            write_csv(table, path, spreadsheet=spreadsheet, index=False)
        else:
            with atomic_write(path) as scratch:
                table.to_parquet(scratch, index=False)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}). Choose another file with --out."
        ) from None
