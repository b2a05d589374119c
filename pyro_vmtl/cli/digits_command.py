"""``pyro-vmtl fit digits``: the embedded data, beside plain logistic regressions."""

from __future__ import annotations

import matplotlib
import torch
import typer

from pyro_vmtl.cli.digits import baseline_metrics, fit_digits
from pyro_vmtl.cli.runs import METRICS, write_run
from pyro_vmtl.cli.settings import FitSettings
from pyro_vmtl.cli.tables import show_run
from pyro_vmtl.cli.user_errors import check_device, told, user_error
from pyro_vmtl.data.atomic_files import check_writable
from pyro_vmtl.datasets import rotated_digits
from pyro_vmtl.methods.presets import DEFAULT

__all__ = ["fit_digits_run"]


def fit_digits_run(settings: FitSettings, *, overwrite: bool) -> None:
    """Fit the digits, and write a run directory."""
    for name in ("target", "task", "features", "kind"):
        if getattr(settings, name) is not None:
            user_error(f"--{name} is for tables, and SOURCE is 'digits'. Leave it out.")
    seed, device, out = settings.seed, settings.device, settings.folder
    with told():
        check_writable(out, overwrite=overwrite, marker=METRICS)
    check_device(device)
    matplotlib.use("agg")  # pictures go to files: no window, no display needed
    torch.set_num_threads(1)  # on matrices as small as these, threads only wait for one another

    split = rotated_digits(seed=seed)
    run = fit_digits(split, seed=seed, device=device, progress=True)
    baselines = baseline_metrics(split)
    kept = {"source": "digits", "seed": seed, "device": device, "preset": str(DEFAULT)}
    write_run(run, baselines, out, settings=kept, overwrite=overwrite)
    show_run(run, baselines, out)
    if run.result.stopped == "interrupted":
        raise typer.Exit(130)
