"""Reading the text of a CSV file, strictly: nothing is guessed, renamed or filled in.

One pass of Python's own reader gives every record, so that errors name the row that a spreadsheet
shows; pandas would rename columns that come twice and fill up rows that are too short.
"""

from __future__ import annotations

import csv
import io

import pandas as pd

from pyro_vmtl.cli.errors import InputError, listed
from pyro_vmtl.cli.kinds import from_text

__all__ = ["MISSING", "read_csv_text"]

MISSING = frozenset(
    {"", "NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "NaN", "nan", "NULL", "null", "None"}
)
"""What stands for a missing value."""

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars (|)"}


def read_csv_text(data: bytes, name: str, delimiter: str = ",") -> pd.DataFrame:
    r"""Read a table from the bytes of a text file.

    Parameters
    ----------
    data
        UTF-8 text, with or without a byte order mark. The first record is the header. Spaces after
        a delimiter and around column names do not count, nor do empty lines at the end.
    name
        The file, as errors are to name it.
    delimiter
        What stands between entries.

    Returns
    -------
    pandas.DataFrame
        (rows, columns), each column as :func:`~pyro_vmtl.cli.kinds.from_text` gives it.

    Raises
    ------
    InputError
        If it is not such a text. The message names the row: the header is row 1.

    Examples
    --------
    >>> read_csv_text(b"school, score\n007, 1.5\n011, NA\n", "data.csv")
      school  score
    0    007    1.5
    1    011    NaN
    """
    records = _records(_decoded(data, name), name, delimiter)
    header = [column.strip() for column in records[0]]
    if not header:
        raise InputError(f"{name}: row 1 is empty, expected the header there. Delete empty rows.")
    if len(header) == 1:
        _check_delimiter(records, name, delimiter)
    for number, column in enumerate(header, start=1):
        if not column:
            raise InputError(
                f"{name}: column {number} of {len(header)} has no name in the header. Name it, or "
                "delete it if it only counts the rows."
            )
    twice = [column for column in dict.fromkeys(header) if header.count(column) > 1]
    if twice:
        raise InputError(
            f"{name}: the header has {listed(twice)} more than once, expected every column once. "
            "Rename or delete one of them."
        )
    for number, record in enumerate(records[1:], start=2):
        if len(record) != len(header):
            found = f"{len(record) or 'no'} {'entry' if len(record) == 1 else 'entries'}"
            raise InputError(
                f"{name}: row {number} has {found}, expected {len(header)} as in the header. "
                "Put entries that hold a delimiter in double quotes, and delete empty rows."
            )
    if len(records) == 1:
        raise InputError(f"{name} has a header and no rows, expected at least one row.")
    columns = zip(*records[1:], strict=True)
    return pd.DataFrame(
        {
            column: from_text([None if entry.strip() in MISSING else entry for entry in entries])
            for column, entries in zip(header, columns, strict=True)
        }
    )


def _decoded(data: bytes, name: str) -> str:
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
    return text


def _records(text: str, name: str, delimiter: str) -> list[list[str]]:
    """All records, without empty lines at the end; at least one."""
    records: list[list[str]] = []
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    try:
        records.extend(reader)
    except csv.Error as error:
        raise InputError(
            f"{name}: row {len(records) + 1} cannot be read ({error}). Look for a double quote "
            'that is not closed or stands inside an entry; there it is written twice: "".'
        ) from None
    while len(records) > 1 and "".join(records[-1]).strip() == "" and len(records[-1]) <= 1:
        records.pop()
    return records


def _check_delimiter(records: list[list[str]], name: str, delimiter: str) -> None:
    """One column only: is that because something else stands between the entries?"""
    text = " ".join(entry for record in records[:5] for entry in record)
    others = [other for other in DELIMITERS if other != delimiter and other in text]
    if not others:
        return
    found = max(others, key=text.count)
    way_out = "name it .tsv" if found == "\t" else "save it with commas, as .csv"
    if found == ",":
        way_out = "name it .csv"
    raise InputError(
        f"{name} has one column, {records[0][0]!r}, expected {DELIMITERS[delimiter]} between "
        f"columns and found {DELIMITERS[found]}: {way_out}."
    )
