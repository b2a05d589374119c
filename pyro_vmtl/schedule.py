"""Schedules: numbers that change during a fit, as pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

__all__ = ["Schedule", "Scheduled", "as_schedule", "cosine", "exponential"]

Schedule = Callable[[int], float]
"""A number at each step, counted from 0."""


def as_schedule(value: float | Schedule) -> Schedule:
    """Read a plain number as the schedule that stays there.

    Examples
    --------
    >>> as_schedule(0.5)(1000)
    0.5
    """
    if callable(value):
        return value
    constant = float(value)
    return lambda step: constant


def exponential(start: float, end: float, steps: int) -> Schedule:
    """Go from ``start`` to ``end`` by equal factors over ``steps`` steps, then stay.

    Examples
    --------
    >>> [round(exponential(1.0, 0.25, steps=2)(step), 2) for step in range(4)]
    [1.0, 0.5, 0.25, 0.25]
    """
    return lambda step: start * (end / start) ** (min(step, steps) / steps)


def cosine(start: float, end: float, steps: int) -> Schedule:
    """Go from ``start`` to ``end`` along half a cosine wave over ``steps`` steps, then stay.

    Examples
    --------
    >>> [round(cosine(1.0, 0.0, steps=2)(step), 2) for step in range(4)]
    [1.0, 0.5, 0.0, 0.0]
    """
    return lambda step: end + (start - end) * (1 + math.cos(math.pi * min(step, steps) / steps)) / 2


class Scheduled(nn.Module):
    """A module with numbers that follow schedules during a fit.

    Attributes
    ----------
    schedules
        for each number its schedule.
    """

    schedules: dict[str, Schedule]

    def at_step(self, step: int) -> None:
        """Set the numbers to their values at a step."""
        raise NotImplementedError
