"""The user's table files: CSV, Parquet and NumPy archives in, CSV and Parquet out.

All kinds of files give the same table: columns are as :func:`~pyro_vmtl.cli.kinds.plain` has them.
No file can run code: archives with pickled objects are refused.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from pyro_vmtl.cli.csv_text import read_csv_text
from pyro_vmtl.cli.errors import InputError, did_you_mean, listed
from pyro_vmtl.cli.kinds import plain
from pyro_vmtl.data.atomic_files import atomic_write

__all__ = ["read_table", "write_table"]


def read_table(path: Path) -> pd.DataFrame:
    r"""Read a table.

    Parameters
    ----------
    path
        A .csv, .tsv, .csv.gz, .parquet or .npz file. An .npz has ``X`` (rows, F), whose columns
        become x0, x1, ... or those that its text array ``features`` (F,) names, and any other
        arrays (rows,), such as ``y`` and ``tasks``.

    Returns
    -------
    pandas.DataFrame
        (rows, columns), at least one row, names that differ, rows counted from 0. Text in a CSV
        that is a number becomes one, except in columns where a number is padded with zeros such as
        ``007``, or too long for 64 bits: these stay text, as they are written.

    Raises
    ------
    InputError
        If there is no such file, or it is not what its name says. The message names the file and
        the way out.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "data.csv"
    ...     _ = path.write_text("school,score\n007,1.5\n")
    ...     read_table(path)
      school  score
    0    007    1.5
    """
    reader = next((r for suffix, r in READERS.items() if path.name.lower().endswith(suffix)), None)
    try:
        if not path.exists():
            raise InputError(_missing(path))
        if not path.is_file():
            files = [file.name for file in _files(path) if file.name.endswith(tuple(READERS))]
            inside = f" Files in it: {listed(sorted(files))}." if files else ""
            raise InputError(f"{path} is a folder, expected a table file.{inside}")
        if reader is None:
            raise InputError(
                f"{path} is of an unknown kind, expected one of {', '.join(READERS)}. "
                "Save it as CSV with commas and the encoding UTF-8."
            )
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}). Check its permissions."
        ) from None
    if not data:
        raise InputError(f"{path} is empty (0 bytes), expected a header and rows.")
    return reader(data, str(path))


def write_table(table: pd.DataFrame, path: Path, *, overwrite: bool = False) -> None:
    """Write a table, whole or not at all.

    Parameters
    ----------
    table
        What to write; its index is left out.
    path
        A .csv or .parquet file. Folders that it needs are made.
    overwrite
        May an earlier file be there?

    Raises
    ------
    InputError
        If the file is there already, is of another kind, or cannot be written.
    """
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"{path} is of an unknown kind, expected .csv or .parquet to write to.")
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder, expected a file to write to.")
        if path.exists() and not overwrite:
            raise InputError(
                f"{path} exists already. Choose another file with --out, or pass --overwrite."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as scratch:
            if path.suffix.lower() == ".csv":
                table.to_csv(scratch, index=False)
            else:
                table.to_parquet(scratch, index=False)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}). Choose another file with --out."
        ) from None


def _missing(path: Path) -> str:
    if not path.parent.is_dir():
        return f"{path} does not exist, nor does the folder {path.parent}. Check the path."
    files = sorted(file.name for file in _files(path.parent) if file.is_file())
    return f"{path} does not exist. {did_you_mean(path.name, files)}"


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if not file.name.startswith(".")]


def _read_csv(data: bytes, name: str) -> pd.DataFrame:
    return read_csv_text(data, name)


def _read_tsv(data: bytes, name: str) -> pd.DataFrame:
    return read_csv_text(data, name, delimiter="\t")


def _read_csv_gz(data: bytes, name: str) -> pd.DataFrame:
    try:
        text = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{name} is not a whole gzip file ({error}). Compress it again, or give the plain .csv."
        ) from None
    return read_csv_text(text, name)


def _read_parquet(data: bytes, name: str) -> pd.DataFrame:
    try:
        # nullable types: whole numbers would become floats, and be rounded, where some are missing
        table = pd.read_parquet(io.BytesIO(data), dtype_backend="numpy_nullable")
        if any(level is not None for level in table.index.names):
            table = table.reset_index()  # pandas stores a named index, a column to the user
        columns = [(str(column), plain(table.iloc[:, i])) for i, column in enumerate(table)]
    except Exception as error:
        raise InputError(
            f"{name} is not a whole Parquet file ({_first_line(error)}). Write it again."
        ) from None
    return _checked(columns, name)


def _read_npz(data: bytes, name: str) -> pd.DataFrame:
    try:
        if not data.startswith(b"PK"):
            raise ValueError("it is no zip file")
        archive = np.load(io.BytesIO(data), allow_pickle=False)
        arrays = {key: archive[key] for key in archive.files}
    except Exception as error:
        if "allow_pickle" in str(error):
            raise InputError(
                f"{name} has an array of Python objects, which are not read, as they can run code. "
                "Save numbers, or text by `array.astype(str)`."
            ) from None
        raise InputError(
            f"{name} is not a whole .npz archive ({_first_line(error)}). "
            "Write it with `numpy.savez(file, X=..., y=..., tasks=...)`."
        ) from None
    if "X" not in arrays or arrays["X"].ndim != 2:
        found = f"shape {arrays['X'].shape}" if "X" in arrays else f"{listed(arrays)} and no X"
        raise InputError(f"{name} has {found}, expected an array X of shape (rows, features).")
    X = arrays.pop("X")
    names = arrays.pop("features", np.array([f"x{i}" for i in range(X.shape[1])], dtype=str))
    if names.shape != X.shape[1:] or names.dtype.kind != "U":
        raise InputError(
            f"{name}: features is of type {names.dtype} and shape {names.shape}, expected text of "
            f"shape {X.shape[1:]}, a name for every column of X."
        )
    for key, array in arrays.items():
        if array.shape != X.shape[:1]:
            raise InputError(
                f"{name}: {key} has shape {array.shape}, expected {X.shape[:1]}: a value for each "
                f"of the {len(X)} rows of X."
            )
    columns = list(zip(names.tolist(), X.T, strict=True)) + list(arrays.items())
    return _checked([(key, _from_array(array, key, name)) for key, array in columns], name)


def _from_array(array: np.ndarray, key: str, name: str) -> pd.Series:
    if array.dtype.kind not in "biufUM":
        raise InputError(
            f"{name}: {key} is of type {array.dtype}, expected numbers, true and false, or text."
        )
    if array.dtype.kind == "U":  # such arrays have no other way to leave an entry out
        return pd.Series([entry or None for entry in array.tolist()], dtype=object)
    return pd.Series(array.astype(array.dtype.newbyteorder("=")))


def _checked(columns: list[tuple[str, pd.Series]], name: str) -> pd.DataFrame:
    """Put columns together, if they have names that differ and at least one row."""
    names = [key for key, _ in columns]
    twice = [key for key in dict.fromkeys(names) if names.count(key) > 1]
    if twice:
        raise InputError(
            f"{name} has the columns {listed(twice)} more than once, expected every column once. "
            "Rename or drop one of them."
        )
    if not columns or not len(columns[0][1]):
        raise InputError(f"{name} has no {'rows' if columns else 'columns'}, expected a table.")
    return pd.DataFrame({key: plain(column) for key, column in columns})


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


READERS: dict[str, Callable[[bytes, str], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".csv.gz": _read_csv_gz,
    ".parquet": _read_parquet,
    ".npz": _read_npz,
}
