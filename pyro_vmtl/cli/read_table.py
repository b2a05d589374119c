"""Table files of the user: CSV, Parquet and NumPy archives.

All formats give the same table, with the types of :mod:`pyro_vmtl.cli.column_types`. No file can
run code: archives with pickled objects are refused.
"""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pyro_vmtl.cli.column_types import from_text, normalize
from pyro_vmtl.cli.user_errors import InputError, did_you_mean, quote_names
from pyro_vmtl.data.limits import LimitError, check_limit

__all__ = ["read_table"]

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars (|)"}


def read_table(path: Path, missing: Sequence[str] = ()) -> pd.DataFrame:
    """Read a .csv, .tsv, .csv.gz, .parquet or .npz file: at least one row, and distinct names.

    Text is UTF-8; spaces around column names and empty lines at the end are ignored. An .npz has
    ``X`` (rows, F), whose columns become x0, x1, ... or those that its text array ``features`` (F,)
    names, and any other arrays (rows,), such as ``y`` and ``tasks``. Empty entries are missing
    values, and so is text that is in ``missing``.
    """
    reader = next((r for suffix, r in READERS.items() if path.name.lower().endswith(suffix)), None)
    try:
        if not path.exists():
            raise InputError(_not_found(path))
        if not path.is_file():
            tables = [name for name in _file_names(path) if name.endswith(tuple(READERS))]
            inside = f" Files in it: {quote_names(tables)}." if tables else ""
            raise InputError(f"{path} is a folder, expected a table file.{inside}")
        if reader is None:
            raise InputError(
                f"{path} has an unknown format, expected one of {', '.join(READERS)}. "
                "Save it as CSV with commas and the encoding UTF-8."
            )
        check_limit("TABLE_BYTES", path.stat().st_size, path)
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}). Check its permissions."
        ) from None
    if not data:
        raise InputError(f"{path} is empty (0 bytes), expected a header and rows.")
    return reader(data, str(path), missing)


def _not_found(path: Path) -> str:
    if not path.parent.is_dir():
        return f"{path} does not exist, nor does the folder {path.parent}. Check the path."
    return f"{path} does not exist. {did_you_mean(path.name, _file_names(path.parent))}"


def _file_names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("[!.]*") if file.is_file())


def _read_csv(
    data: bytes, name: str, missing: Sequence[str] = (), delimiter: str = ","
) -> pd.DataFrame:
    """Read delimited text strictly; ``pandas.read_csv`` renames repeated columns and pads rows."""
    records: list[list[str]] = []
    check_limit("CELLS", data.count(delimiter.encode()) + data.count(b"\n"), name)
    try:
        _check_encoding(data, name)
        text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")
        records += csv.reader(text, delimiter=delimiter, skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise InputError(
            f"{name}: row {len(records) + 1} cannot be read ({error}). Look for a double quote "
            'that is not closed, or stands inside an entry; there it is written twice: "".'
        ) from None
    while len(records) > 1 and "".join(records[-1]).strip() == "" and len(records[-1]) <= 1:
        records.pop()  # empty lines at the end
    header = [column.strip() for column in records[0]]
    check_limit("COLUMNS", len(header), name)
    if not header:
        raise InputError(f"{name}: row 1 is empty, expected the header there. Delete empty rows.")
    if len(header) == 1:
        _check_delimiter(records, name, delimiter)
    if "" in header:
        raise InputError(
            f"{name}: column {header.index('') + 1} of {len(header)} has no name in the header. "
            "Name it, or delete it if it only counts the rows."
        )
    for number, record in enumerate(records, start=1):
        if len(record) != len(header):
            found = f"{len(record) or 'no'} {'entry' if len(record) == 1 else 'entries'}"
            raise InputError(
                f"{name}: row {number} has {found}, expected {len(header)} as in the header. "
                "Put entries that hold a delimiter in double quotes, and delete empty rows."
            )
    _check_names(header, name)
    if len(records) == 1:
        raise InputError(f"{name} has a header and no rows, expected at least one row.")
    empty, columns = {"", *missing}, zip(*records[1:], strict=True)
    known = ([None if e.strip() in empty else e for e in column] for column in columns)
    parsed = [from_text(pd.Series(entries, dtype="string")) for entries in known]
    return pd.DataFrame(dict(zip(header, parsed, strict=True)))


def _check_encoding(data: bytes, name: str) -> None:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{name} is not UTF-8 text: line {line} has the byte 0x{data[error.start]:02x}. "
            "Save it as CSV with the encoding UTF-8."
        ) from None
    if "\0" in text:
        raise InputError(
            f"{name} is not UTF-8 text: it has NUL bytes, as binary files and UTF-16 have. "
            "Save it as CSV with the encoding UTF-8."
        )
    if not text.strip():
        raise InputError(f"{name} is empty, expected a header and rows.")


def _check_delimiter(records: list[list[str]], name: str, delimiter: str) -> None:
    """Check whether a table has a single column because it has another delimiter."""
    text = " ".join(entry for record in records[:5] for entry in record)
    others = [other for other in DELIMITERS if other != delimiter and other in text]
    if not others:
        return
    found = max(others, key=text.count)
    way_out = {"\t": "name it .tsv", ",": "name it .csv"}.get(found, "save it with commas, as .csv")
    raise InputError(
        f"{name} has one column, {records[0][0]!r}, expected {DELIMITERS[delimiter]} between "
        f"columns and found {DELIMITERS[found]}: {way_out}."
    )


def _read_csv_gz(data: bytes, name: str, missing: Sequence[str]) -> pd.DataFrame:
    text = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            while block := file.read(1 << 20):
                text += block
                check_limit("TABLE_BYTES", len(text), name)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{name} is not a complete gzip file ({error}). Compress it again, or give the plain "
            ".csv."
        ) from None
    return _read_csv(bytes(text), name, missing)


