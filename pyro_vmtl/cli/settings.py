"""Settings of a fit: from the command line and a TOML file with the same names, and back."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from pyro_vmtl.cli.target import TargetKind
from pyro_vmtl.cli.user_errors import InputError, did_you_mean

__all__ = ["FitSettings", "read_settings", "split_names"]

KINDS = get_args(TargetKind)

TYPES: dict[str, type] = {
    **dict.fromkeys(("source", "target", "task", "kind", "method", "device", "out"), str),
    **{"features": list, "missing": list, "holdout": float, "seed": int, "spreadsheet": bool},
}
"""Types of the settings in a TOML file."""


@dataclass(frozen=True)
class FitSettings:
    """Settings of a fit, as the options of ``fit``.

    ``source`` is a table, or ``digits`` for the example. ``features`` of None are all other
    columns, a ``kind`` of None is guessed, and ``holdout`` is a fraction of each task's rows.
    ``missing`` are entries that count as empty.
    """

    source: str = ""
    target: str | None = None
    task: str | None = None
    features: list[str] | None = None
    kind: str | None = None
    method: str = "default"
    holdout: float = 0.0
    seed: int = 0
    device: str = "cpu"
    out: str | None = None
    missing: list[str] | None = None
    spreadsheet: bool = False

    def __post_init__(self) -> None:
        if not self.source:
            raise InputError(
                "There is no SOURCE, expected a table such as data.csv, or 'digits'. Give it after "
                "`fit`, or as `source` in the file of --config."
            )
        if self.kind is not None and self.kind not in KINDS:
            raise InputError(f"--kind is {self.kind!r}, expected one of {', '.join(KINDS)}.")
        if not 0 <= self.holdout < 1:
            raise InputError(
                f"--holdout is {self.holdout:g}, expected a fraction from 0 to below 1, such as "
                "0.25."
            )
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--seed is {self.seed}, expected an integer from 0 to 2**32 - 1.")
        if self.folder.name in ("", ".."):
            raise InputError(f"--out is {self.out!r}, expected the name of a folder to create.")
        for name, text in asdict(self).items():
            if any(0xD800 <= ord(letter) < 0xE000 for letter in str(text)):
                raise InputError(f"--{name} is {text!r}, which is not UTF-8. Rename it.")

    @property
    def folder(self) -> Path:
        """The run directory."""
        name = Path(self.source).name.removesuffix(".gz")
        return Path("runs") / Path(name).stem if self.out is None else Path(self.out)

    def to_toml(self) -> str:
        """Return the settings as TOML."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        # strings, numbers and lists are written alike in JSON and TOML, but for one character
        text = "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in given.items())
        return text.replace("\x7f", "\\u007f")


def read_settings(given: Mapping[str, Any], config: Path | None) -> FitSettings:
    """Combine settings of the command line, which take precedence, with those of a TOML file."""
    stored = {} if config is None else _read_toml(config)
    return FitSettings(**stored | {name: v for name, v in given.items() if v is not None})


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path} cannot be read ({error}).") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f'--config {path} is not TOML ({error}), expected lines such as target = "score".'
        ) from error
    for name, value in content.items():
        if name not in TYPES:
            raise InputError(
                f"--config {path} has {name!r}, which is not an option of `fit`. "
                f"{did_you_mean(name, list(TYPES))}"
            )
        kind: type = TYPES[name]
        strings = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
        if kind is float and type(value) is int:
            content[name] = float(value)
        elif type(value) is not kind or (kind is list and not strings):
            expected = "a list of strings" if kind is list else kind.__name__
            raise InputError(f"--config {path} has {name} = {value!r}, expected {expected}.")
    return content


def split_names(text: str) -> list[str]:
    """Split names that are separated by commas.

    Examples
    --------
    >>> split_names("rain, mood,")
    ['rain', 'mood']
    """
    return [name.strip() for name in text.split(",") if name.strip()]
