"""Settings of the shared member of the default, on validation images of the rotated digits.

python -m benchmarks.digits --seeds 10
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from joblib import Parallel, delayed

from benchmarks.datasets.digits import Digits
from benchmarks.means import means_and_errors
from benchmarks.trials import Trial, run_trial
from pyro_vmtl import GaussianSumPool, LinearPool
from pyro_vmtl.analysis import ALL_TASKS
from pyro_vmtl.methods.method import Method
from pyro_vmtl.methods.presets import DEFAULT, PAPER, SHARED

KL_WEIGHT = SHARED.kl_weights

# What each row changes in the shared member, fitted alone.
SETTINGS: dict[str, dict] = {
    f"shared (KL weight {KL_WEIGHT})": {},
    **{f"KL weight {w}": {"kl_weights": w} for w in (0.03, 0.1, 0.3, 0.5, 1.0)},
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
    },
}


def settings(name: str) -> Method:
    """Return the method of a row."""
    if name == "default":
        return DEFAULT
    changes = SETTINGS[name]
    sharing = {**SHARED.sharing, **changes.get("sharing", {})}
    return replace(SHARED, **{**changes, "sharing": sharing})


def run(name: str, seed: int) -> dict:
    """Fit one setting to one seed's images."""
    torch.set_num_threads(1)
    results = run_trial(Trial(Digits(), seed, name, settings(name), validation=True))
    overall = results[results["task"] == ALL_TASKS].set_index("metric")["value"]
    return {"settings": name, "seed": seed, **overall}


def main() -> None:
    """Print mean and standard error of each setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="number of splits")
    seeds = range(100, 100 + parser.parse_args().seeds)
    names = ("default", *SETTINGS)
    rows = Parallel(n_jobs=-1)(delayed(run)(name, seed) for name in names for seed in seeds)
    print(means_and_errors(rows, ["settings"]).to_string())


if __name__ == "__main__":
    # Worker processes find the functions of an imported module, not those of a script.
    from benchmarks import digits

    digits.main()