def _read_parquet(data: bytes, name: str, missing: Sequence[str]) -> pd.DataFrame:
    try:
        texts = _check_parquet(data, name)
        # nullable types: integers would become floats, and be rounded, where some are missing;
        # texts as a dictionary: in a few bytes a file can repeat one until the memory is full
        table = pd.read_parquet(
            io.BytesIO(data), dtype_backend="numpy_nullable", read_dictionary=texts
        )
        for _, held in table.select_dtypes("category").items():
            lengths = np.append(held.cat.categories.str.len(), 0)  # of a missing one, code -1
            check_limit("TABLE_BYTES", int(lengths[held.cat.codes].sum()), name)
        if any(level is not None for level in table.index.names):
            table = table.reset_index()  # pandas stores a named index, a column to the user
        columns = [(str(column), normalize(table.iloc[:, i])) for i, column in enumerate(table)]
        for _, column in columns:
            column.tolist()  # raises if text is not UTF-8
    except LimitError:
        raise
    except Exception as error:
        raise InputError(
            f"{name} is not a complete Parquet file ({_first_line(error)}). Write it again."
        ) from None
    return _from_columns(columns, name, missing)


def _check_parquet(data: bytes, name: str) -> list[str]:
    """Check the size of a table before it is read, and return the names of its text columns."""
    with pq.ParquetFile(io.BytesIO(data)) as file:
        found, schema = file.metadata, file.schema_arrow
    check_limit("COLUMNS", found.num_columns, name)
    check_limit("CELLS", found.num_rows * found.num_columns, name)
    sizes = (found.row_group(i).total_byte_size for i in range(found.num_row_groups))
    check_limit("TABLE_BYTES", sum(sizes), name)
    nested = [field.name for field in schema if pa.types.is_nested(field.type)]
    if nested:
        raise ValueError(f"it has lists in {quote_names(nested)}, which are not read")
    return [field.name for field in schema if str(field.type) in ("string", "large_string")]


def _read_npz(data: bytes, name: str, missing: Sequence[str]) -> pd.DataFrame:
    try:
        if not data.startswith(b"PK"):
            raise ValueError("it is no zip file")
        with zipfile.ZipFile(io.BytesIO(data)) as members:
            unpacked = sum(member.file_size for member in members.infolist())
        check_limit("TABLE_BYTES", unpacked, name)
        archive = np.load(io.BytesIO(data), allow_pickle=False)
        arrays: dict[str, Any] = {key: archive[key] for key in archive.files}
    except LimitError:
        raise
    except Exception as error:
        if "allow_pickle" in str(error):
            raise InputError(
                f"{name} has an array of Python objects, which are not read, as they can run code. "
                "Save numbers, or text by `array.astype(str)`."
            ) from None
        raise InputError(
            f"{name} is not a complete .npz archive ({_first_line(error)}). "
            "Write it with `numpy.savez(file, X=..., y=..., tasks=...)`."
        ) from None
    found = ", ".join(f"{key} {array.dtype} {array.shape}" for key, array in arrays.items())
    X = np.atleast_1d(arrays.pop("X", np.empty(0)))
    names = np.atleast_1d(arrays.pop("features", [f"x{i}" for i in range(X.shape[-1])]))
    columns = list(zip(names.tolist(), X.T, strict=False)) + list(arrays.items())
    if (
        X.ndim != 2
        or names.shape != X.shape[1:]
        or any(array.shape != X.shape[:1] for array in arrays.values())
        or any(array.dtype.kind not in "biufUM" for _, array in columns)
    ):
        raise InputError(
            f"{name} has {found}, expected numbers, booleans or text: X of shape (rows, features), "
            "and others of shape (rows,), but for features, the names of the columns of X."
        )
    check_limit("CELLS", X.size, name)
    for key, array in columns:
        _check_text(str(key), array.tolist() if array.dtype.kind == "U" else [], name)
    return _from_columns([(str(key), _from_array(array)) for key, array in columns], name, missing)


def _from_array(array: np.ndarray) -> pd.Series:
    if array.dtype.kind == "U":  # such arrays have no other way to omit an entry
        return pd.Series([entry or None for entry in array.tolist()], dtype="string")
    return pd.Series(array.astype(array.dtype.newbyteorder("=")))


def _from_columns(
    columns: list[tuple[str, pd.Series]], name: str, missing: Sequence[str]
) -> pd.DataFrame:
    check_limit("COLUMNS", len(columns), name)
    _check_names([key for key, _ in columns], name)
    if not columns or not len(columns[0][1]):
        raise InputError(f"{name} has no {'rows' if columns else 'columns'}, expected a table.")
    table = pd.DataFrame({key: normalize(column) for key, column in columns})
    for key in table.columns[table.dtypes == "string"].tolist():
        table[key] = table[key].mask(table[key].isin(["", *missing]))
        _check_text(key, table[key].dropna().unique(), name)
    return table


def _check_text(column: str, entries: Iterable[str], name: str) -> None:
    """Check that text can be written to every file: it has no NUL, and is Unicode."""
    for text in (column, *entries):
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise InputError(f"{name} has NUL or half a character in column {column!r}. Remove it.")


def _check_names(names: list[str], name: str) -> None:
    repeated = [column for column, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(
            f"{name} has the columns {quote_names(repeated)} more than once, expected distinct "
            "names. Rename or delete one of them."
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


READERS: dict[str, Callable[[bytes, str, Sequence[str]], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".tsv": partial(_read_csv, delimiter="\t"),
    ".csv.gz": _read_csv_gz,
    ".parquet": _read_parquet,
    ".npz": _read_npz,
}
