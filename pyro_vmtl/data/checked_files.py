"""Files of a folder that somebody else may have made, checked before they are read.

Links inside the folder are refused: they may lead out of it. So are files that are too large.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pyro_vmtl.data.limits import check_limit

__all__ = ["check_no_links", "check_schema", "file_in", "read_json"]


def file_in(folder: Path, name: str, limit: str = "JSON_BYTES") -> Path:
    """Return the path of a file in a folder, such as ``"estimator/estimator.json"``.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it, or a folder on the way, is a link, or if it is larger than the limit.
    """
    path = folder / name
    check_no_links(folder, name)
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {name}: it is incomplete. Take a complete copy.")
    check_limit(limit, path.stat().st_size, path)
    return path


def check_no_links(folder: Path, name: str) -> None:
    """Raise an error if a part of a path inside a folder is a link."""
    path = folder
    for part in Path(name).parts:
        path = path / part
        if path.is_symlink() or getattr(path, "is_junction", bool)():
            raise ValueError(
                f"{path} is a link, which may lead out of {folder}. Replace it by what it leads to."
            )


def read_json(path: Path) -> Any:
    """Read a JSON file, or raise an error that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}). Take an unchanged copy.") from error


def check_schema(schema: TypeAdapter[Any], content: Any, what: object) -> Any:
    """Return content as a schema has it, or raise an error that says where it is different."""
    try:
        return schema.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "all of it"
        raise ValueError(
            f"{what} cannot be read ({place}: {first['msg']}). Take an unchanged copy, or fit "
            "again."
        ) from error
