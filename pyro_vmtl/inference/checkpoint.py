"""Checkpoints: an interrupted fit resumes, and ends in the same numbers.

A checkpoint holds everything that a step of this library depends on: parameters, the optimiser's
moments, torch's random state, and the stopping rule's. Other random generators and counters of
steps, in programs and batches of the user's own, are not restored. The file is replaced atomically.
It holds tensors and plain values, and nothing that could be executed.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from pyro_vmtl.data.atomic_files import atomic_write
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.inference.adam import Adam
from pyro_vmtl.inference.history import Records
from pyro_vmtl.sharing.sources import Sources

__all__ = ["Checkpoint", "CheckpointError", "Progress", "fingerprint"]

EVERY = 20.0
"""Seconds from one checkpoint to the next."""

SETTINGS = (bool, int, float, str, tuple, dict, type)
"""Types of attributes that count as settings of an object."""

UNREADABLE = (EOFError, OSError, RuntimeError, LookupError, TypeError, ValueError)

Stopped = Literal["settled", "steps", "interrupted"]


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to another fit."""


@dataclass
class Progress:
    """The state of a running fit: ``step`` of at most ``end`` steps are done."""

    end: int
    step: int = 0
    stopped: Stopped = "steps"
    over: bool = False
    losses: list[float] = field(default_factory=list)
    terms: Records = field(default_factory=dict)
    snapshots: Records = field(default_factory=dict)
    seconds: float = 0.0
    """Wall time up to the checkpoint that it was resumed from."""
    started: float = field(default_factory=time.perf_counter)

    @property
    def elapsed(self) -> float:
        """Wall time so far, in seconds."""
        return self.seconds + time.perf_counter() - self.started


class Checkpoint:
    """The checkpoint file of one fit, whose ``problem`` is its :func:`fingerprint`."""

    def __init__(self, path: Path, problem: str, module: nn.Module, optimizer: Adam) -> None:
        self.path = path
        self.problem = problem
        self.module = module
        self.optimizer = optimizer
        self.sources = [m for m in module.modules() if isinstance(m, Sources)]
        self.device = next(module.parameters()).device
        self.written = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() - self.written >= EVERY

    def write(self, progress: Progress) -> None:
        """Write the state after a step."""
        kept = {name: value for name, value in vars(progress).items() if name != "started"}
        state = {
            "problem": self.problem,
            "progress": kept | {"seconds": progress.elapsed},
            "module": self.module.state_dict(),
            "use_float64": [sources.use_float64 for sources in self.sources],
        }
        if not progress.over:
            state["optimizer"] = self.optimizer.state_dict()
            state["random"] = torch.get_rng_state()
            if self.device.type == "cuda":
                state["random.cuda"] = torch.cuda.get_rng_state(self.device)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as scratch:
            torch.save(state, scratch)
        self.written = time.monotonic()

    def read(self) -> Progress | None:
        """Restore a fit from its checkpoint; return None if there is none.

        Raises
        ------
        CheckpointError
            If the file cannot be read, or belongs to another fit.
        """
        if not self.path.is_file():
            return None
        way_out = "Start again without the checkpoints (--overwrite)."
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            problem, progress = state["problem"], Progress(**state["progress"])
        except (*UNREADABLE, pickle.UnpicklingError) as error:
            raise CheckpointError(
                f"{self.path} is not a checkpoint ({error}). {way_out}"
            ) from error
        if problem != self.problem:
            raise CheckpointError(
                f"{self.path} belongs to another fit: rows, settings or versions differ. {way_out}"
            )
        self.module.load_state_dict(state["module"])
        for sources, use_float64 in zip(self.sources, state["use_float64"], strict=True):
            sources.use_float64 = use_float64
        if not progress.over:
            self.optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["random"])
            if "random.cuda" in state:
                torch.cuda.set_rng_state(state["random.cuda"], self.device)
        return progress


def fingerprint(module: nn.Module, args: Iterable[object], *settings: object) -> str:
    """Compute a hash of a fit: of its initial parameters, its data and its settings.

    Tensors and arrays are hashed by value, other objects by their ``repr`` without addresses and
    by their attributes that are plain settings.
    """
    digest = hashlib.blake2b(digest_size=16)

    def add(*values: object) -> None:
        for value in values:
            if isinstance(value, Tensor):
                value = value.detach().cpu().numpy()
            if isinstance(value, np.ndarray):
                add_text(value.shape, value.dtype)
                digest.update(np.ascontiguousarray(value).data)
            elif isinstance(value, TaskData):
                add(value.x, value.y, value.mask, value.weight)
                add(*chain.from_iterable(sorted(value.columns.items())))
                add(*vars(value.attended).values() if value.attended is not None else ())
            else:
                add_text(value, _settings(value))

    def add_text(*values: object) -> None:
        digest.update(re.sub(" at 0x[0-9a-f]+", "", repr(values)).encode())

    for name, tensor in module.state_dict().items():
        add(name, tensor)
    for part in module.modules():
        add_text(type(part), _settings(part))
    device = next((tensor.device.type for tensor in module.parameters()), "cpu")
    add(torch.__version__, device, *args, *settings)
    return digest.hexdigest()


def _settings(value: object) -> dict[str, object]:
    """Return the attributes of an object that are plain settings."""
    return {
        name: setting
        for name, setting in getattr(value, "__dict__", {}).items()
        if not name.startswith("_") and name != "training" and isinstance(setting, SETTINGS)
    }
