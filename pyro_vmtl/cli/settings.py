"""Settings of a fit: from the command line, from a TOML file with the same names, and back."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pyro_vmtl.cli.errors import InputError, did_you_mean

__all__ = ["FitSettings", "read_settings"]

KINDS = ("classification", "regression", "counts")


@dataclass(frozen=True)
class FitSettings:
    """What the user asked for.

    Attributes
    ----------
    source
        the table to fit, or the name of an embedded data set.
    target, task
        columns of the table.
    features
        columns of the table; by default all others.
    kind
        classification, regression or counts; guessed by default.
    method
        name of a preset.
    holdout
        part of each task's rows that is kept for testing.
    seed
        of the split and the fit.
    device
        cpu or cuda.
    out
        run directory.
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

    def __post_init__(self) -> None:
        """Check values that need no data.

        Raises
        ------
        InputError
            If one cannot be.
        """
        if not self.source:
            raise InputError(
                "There is no SOURCE, expected a table such as data.csv, or 'digits'. Give it after "
                "`fit`, or as `source` in the file of --config."
            )
        if self.kind is not None and self.kind not in KINDS:
            raise InputError(f"--kind is {self.kind!r}, expected one of {', '.join(KINDS)}.")
        if not 0 <= self.holdout < 1:
            raise InputError(
                f"--holdout is {self.holdout:g}, expected a part of the rows from 0 to below 1, "
                "such as 0.25."
            )
        if self.seed < 0:
            raise InputError(f"--seed is {self.seed}, expected a whole number from 0 on.")

    @property
    def folder(self) -> Path:
        """The run directory."""
        name = Path(self.source).name.removesuffix(".gz")
        return Path("runs") / Path(name).stem if self.out is None else Path(self.out)

    def to_toml(self) -> str:
        """Write settings as TOML.

        Examples
        --------
        >>> print(FitSettings("data.csv", target="score", task="school").to_toml(), end="")
        source = "data.csv"
        target = "score"
        task = "school"
        method = "default"
        holdout = 0.0
        seed = 0
        device = "cpu"
        """
        given = {name: value for name, value in asdict(self).items() if value is not None}
        # JSON's texts, numbers and lists are TOML's, too
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in given.items())


def read_settings(given: Mapping[str, Any], config: Path | None) -> FitSettings:
    """Put settings together: what is given on the command line goes before the file's.

    Parameters
    ----------
    given
        From the command line; None where an option was not given.
    config
        A TOML file.

    Raises
    ------
    InputError
        If the file cannot be read, or has names or values that are none of a fit.
    """
    stored = {} if config is None else _read_toml(config)
    chosen = {name: value for name, value in given.items() if value is not None}
    return FitSettings(**{**stored, **chosen})


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path} cannot be read ({error}).") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f'--config {path} is not TOML ({error}), expected lines such as target = "score".'
        ) from error
    kinds = {field.name: _kind(str(field.type)) for field in fields(FitSettings)}
    for name, value in content.items():
        if name not in kinds:
            raise InputError(
                f"--config {path} has {name!r}, which is no option of `fit`. "
                f"{did_you_mean(name, list(kinds))}"
            )
        kind = kinds[name]
        texts = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
        if kind is float and type(value) is int:
            content[name] = float(value)
        elif type(value) is not kind or (kind is list and not texts):
            what = "a list of texts" if kind is list else kind.__name__
            raise InputError(f"--config {path} has {name} = {value!r}, expected {what}.")
    return content


def _kind(annotation: str) -> type:
    """Give the type of an annotation such as ``str | None``."""
    kinds: dict[str, type] = {"str": str, "list[str]": list, "float": float, "int": int}
    return kinds[annotation.removesuffix(" | None")]
