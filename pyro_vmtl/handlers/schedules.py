"""Schedules: settings that change during a fit, as pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from torch import nn

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "Linear",
    "Schedule",
    "Scheduled",
    "Stairs",
    "as_schedule",
]

Schedule = Callable[[int], float]
"""Maps a step, counted from 0, to a number."""


def as_schedule(value: float | Schedule) -> Schedule:
    """Return a schedule as it is, and a number as a constant schedule."""
    return value if callable(value) else Constant(float(value))


@dataclass(frozen=True)
class Constant:
    """A constant value.

    Examples
    --------
    >>> Constant(0.3)(1000)
    0.3
    """

    value: float

    def __call__(self, step: int) -> float:
        """Return the value at a step."""
        return self.value


@dataclass(frozen=True)
class Exponential:
    """Exponential decay or growth from ``start`` to ``end`` over ``steps`` steps, then constant.

    Examples
    --------
    >>> [round(Exponential(1.0, 0.25, steps=2)(step), 2) for step in range(4)]
    [1.0, 0.5, 0.25, 0.25]
    """

    start: float
    end: float
    steps: int

    def __call__(self, step: int) -> float:
        """Return the value at a step."""
        return self.start * (self.end / self.start) ** (min(step, self.steps) / self.steps)


@dataclass(frozen=True)
class Cosine:
    """Cosine annealing from ``start`` to ``end`` over ``steps`` steps, then constant.

    Examples
    --------
    >>> [round(Cosine(1.0, 0.0, steps=2)(step), 2) for step in range(4)]
    [1.0, 0.5, 0.0, 0.0]
    """

    start: float
    end: float
    steps: int

    def __call__(self, step: int) -> float:
        """Return the value at a step."""
        wave = math.cos(math.pi * min(step, self.steps) / self.steps)
        return self.end + (self.start - self.end) * (1 + wave) / 2


@dataclass(frozen=True)
class Linear:
    """Linear interpolation from ``start`` to ``end`` over ``steps`` steps, then constant.

    Examples
    --------
    >>> [Linear(0.0, 1.0, steps=4)(step) for step in (0, 1, 4, 9)]
    [0.0, 0.25, 1.0, 1.0]
    """

    start: float
    end: float
    steps: int

    def __call__(self, step: int) -> float:
        """Return the value at a step."""
        return self.start + (self.end - self.start) * min(step, self.steps) / self.steps


@dataclass(frozen=True)
class Stairs:
    """Piecewise constant: pairs of a step, the first of them 0, and the value from there on.

    Examples
    --------
    >>> [Stairs(((0, 1.0), (10, 0.5)))(step) for step in (0, 9, 10, 99)]
    [1.0, 1.0, 0.5, 0.5]
    """

    values: tuple[tuple[int, float], ...]

    def __call__(self, step: int) -> float:
        """Return the value at a step."""
        return next(value for start, value in reversed(self.values) if step >= start)


class Scheduled(nn.Module):
    """A module with settings that follow schedules during a fit."""

    schedules: dict[str, Schedule]

    def at_step(self, step: int) -> None:
        """Set the settings to their values at a step."""
        raise NotImplementedError

    @property
    def graph_key(self) -> Hashable:
        """What the tensor operations of a step depend on: each key has a recording of its own."""
        return None
