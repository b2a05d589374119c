"""Measure Pareto's k of each school, in the members of the default for few features.

PYRO_VMTL_DATA=... python -m benchmarks.school_khat --splits 3
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.datasets.school import School
from pyro_vmtl import TaskData
from pyro_vmtl.analysis import psis_khat, to_datatree
from pyro_vmtl.methods.presets import presets


def main(args: Sequence[str] | None = None) -> None:
    """Print a line for each split and member."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=1)
    parser.add_argument("--members", nargs="*", default=("shared", "mixed-model"))
    given = parser.parse_args(args)
    School().check()
    for seed in range(given.splits):
        split = School().split(seed)
        y = (split.y_train - split.y_train.mean()) / split.y_train.std()
        X, target = (torch.as_tensor(v, dtype=torch.float32) for v in (split.X_train, y))
        data = TaskData.regression(X, target, split.tasks_train).with_intercept()
        for name in given.members:
            preset: Any = presets("regression")[name].few_features
            tree = to_datatree(preset.fit(data, seed=seed), data, num_samples=1000)
            khat = psis_khat(tree)["khat_task"].values
            found = {
                "split": seed + 1,
                "member": name,
                "covariances": tree.attrs["covariances"],
                "k below 0.7": round(float((khat < 0.7).mean()), 3),
                "median": round(float(np.median(khat)), 2),
                "largest": round(float(khat.max()), 2),
            }
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
