"""The main job over several seeds: on test images, or on validation images to choose settings.

python -m benchmarks.digits                          seeds 0 to 4, test images, with baselines
python -m benchmarks.digits --validation             one row per setting, seeds 100 to 109
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import pandas as pd
import torch
from joblib import Parallel, delayed

from pyro_vmtl import GaussianSumPool, LinearPool
from pyro_vmtl.analysis import own_group_share
from pyro_vmtl.cli.digits import baseline_metrics, fit_digits
from pyro_vmtl.datasets import rotated_digits
from pyro_vmtl.methods.presets import DEFAULT, PAPER, SHARED, Method

KL_WEIGHT = SHARED.kl_weights["w"]
GROUPS = (0, 0, 0, 1, 1, 1)

# What each row changes in the shared member of the default, alone and as it is.
SETTINGS: dict[str, dict] = {
    f"shared (KL weight {KL_WEIGHT})": {},
    **{f"KL weight {w}": {"kl_weights": {"w": w}} for w in (0.03, 0.1, 0.3, 0.5, 1.0)},
    "start at even weights": {"sharing": {"start": "even"}},
    "no prior on the source weights": {"sharing": {"weights_prior": False}},
    "no base": {"sharing": {"base": False}},
    "no transfer scale": {"sharing": {"transfer": None}},
    "transfer scale per dimension": {"sharing": {"transfer": "dimension"}},
    "no anchor": {"sharing": {"min_base_weight": 0.0}},
    "detached sources": {"sharing": {"detach_sources": True}},
    "Gaussian sum pool": {"sharing": {"pool": GaussianSumPool}},
    "linear pool": {"sharing": {"pool": LinearPool}},
    "linear pool, all refinements off": {"sharing": PAPER.sharing},
    "not shared, zero-mean prior": {"shared": (), "sharing": {}},
    "not shared, hierarchical prior": {
        "shared": (),
        "sharing": {},
        "hierarchical": True,
        "kl_weights": {"w": KL_WEIGHT, "w_mean": KL_WEIGHT},
    },
}


def on_test_images(seed: int) -> list[dict]:
    """One seed of the main job and its baselines."""
    torch.set_num_threads(1)
    split = rotated_digits(seed=seed)
    run = fit_digits(split, seed=seed)
    own = own_group_share(run.relatedness.xs("mean", axis=1, level=1).to_numpy(), GROUPS).min()
    rows = [
        {"method": "VMTL", "seed": seed, **run.metrics.mean(), "own group": own}
        | {"fit seconds": run.result.seconds}
    ]
    for name, metrics in baseline_metrics(split).items():
        rows.append({"method": name, "seed": seed, **metrics.mean()})
    return rows


def on_validation_images(name: str, seed: int) -> list[dict]:
    """One seed of one setting."""
    torch.set_num_threads(1)
    split = rotated_digits(seed=seed, validation=True)
    method: Method = DEFAULT
    if name != "default":
        changes = SETTINGS[name]
        sharing = {**SHARED.sharing, **changes.get("sharing", {})}
        method = replace(SHARED, **{**changes, "sharing": sharing})
    run = fit_digits(split, seed=seed, method=method)
    return [{"method": name, "seed": seed, **run.metrics.mean()}]


def summary(rows: Iterable[dict]) -> pd.DataFrame:
    """Mean and standard error over the seeds."""
    groups = pd.DataFrame(rows).groupby("method", sort=False)
    numbers = groups.mean().drop(columns="seed")
    errors = groups.sem().drop(columns="seed")
    return pd.DataFrame(
        {
            c: [f"{m:.4f} ± {e:.4f}" for m, e in zip(numbers[c], errors[c], strict=True)]
            for c in numbers
        },
        index=numbers.index,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--validation", action="store_true", help="settings on validation images")
    parser.add_argument("--seeds", type=int, help="how many; 5, or 10 with --validation")
    args = parser.parse_args()
    jobs: list[Callable[[], list[dict]]]
    if args.validation:
        seeds = range(100, 100 + (args.seeds or 10))
        names = ("default", *SETTINGS)
        jobs = [partial(on_validation_images, name, s) for name in names for s in seeds]
    else:
        jobs = [partial(on_test_images, seed) for seed in range(args.seeds or 5)]
    results = Parallel(n_jobs=-1)(delayed(job)() for job in jobs)
    rows = [row for result in results for row in result]
    if not args.validation:
        print(pd.DataFrame(rows).round(4).to_string(index=False), end="\n\n")
    print(summary(rows).to_string())


if __name__ == "__main__":
    # Worker processes find the functions of an imported module, not those of a script.
    from benchmarks import digits

    digits.main()
