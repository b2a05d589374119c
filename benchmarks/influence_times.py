"""Measure what influence of all rows on all tasks takes, in seconds of the processor and memory.

PYRO_VMTL_DATA=... python -m benchmarks.influence_times school --member mixed-model
python -m benchmarks.influence_times demo --seeds 3

``school`` is a member for few features on School (139 tasks, 11,472 rows), and ``demo`` the default
estimator of ``pyro-vmtl fit digits``, all four members, beside the time of its fit. One line of
JSON for each seed; memory is the most that the process had, of which that after the fit.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.datasets.school import School
from pyro_vmtl import TaskData, VMTLClassifier, influence
from pyro_vmtl.datasets import rotated_digits
from pyro_vmtl.methods.presets import presets

Estimate = Callable[[], Any]


def school(seed: int, member: str) -> tuple[float, Estimate]:
    """Fit a member; return the seconds, and what estimates influence."""
    split = School().split(seed)
    y = (split.y_train - split.y_train.mean()) / split.y_train.std()
    X, target = (torch.as_tensor(v, dtype=torch.float32) for v in (split.X_train, y))
    data = TaskData.regression(X, target, split.tasks_train).with_intercept()
    preset: Any = presets("regression")[member].few_features
    begun = time.process_time()
    fitted = preset.fit(data, seed=seed)
    return time.process_time() - begun, lambda: influence(fitted, data)


def demo(seed: int, member: str) -> tuple[float, Estimate]:
    """Fit the estimator of the demo; return the seconds, and what estimates influence."""
    split = rotated_digits(seed=seed)
    rows = split.X_train, split.y_train, split.tasks_train
    begun = time.process_time()
    fitted = VMTLClassifier(random_state=seed).fit(*rows)
    return time.process_time() - begun, lambda: fitted.influence(*rows)


def gigabytes() -> float:
    """Return the most memory that this process had."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def main(args: Sequence[str] | None = None) -> None:
    """Print a line for each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("school", "demo"))
    parser.add_argument("--member", default="shared", choices=("shared", "mixed-model"))
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args(args)
    for seed in range(given.seeds):
        of_fit, estimate = {"school": school, "demo": demo}[given.what](seed, given.member)
        result = {"what": given.what, "seed": seed, "fit": round(of_fit, 1), "before": gigabytes()}
        begun = time.process_time()
        found = estimate()
        result["seconds"] = round(time.process_time() - begun, 1)
        result |= {"gigabytes": gigabytes(), "distance": round(found.attrs["distance"], 3)}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
