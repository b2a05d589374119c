"""Checkpoints: an interrupted fit resumes, and ends in the same numbers.

A checkpoint holds everything that a step of this library depends on: parameters, the optimiser's
moments, torch's random state, and the stopping rule's. Other random generators and counters of
steps, in programs and batches of the user's own, are not restored. The file is replaced atomically.
It holds tensors and JSON, and nothing that could be executed.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pyro_vmtl.data.atomic_files import atomic_write
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.inference.elbo import ELBOTerms
from pyro_vmtl.inference.history import stacked
from pyro_vmtl.sharing.sources import Sources

__all__ = ["Checkpoint", "CheckpointError", "Progress", "fingerprint"]

EVERY = 20.0
"""Seconds from one checkpoint to the next."""

SETTINGS = (bool, int, float, str, tuple, dict, type)
"""Types of attributes that count as settings of an object."""

Stopped = Literal["settled", "steps", "interrupted"]


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to another fit."""


@dataclass
class Progress:
    """The state of a running fit.

    Attributes
    ----------
    end
        maximum number of steps.
    step
        number of steps done.
    stopped
        why it ended, or will end.
    over
        whether it has ended.
    losses
        loss at every step.
    terms
        terms of the loss, by step.
    snapshots
        relatedness of each shared site, by number of updates done.
    seconds
        wall time up to the checkpoint that it was resumed from.
    started
        time at which it was started or resumed.
    """

    end: int
    step: int = 0
    stopped: Stopped = "steps"
    over: bool = False
    losses: list[float] = field(default_factory=list)
    terms: dict[int, ELBOTerms] = field(default_factory=dict)
    snapshots: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def elapsed(self) -> float:
        """Wall time so far, in seconds."""
        return self.seconds + time.perf_counter() - self.started


class Checkpoint:
    """The checkpoint file of one fit.

    Parameters
    ----------
    path
        The file, which need not exist yet.
    problem
        The :func:`fingerprint` of the fit.
    module
        Model and guide.
    optimizer
        The optimiser.
    """

    def __init__(
        self,
        path: Path,
        problem: str,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
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
        tensors = {f"module.{name}": v for name, v in self.module.state_dict().items()}
        if not progress.over:
            tensors |= {
                f"optimizer.{index}.{name}": value
                for index, state in self.optimizer.state_dict()["state"].items()
                for name, value in state.items()
            }
            tensors["random"] = torch.get_rng_state()
            if self.device.type == "cuda":
                tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        tensors["losses"] = torch.tensor(progress.losses, dtype=torch.float64)
        tensors["term_steps"] = torch.tensor(list(progress.terms), dtype=torch.int64)
        for kind in ("log_likelihood", "kl"):
            of_steps = [getattr(terms, kind) for terms in progress.terms.values()]
            for site in of_steps[0] if of_steps else ():
                tensors[f"{kind}.{site}"] = torch.stack([v[site].cpu() for v in of_steps])
        tensors["snapshots"] = torch.tensor(list(progress.snapshots), dtype=torch.int64)
        tensors |= {f"relatedness.{s}": v for s, v in stacked(progress.snapshots).items()}
        meta = {
            "problem": self.problem,
            **{name: getattr(progress, name) for name in ("end", "step", "stopped", "over")},
            "seconds": progress.elapsed,
            "use_float64": [sources.use_float64 for sources in self.sources],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as scratch:
            # names that share a tensor are refused by safetensors
            own = {name: v.detach().cpu().contiguous().clone() for name, v in tensors.items()}
            save_file(own, scratch, metadata={"fit": json.dumps(meta)})
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
            with safe_open(self.path, framework="pt") as file:
                meta = json.loads(file.metadata()["fit"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self.path} is not a checkpoint ({error}). {way_out}"
            ) from error
        if meta.get("problem") != self.problem:
            raise CheckpointError(
                f"{self.path} belongs to another fit: rows, settings or versions differ. {way_out}"
            )
        self._restore(tensors, meta)
        kinds = ("log_likelihood", "kl")
        stacked = {kind: _of_prefix(tensors, kind) for kind in kinds}
        terms = {
            step: ELBOTerms(**{k: {s: v[i] for s, v in stacked[k].items()} for k in kinds})
            for i, step in enumerate(tensors["term_steps"].tolist())
        }
        weights = _of_prefix(tensors, "relatedness")
        snapshots = {
            step: {site: values[i] for site, values in weights.items()}
            for i, step in enumerate(tensors["snapshots"].tolist())
        }
        kept = {name: meta[name] for name in ("end", "step", "stopped", "over", "seconds")}
        losses = tensors["losses"].tolist()
        return Progress(**kept, losses=losses, terms=terms, snapshots=snapshots)

    def _restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        self.module.load_state_dict(_of_prefix(tensors, "module"))
        for sources, use_float64 in zip(self.sources, meta["use_float64"], strict=True):
            sources.use_float64 = use_float64
        if meta["over"]:
            return
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _of_prefix(tensors, "optimizer").items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        torch.set_rng_state(tensors["random"])
        if "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)


def _of_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = len(prefix) + 1
    return {name[start:]: v for name, v in tensors.items() if name.startswith(f"{prefix}.")}


def fingerprint(module: nn.Module, args: Iterable[object], *settings: object) -> str:
    """Compute a hash of a fit: of its initial parameters, its data and its settings.

    Parameters
    ----------
    module
        Model and guide before the fit.
    args
        Arguments of model and guide.
    *settings
        Everything else. Tensors and arrays are hashed by value, other objects by their ``repr``
        without addresses and by their attributes that are plain settings.

    Returns
    -------
    str
        Hexadecimal digits.

    Examples
    --------
    >>> fingerprint(nn.Linear(1, 1), [], 3) == fingerprint(nn.Linear(2, 1), [], 3)
    False
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
