"""Whether the steps of programs that do not declare a fixed graph can be replayed: by trying it.

At the 1st, 2nd, 4th, 8th, ... step that might be replayed, the programs run, and the recording is
replayed with the same random numbers and parameters. Loss and gradients have to be the same, and
the run must leave what Python remembers as it was: attributes, closures and global variables, such
as a counter of steps, which a replayed step would not move. Otherwise Pyro runs all further steps.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vmtl.handlers.program_handler import Program

__all__ = ["ReplayCheck", "python_state"]

TOLERANCE = 1e-4
"""Relative difference of sums on a GPU, where their order varies; on a CPU it is 0."""

PLAIN = (bool, int, float, complex, str, bytes, type(None))

MOST_ITEMS = 10_000
"""Items of a list or a dictionary that are looked at."""

DEPTH = 30
"""Objects in objects that are looked at."""

log = logging.getLogger(__name__)


class ReplayCheck:
    """Decide from step to step whether to replay programs."""

    def __init__(self, *programs: Program, device: torch.device) -> None:
        self.programs = programs
        self.device = device
        self.passed = True
        self.count = 0

    def is_due(self) -> bool:
        """Whether to check this step, which might be replayed."""
        self.count += 1
        return self.passed and self.count & (self.count - 1) == 0

    def __call__(self, run: Callable[[], Any], replay: Callable[[], Any]) -> Any:
        """Run a step, and compare it with its replay; return the outcome of the run."""
        before = python_state(self.programs)
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):  # the replay has the same random numbers
            repeated = torch.get_rng_state(), [torch.cuda.get_rng_state(each) for each in cuda]
        outcome = run()
        if python_state(self.programs) != before:
            return self._fail(outcome, "a run changes what they remember, such as a counter")
        with torch.random.fork_rng(devices=cuda):
            torch.set_rng_state(repeated[0])
            for each, state in zip(cuda, repeated[1], strict=True):
                torch.cuda.set_rng_state(state, each)
            try:
                again = replay()
            except (RuntimeError, TypeError, ValueError, AttributeError) as error:
                return self._fail(outcome, str(error).splitlines()[0])
        if not all(map(self._is_same, _numbers(outcome), _numbers(again))):
            return self._fail(outcome, "a run and its replay differ")
        return outcome

    def _is_same(self, one: Tensor | None, other: Tensor | None) -> bool:
        if one is None or other is None:
            return one is other
        rtol = TOLERANCE if self.device.type == "cuda" else 0.0
        return torch.allclose(one, other, rtol=rtol, atol=0.0, equal_nan=True)

    def _fail(self, outcome: Any, reason: str) -> Any:
        self.passed = False
        message = f"Steps are run by Pyro, and not replayed, which takes longer: {reason}."
        if self.count == 1:
            log.info(message)
        else:
            warnings.warn(
                f"{message} Of the last {self.count // 2} steps, those that were replayed may "
                "differ from what the programs do. Fit again with a program whose operations do "
                "not depend on the step, or on numbers outside of torch.",
                stacklevel=2,
            )
        return outcome


def _numbers(outcome: Any) -> list[Tensor | None]:
    """Return loss and gradients."""
    loss, _, gradients, _ = outcome
    return [loss, *gradients]


def python_state(value: Any, seen: dict[int, Any] | None = None, depth: int = 0) -> Any:
    """Return what programs remember in Python, to be compared: numbers, texts, which tensors."""
    seen = {} if seen is None else seen
    if isinstance(value, PLAIN):
        return value if value == value else "nan"
    if isinstance(value, Tensor):
        return id(value)
    if isinstance(value, itertools.count | itertools.cycle | itertools.repeat):
        return repr(value)
    is_far = id(value) in seen or depth > DEPTH
    if is_far or inspect.ismodule(value) or inspect.isclass(value):
        return None
    seen[id(value)] = value  # and keep it, so that no other has its id
    state = partial(python_state, seen=seen, depth=depth + 1)
    if isinstance(value, Mapping):
        items = itertools.islice(value.items(), MOST_ITEMS)
        return len(value), [(str(name), state(each)) for name, each in items]
    if isinstance(value, list | tuple | set | frozenset):
        return len(value), [state(each) for each in itertools.islice(value, MOST_ITEMS)]
    if isinstance(value, partial):
        return state((value.func, value.args, value.keywords))
    if isinstance(value, MethodType):
        return state((value.__self__, value.__func__))
    if inspect.isfunction(value):
        used = inspect.getclosurevars(value)
        return state((used.nonlocals, used.globals, vars(value), value.__defaults__))
    module = type(value).__module__.partition(".")[0]
    if isinstance(value, nn.Module) or module not in ("torch", "pyro", "numpy"):
        return state(getattr(value, "__dict__", {}))
    return None
