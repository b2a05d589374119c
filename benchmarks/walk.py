"""Trace the files that one batch of rows passes, for the walk in CONTRIBUTING.md.

python -m benchmarks.walk
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from traceback import walk_stack
from types import FrameType
from typing import Any

import numpy as np

from benchmarks.house import AT_THE_ROOT, ROOT
from pyro_vmtl import RandomRows, TaskData
from pyro_vmtl.inference.step import Step
from pyro_vmtl.methods.presets import presets

__all__ = ["files_of_a_step"]


class _Tracer:
    """Count the calls into each file of the package during one training step.

    Attributes
    ----------
    calls
        number of calls for each file: first the callers of the step, then the files that it calls
        into, in the order of their first calls.
    """

    def __init__(self, step: int) -> None:
        self.calls: Counter[str] = Counter()
        self._step, self._begun = step, 0

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        """Handle an event of :func:`sys.setprofile`."""
        is_step = frame.f_code is Step.__call__.__code__
        self._begun += is_step and event == "call"
        if self._begun != self._step:
            return
        if is_step and event == "call":
            callers = [each.f_code.co_filename for each, _ in walk_stack(frame.f_back)]
            for file in reversed(callers):
                self._count(file)
        if event == "call":
            self._count(frame.f_code.co_filename)
        if is_step and event == "return":
            self._begun += 1

    def _count(self, file: str) -> None:
        path = Path(file).resolve()
        if path.is_relative_to(ROOT):
            path = path.relative_to(ROOT)
            if path.parts[0] in ("pyro_vmtl", *AT_THE_ROOT):
                self.calls[path.as_posix()] += 1


def files_of_a_step() -> Counter[str]:
    """Fit ``shared`` to random rows, and count the calls into each file during one step.

    Returns
    -------
    Counter
        Paths from the root: the callers of a step, then the files that it calls into, in the order
        of their first calls.
    """
    rng = np.random.default_rng(0)
    X, tasks = rng.normal(size=(80, 3)), np.repeat([*"abcd"], 20)
    data = TaskData.regression(X, X.sum(1), tasks.tolist()).with_intercept()
    few = {"num_steps": 3, "batches": RandomRows(10)}
    preset = replace(presets("regression")["shared"].many_features, fitting=few)
    tracer = _Tracer(step=2)  # the first step initializes
    before = sys.getprofile()
    sys.setprofile(tracer)
    try:
        preset.fit(data)
    finally:
        sys.setprofile(before)
    return tracer.calls


def main() -> None:
    """Print the files in the order of their first calls."""
    for path, count in files_of_a_step().items():
        print(f"{path:40} {count:3} calls")


if __name__ == "__main__":
    main()
