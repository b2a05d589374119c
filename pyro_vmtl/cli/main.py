"""``pyro-vmtl``: the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pyro_vmtl._version import __version__

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Many small related learning problems: let each borrow from the right others."""


@app.command()
def fit(
    source: Annotated[str, typer.Argument(help="Data to fit: 'digits', embedded real data.")],
    out: Annotated[
        Path | None, typer.Option(help="Run directory to write; runs/SOURCE by default.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split and of the fit.")] = 0,
    device: Annotated[str, typer.Option(help="Where to fit: cpu or cuda.")] = "cpu",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run in --out.")
    ] = False,
) -> None:
    """Fit VMTL, compare it with plain logistic regressions, and write a run directory.

    Example: pyro-vmtl fit digits --seed 1 --out runs/digits-1
    """
    if source != "digits":
        _user_error(f"SOURCE is {source!r}, expected 'digits', the only data set so far.")
    out = Path("runs") / source if out is None else out

    # Imported here, so that `--help` does not wait for it.
    import matplotlib
    import torch

    from pyro_vmtl.cli.digits import KL_WEIGHT, baseline_metrics, fit_digits
    from pyro_vmtl.cli.runs import check_free, write_run
    from pyro_vmtl.cli.tables import show_run
    from pyro_vmtl.datasets import rotated_digits

    try:
        check_free(out, overwrite=overwrite)
    except OSError as error:
        _user_error(str(error))
    _check_device(device)
    matplotlib.use("agg")  # pictures go to files: no window, no display needed
    torch.set_num_threads(1)  # on matrices as small as these, threads only wait for one another

    split = rotated_digits(seed=seed)
    run = fit_digits(split, seed=seed, device=device, progress=True)
    baselines = baseline_metrics(split)
    settings = {"source": source, "seed": seed, "device": device, "kl_weight": KL_WEIGHT}
    write_run(run, baselines, out, settings=settings, overwrite=overwrite)
    show_run(run, baselines, out)
    if run.result.stopped == "interrupted":
        raise typer.Exit(130)


def _user_error(message: str) -> NoReturn:
    typer.secho(f"Error: {message}", err=True, fg="red")
    raise typer.Exit(2)


def _check_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        _user_error(f"--device {device} cannot be used ({reason}). Use --device cpu.")
