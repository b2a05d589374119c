"""Run directories: everything a run leaves behind, written whole or not at all."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyro
import torch
from safetensors.torch import save_model
from torch import nn

from pyro_vmtl import __version__
from pyro_vmtl.analysis import write_netcdf
from pyro_vmtl.cli.digits import DigitsRun
from pyro_vmtl.cli.run_report import METRICS, POSTERIOR, write_run_report
from pyro_vmtl.data.atomic_files import new_directory
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.member import Member

__all__ = ["METRICS", "flat_relatedness", "write_run"]


def write_run(
    run: DigitsRun,
    baselines: dict[str, pd.DataFrame],
    out: Path,
    *,
    settings: dict[str, Any],
    overwrite: bool,
) -> None:
    """Write metrics, relatedness, weights and pictures of a run.

    Parameters
    ----------
    run
        What to write.
    baselines
        For each baseline its metrics.
    out
        The run directory to make.
    settings
        What the user asked for.
    overwrite
        May an earlier run be there? It stays until the new one is complete.
    """
    with new_directory(out, overwrite=overwrite, marker=METRICS) as folder:
        metrics = {**_metrics(run, baselines), "settings": settings}
        _write_json(folder / METRICS, metrics)
        flat_relatedness(run.relatedness).to_csv(folder / "relatedness.csv")
        weights = folder / "weights.safetensors"
        save_model(_programs(run), str(weights))  # save_file objects to tensors held in common
        weights.chmod((folder / METRICS).stat().st_mode)  # safetensors would keep it to the owner
        _write_json(folder / "config.json", {**_config(run), "settings": settings})
        write_netcdf(run.tree, folder / POSTERIOR)
        write_run_report(folder, metrics, run.tree, out=out)


def _programs(run: DigitsRun) -> nn.ModuleDict:
    """Model and guide, of each member where there are several."""
    fitted = run.fitted
    if len(fitted.members) > 1:
        return nn.ModuleDict({name: _pair(member) for name, member in fitted.members.items()})
    return _pair(fitted)


def _pair(fitted: Fitted | Member) -> nn.ModuleDict:
    return nn.ModuleDict({"model": fitted.model, "guide": fitted.guide})


def _metrics(run: DigitsRun, baselines: dict[str, pd.DataFrame]) -> dict[str, Any]:
    def per_task(table: pd.DataFrame) -> dict[str, Any]:
        return {str(task): row.to_dict() for task, row in table.iterrows()}

    return {
        "kind": "classification",
        "tasks": run.data.num_tasks,
        "rows": {"fit": int(run.data.mask.sum()), "test": int(run.test.mask.sum())},
        "mean": run.metrics.mean().to_dict(),
        "per_task": per_task(run.metrics),
        "baselines": {
            name: {**table.mean().to_dict(), "per_task": per_task(table)}
            for name, table in baselines.items()
        },
        "members": {
            str(name): {str(task): float(weight) for task, weight in column.items()}
            for name, column in run.members.items()
        },
        "seconds": run.result.seconds,
        "stopped": run.result.stopped,
    }


def _config(run: DigitsRun) -> dict[str, Any]:
    return {
        "tasks": list(run.data.task_labels),
        "classes": list(run.data.classes or ()),
        "num_features": run.data.num_features,  # the intercept included
        "calibrations": {
            name: asdict(calibration)
            for name, calibration in getattr(run.fitted, "calibrations", {}).items()
        },
        "versions": {
            "pyro_vmtl": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pyro": pyro.__version__,
        },
    }


def flat_relatedness(table: pd.DataFrame) -> pd.DataFrame:
    """Name the columns of means as their source, and those of the interval ``source 5%``."""
    means = table.xs("mean", axis=1, level=1)
    bounds = table.drop(columns="mean", level=1)
    bounds.columns = pd.Index([" ".join(map(str, column)) for column in bounds.columns])
    return pd.concat([means, bounds], axis=1)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
