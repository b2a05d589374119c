"""Handlers that make a run comparable with another, and that find where sites are written."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from types import FrameType
from typing import Any

import pyro
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vmtl.data.plates import TASK_PLATE
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.handlers.tracing import is_sample
from pyro_vmtl.sharing.transformed import untransformed

__all__ = ["AtLocations", "SiteLines", "is_machinery"]

PATHS = sysconfig.get_paths()
ROOMS = ("data", "handlers", "sharing", "inference", "methods", "predictive", "testing")
MACHINERY = (
    *(PATHS["stdlib"], PATHS["purelib"], str(Path(pyro.__file__).parent)),
    *(str(Path(__file__).parents[1] / room) for room in ROOMS),
)
"""Where the files lie whose lines no user would change."""

ABOVE_MEAN = 0.5
"""Standard deviations above the mean, so that scales matter, too."""


class AtLocations(Messenger):
    """Put latent sites half a standard deviation above their mean, in place of draws.

    A value then depends on its own cell alone, and not on how many tasks or rows there are. Sites
    whose distribution has no mean are drawn, each with the same seed in every run.

    Attributes
    ----------
    values
        Values by site.
    task_dims
        For sites in the plate ``task``, its dimension in their values, counted from the right.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, Tensor] = {}
        self.task_dims: dict[str, int] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if msg["done"] or msg["value"] is not None or not is_sample(msg):
            return
        fn, transforms = untransformed(msg["fn"])
        try:
            value = fn.mean + ABOVE_MEAN * fn.stddev
        except (NotImplementedError, AttributeError):
            with isolated(0):
                value = fn.rsample() if fn.has_rsample else fn.sample()
        for transform in transforms:
            value = transform(value)
        msg["value"], msg["done"] = value, True

    def _pyro_post_sample(self, msg: Any) -> None:
        if is_sample(msg) and not msg["is_observed"]:
            self.values[msg["name"]] = msg["value"]
            dims = {frame.name: frame.dim for frame in msg["cond_indep_stack"] if frame.vectorized}
            if TASK_PLATE in dims:
                self.task_dims[msg["name"]] = dims[TASK_PLATE] - len(msg["fn"].event_shape)


class SiteLines(Messenger):
    """Note where each site is sampled: ``lines`` has its file and line."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, str] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if is_sample(msg):
            frame: FrameType | None = sys._getframe(1)
            while frame is not None and is_machinery(frame.f_code.co_filename):
                frame = frame.f_back
            if frame is not None:
                self.lines[msg["name"]] = f"{frame.f_code.co_filename}:{frame.f_lineno}"


def is_machinery(file: str) -> bool:
    """Whether a file is of Python, of an installed package or of what runs programs here."""
    return file.startswith(MACHINERY) or file.startswith("<frozen")
