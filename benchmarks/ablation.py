"""Leave parts of the default out, one at a time, on validation rows.

python -m benchmarks.ablation --seeds 3
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from joblib import Parallel, delayed
from torch.distributions import Distribution

from benchmarks.datasets import SUITE
from benchmarks.means import means_and_errors
from benchmarks.rows import to_task_data
from pyro_vmtl import TaskData
from pyro_vmtl.analysis import expected_calibration_error
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.presets import presets

ROWS = (
    "digits 4 angles 5 %",
    "digits 2 groups 3 %",
    "digits unrelated 5 %",
    "office-caltech effnet 5 %",
    "school",
    "rotated-mnist 20 rows",
    "digits-angle 20 rows",
    "synthetic 32 tasks",
)


def trial(row: str, seed: int) -> list[dict]:
    """Test all variants on one split: members are fitted once and stacked in many ways."""
    torch.set_num_threads(1)
    (data_set,) = SUITE[row]
    first = 0 if data_set.num_splits else 100
    split = data_set.split(first + seed, validation=True)
    data, test = to_task_data(split, data_set.kind)
    stack = presets(data_set.kind)["default"].for_data(data)
    shared = stack.members["shared"]
    even = replace(shared, sharing={**shared.sharing, "start": "even"})
    stack = replace(stack, members={**stack.members, "even start": even})
    members = {name: m.fit(data, seed=seed).member for name, m in stack.members.items()}
    held_out, _ = stack.out_of_fold(data, seed=seed)
    assert held_out is not None
    rows = []
    for variant, names, calibrated in _variants([n for n in members if n != "even start"]):
        some = replace(held_out, draws={name: held_out.draws[name] for name in names})
        chosen = {name: stack.members[name] for name in names}
        variant_of = replace(stack, members=chosen, calibrated=calibrated)
        needing = variant_of.calibrated_members(data)
        fitted = Fitted(
            {name: members[name] for name in names},
            some.weights(some.cross_fitted_density(needing), data.num_tasks),
            members["shared"].result,
            some.calibrations(needing),
        )
        scores = _scores(fitted.predictive(test), test)
        rows.append({"row": row, "seed": seed, "variant": variant, **scores})
    return rows


def _variants(names: list[str]) -> Iterator[tuple[str, list[str], bool]]:
    yield "default", names, True
    yield "not calibrated", names, False
    for name in names:
        yield f"without {name}", [n for n in names if n != name], True
    yield "even start", ["even start" if n == "shared" else n for n in names], True
    for name in names:
        yield f"{name} only", [name], True
        yield f"{name} only, not calibrated", [name], False


def _scores(predictive: Distribution, test: TaskData) -> dict[str, float]:
    """Compute accuracy or nmse, nll and calibration of all rows, in standardized units."""
    assert test.y is not None
    y, nll = test.y[test.mask], -predictive.log_prob(test.y)[test.mask].mean().item()
    if test.classes is not None:
        proba = predictive.probs[test.mask].double().numpy()  # type: ignore[attr-defined]
        return {
            "accuracy": float(np.mean(proba.argmax(1) == y.numpy())),
            "nll": nll,
            "ece": expected_calibration_error(proba, y.numpy()),
        }
    error = (predictive.mean[test.mask] - y).square().mean() / y.var(correction=0)
    inside = (predictive.cdf(test.y)[test.mask] - 0.5).abs() <= 0.45
    return {"nmse": error.item(), "nll": nll, "coverage_90": inside.float().mean().item()}


def main() -> None:
    """Print mean and standard error of each variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="number of splits")
    parser.add_argument("--rows", nargs="+", default=ROWS, help="data sets of the suite")
    args = parser.parse_args()
    for row in args.rows:  # before any fit
        SUITE[row][0].check()
    jobs = [partial(trial, row, seed) for row in args.rows for seed in range(args.seeds)]
    results = Parallel(n_jobs=-1)(delayed(job)() for job in jobs)
    rows = [row for result in results for row in result]
    table = means_and_errors(rows, ["row", "variant"])
    for row, part in table.groupby("row", sort=False):
        print(f"{row}\n{part.droplevel('row').to_string()}\n", flush=True)


if __name__ == "__main__":
    # Worker processes find the functions of an imported module, not those of a script.
    from benchmarks import ablation

    ablation.main()
