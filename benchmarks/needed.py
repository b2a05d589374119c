"""Packages that only some methods and data sets need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["needed"]


def needed(package: str) -> Any:
    """Import a package, or say how to install it.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ImportError(
            f"{package} cannot be imported ({error}). Install what benchmarks need: "
            "pip install -e '.[benchmark]'"
        ) from error
