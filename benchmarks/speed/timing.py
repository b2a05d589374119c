"""Ratios of times: functions timed in turn, so that a noisy machine slows both."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

__all__ = ["Ratio", "machine", "milliseconds", "ratio"]


@dataclass(frozen=True)
class Ratio:
    """The time of one function in units of that of another.

    Attributes
    ----------
    median, low, high
        ratio of the medians: the median over repeats, and the range.
    first_ms, second_ms
        median times of both over all repeats.
    """

    median: float
    low: float
    high: float
    first_ms: float
    second_ms: float


def ratio(
    first: Callable[[], Any], second: Callable[[], Any], *, steps: int = 20, repeats: int = 3
) -> Ratio:
    """Time two functions in turn, and return the ratio of their times."""
    medians = [milliseconds([first, second], steps=steps) for _ in range(repeats)]
    ratios = [a / b for a, b in medians]
    first_ms, second_ms = (statistics.median(times) for times in zip(*medians, strict=True))
    return Ratio(statistics.median(ratios), min(ratios), max(ratios), first_ms, second_ms)


def milliseconds(functions: Sequence[Callable[[], Any]], *, steps: int) -> list[float]:
    """Time functions in turn, and return the median time of each in ms."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(steps):
        for function, taken in zip(functions, times, strict=True):
            _wait()
            started = time.perf_counter()
            function()
            _wait()
            taken.append(1e3 * (time.perf_counter() - started))
    return [statistics.median(taken) for taken in times]


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def machine() -> dict[str, Any]:
    """Describe the machine."""
    return {
        "processor": _processor(),
        "cores": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
