"""Compare what fits with other seeds, to the same rows, say of who borrows from whom.

python -m benchmarks.relatedness_seeds --seeds 10
python -m benchmarks.relatedness_seeds --data groups --method shared

Shares of the posterior means (``relatedness_``) of each pair of tasks: whether the mean of one seed
lies in the 90 % interval of another, over all ordered pairs of seeds, and how far means of seeds
are apart. Rows are the digits of the demo, or 12 tasks of 30 rows in 3 groups with 5 coefficients.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyro_vmtl import VMTLClassifier, VMTLRegressor
from pyro_vmtl.datasets import rotated_digits


def estimator_of_rows(data: str) -> tuple[Any, tuple[Any, Any, Any]]:
    """Return a class of estimators, and features, targets and tasks."""
    if data == "digits":
        split = rotated_digits()
        return VMTLClassifier, (split.X_train, split.y_train, split.tasks_train)
    random = np.random.default_rng(0)
    centres = random.normal(size=(3, 5))
    task = np.arange(12).repeat(30)
    w = centres[np.arange(12) % 3] + 0.3 * random.normal(size=(12, 5))
    x = random.normal(size=(360, 5))
    return VMTLRegressor, (x, (x * w[task]).sum(1) + random.normal(size=360), task)


def main(args: Sequence[str] | None = None) -> None:
    """Print the share of means within intervals, and how far apart they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data", choices=("digits", "groups"), default="digits")
    parser.add_argument("--method", default="default")
    given = parser.parse_args(args)
    make, (x, y, tasks) = estimator_of_rows(given.data)
    found = []
    for seed in range(given.seeds):
        fitted = make(given.method, random_state=seed).fit(x, y, tasks=tasks)
        found.append(fitted.relatedness_.to_array().to_numpy())  # mean, lower, upper
        print(seed, np.nanmean(found[-1][0][:, :-1], 1).round(3), flush=True)
    mean, lower, upper = np.stack(found, 1)  # (seeds, T, T + 1) each
    inside = (mean[:, None] >= lower) & (mean[:, None] <= upper)
    others = ~np.eye(given.seeds, dtype=bool)
    shown = ~np.isnan(mean[0])
    print(f"within the interval of another seed: {inside[others][:, shown].mean():.3f}")
    print(f"standard deviation over seeds: {mean.std(0, ddof=1)[shown].mean():.4f}")
    print(f"width of the intervals: {(upper - lower)[:, shown].mean():.4f}")


if __name__ == "__main__":
    main()
