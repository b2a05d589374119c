"""Limits on what data may make this package allocate, checked before anything is allocated.

A file of a few bytes may unpack to more than the memory, or declare arrays of any size, and some
methods need numbers for all pairs of tasks. Each limit is adjustable by an environment variable,
``PYRO_VMTL_MAX_`` and its name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["LIMITS", "AllocationLimit", "LimitError", "LimitWarning", "check_limit", "exceeds"]

FACTORIES: set[Callable[..., Any]] = {
    *(torch.zeros, torch.ones, torch.empty, torch.full, torch.rand, torch.randn),
    *(torch.arange, torch.eye),
}

LIMITS = {
    "TABLE_BYTES": (1_000_000_000, "bytes of table"),
    "COLUMNS": (10_000, "columns"),
    "CELLS": (50_000_000, "cells"),
    "JSON_BYTES": (50_000_000, "bytes of text"),
    "RUN_BYTES": (1_000_000_000, "bytes"),
    "NUMBERS": (250_000_000, "numbers"),
    "DRAWS": (10_000, "draws"),
    "TASK_PAIRS": (2_250_000, "pairs of tasks"),
}
"""Default of each limit, and what it counts."""


class LimitError(ValueError):
    """Something is larger than a limit allows."""


class LimitWarning(UserWarning):
    """Something is left out, as it would be larger than a limit allows."""


def check_limit(
    name: str, found: float, what: object, way_out: str = "If you trust the file"
) -> None:
    """Raise an error if something is larger than a limit allows."""
    if exceeds(name, found):
        raise LimitError(
            f"{what} has {found:,} {LIMITS[name][1]}, more than the limit of {_limit(name):,}, "
            f"which guards the memory. {way_out}, set the environment variable "
            f"PYRO_VMTL_MAX_{name}={found}."
        )


def exceeds(name: str, found: float) -> bool:
    """Whether something is larger than a limit allows."""
    return found > _limit(name)


def _limit(name: str) -> int:
    return int(os.environ.get(f"PYRO_VMTL_MAX_{name}", LIMITS[name][0]))


class AllocationLimit(TorchFunctionMode):
    """Refuse to make tensors with more numbers in total than allowed, before they are made.

    Examples
    --------
    >>> with AllocationLimit("weights"):  # doctest: +ELLIPSIS
    ...     torch.zeros(10**6, 10**6)
    Traceback (most recent call last):
    ...
    pyro_vmtl.data.limits.LimitError: weights has 1,000,000,000,000 numbers, ...
    """

    def __init__(self, what: object) -> None:
        super().__init__()
        self.what, self.total = what, 0

    def __torch_function__(
        self,
        function: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch; count what it would make on a device without memory, first."""
        kwargs = dict(kwargs or {})
        if function in FACTORIES:
            others = {name: value for name, value in kwargs.items() if name != "generator"}
            self.total += function(*args, **{**others, "device": "meta"}).numel()
            check_limit("NUMBERS", self.total, self.what)
        return function(*args, **kwargs)
