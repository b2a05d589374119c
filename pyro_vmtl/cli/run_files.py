"""Files of a run directory: their names, and the checks before any of them is read.

A run may come from a stranger. Nothing outside its folder is read, and nothing that does not have
the schema of a run of this version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter
from typing_extensions import TypedDict

from pyro_vmtl.cli.columns import Columns
from pyro_vmtl.cli.target import TargetKind
from pyro_vmtl.cli.user_errors import InputError
from pyro_vmtl.data.atomic_files import atomic_write
from pyro_vmtl.data.checked_files import check_schema, file_in, read_json

__all__ = [
    "CHECKSUMS",
    "INFLUENCE",
    "METRICS",
    "POSTERIOR",
    "SUMMARY",
    "TABLE",
    "read_checked",
    "run_file",
    "write_checksums",
    "write_json",
]

METRICS = "metrics.json"
"""Scores and settings; the file that makes a folder a run directory."""

TABLE = "table.json"
"""How to read the columns of a table for the estimator."""

SUMMARY = "summary.csv"
POSTERIOR = "posterior.nc"
"""Draws from the fit, for ArviZ."""

INFLUENCE = "influence.nc"
"""Influence of rows, where ``pyro-vmtl influence --report`` added it."""

CHECKSUMS = "SHA256SUMS"
"""Checksums of the files above and of others, for ``sha256sum --check``."""

Count = Annotated[int, Field(ge=0)]


class Table(TypedDict):
    """Content of :data:`TABLE`."""

    kind: TargetKind
    columns: Columns


class Scores(TypedDict):
    """Scores of some rows, or their mean over tasks."""

    rows: NotRequired[float]
    accuracy: NotRequired[float]
    nll: NotRequired[float]
    ece: NotRequired[float]
    rmse: NotRequired[float]
    explained_variance: NotRequired[float]
    coverage_50: NotRequired[float]
    coverage_90: NotRequired[float]


class AllScores(TypedDict):
    """Scores of all rows, their mean over tasks, and those of each task."""

    all: Scores
    mean: Scores
    per_task: dict[str, Scores]


class Rows(TypedDict):
    """Numbers of rows."""

    fit: Count
    test: Count


class Metrics(TypedDict):
    """Content of :data:`METRICS` of a run without test rows."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    kind: TargetKind
    rows: Rows
    tasks: Count
    members: dict[str, float]
    seconds: FiniteFloat
    stopped: Literal["settled", "steps", "interrupted"]
    notices: list[str]
    settings: dict[str, str | float | bool | list[str] | None]
    versions: dict[str, str]


class TestedMetrics(Metrics, AllScores):
    """The same with scores of test rows."""

    baselines: NotRequired[dict[Literal["single_task", "pooled"], AllScores]]


SCHEMAS: dict[str, TypeAdapter[Any]] = {
    METRICS: TypeAdapter(TestedMetrics | Metrics),
    TABLE: TypeAdapter(Table),
}


def run_file(folder: Path, name: str, limit: str = "JSON_BYTES") -> Path:
    """Return the path of a file of a run, unless it is a link, too large, or was changed."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder, expected a run directory of `pyro-vmtl fit`.")
    path = file_in(folder, name, limit)
    known = _known_checksums(folder)
    if known is not None and known.get(name) != _checksum(path):
        raise InputError(
            f"{path} was changed after the fit: it has another checksum than in {CHECKSUMS}. "
            "Take an unchanged copy, or fit again."
        )
    return path


def read_checked(folder: Path, name: str) -> Any:
    """Read a JSON file of a run."""
    path = run_file(folder, name)
    return check_schema(SCHEMAS[name], read_json(path), path)


def write_checksums(folder: Path, *added: str) -> None:
    """Write checksums of the files in a run but for its report, or of those ``added`` later."""
    known = _known_checksums(folder) if added else {}
    if known is None:
        return
    files = [path.name for path in folder.iterdir() if path.is_file() and path.suffix != ".html"]
    known |= {name: _checksum(folder / name) for name in sorted(added or files)}
    with atomic_write(folder / CHECKSUMS) as scratch:
        lines = (f"{checksum}  {name}\n" for name, checksum in known.items())
        scratch.write_text("".join(lines), encoding="utf-8")


def _known_checksums(folder: Path) -> dict[str, str] | None:
    """Read them; runs of earlier versions have none."""
    if not (folder / CHECKSUMS).exists():
        return None
    lines = file_in(folder, CHECKSUMS).read_text(encoding="utf-8").splitlines()
    return {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of a run that is to be read by people, too."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
    path.write_text(text, encoding="utf-8")
