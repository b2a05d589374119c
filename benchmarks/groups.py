"""Measure how well groups of tasks are recovered: weight inside the true group, by rows per task.

python -m benchmarks.groups --picture docs/groups.png
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from joblib import Parallel, delayed
from matplotlib.figure import Figure

from benchmarks.datasets import GroupedTasks
from benchmarks.known_groups import own_group_share
from benchmarks.rows import to_task_data
from pyro_vmtl.analysis import plot_relatedness, relatedness_datatree
from pyro_vmtl.data.atomic_files import atomic_write
from pyro_vmtl.methods.presets import presets

SIZES = ((4, 2), (32, 4), (128, 8))
ROWS = (10, 20, 30, 40, 80)


def share(data_set: GroupedTasks, seed: int) -> dict:
    """Compute the mean share of borrowed weight that comes from a task's own group."""
    torch.set_num_threads(1)
    data, _ = to_task_data(data_set.split(seed), "regression")
    fitted = presets("regression")["default"].many_features.members["shared-kl-1"].fit(data)
    own = own_group_share(fitted.relatedness().mean(0).numpy(), data_set.group)
    return {"tasks": data_set.tasks, "rows": data_set.rows, "seed": seed, "own group": own.mean()}


def picture(path: Path) -> None:
    """Plot the relatedness of 32 tasks in four groups, ordered by group."""
    data_set = GroupedTasks(tasks=32, groups=4)
    data, _ = to_task_data(data_set.split(0), "regression")
    fitted = presets("regression")["default"].fit(data)
    order = sorted(range(32), key=lambda task: data_set.group[task])
    draws = fitted.relatedness()[:, order][:, :, [*order, 32]]
    names = [f"{'ABCD'[data_set.group[task]]}{task // 4 + 1}" for task in order]
    figure = plot_relatedness(relatedness_datatree(draws, names)).get_figure()
    assert isinstance(figure, Figure)
    with atomic_write(path) as scratch:
        figure.savefig(scratch, dpi=100, format="png")


def main() -> None:
    """Print the shares, and draw the figure if its path is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="number of splits")
    parser.add_argument("--picture", type=Path, help="file for the relatedness of 32 tasks")
    args = parser.parse_args()
    jobs = [
        partial(share, GroupedTasks(tasks=tasks, groups=groups, rows=rows), seed)
        for tasks, groups in SIZES
        for rows in ROWS
        for seed in range(args.seeds)
    ]
    table = pd.DataFrame(Parallel(n_jobs=-1)(delayed(job)() for job in jobs))
    groups = table.groupby(["tasks", "rows"])["own group"]
    print(groups.agg(["mean", "sem", "min"]).round(3).to_string())
    if args.picture is not None:
        picture(args.picture)


if __name__ == "__main__":
    # Worker processes find the functions of an imported module, not those of a script.
    from benchmarks import groups

    groups.main()
