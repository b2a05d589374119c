"""``pyro-vmtl``: the commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

# Commands import what they need when they run, so that `--help` answers at once.
if TYPE_CHECKING:
    from pyro_vmtl.cli.digits import DigitsRun

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)


@app.callback()
def about() -> None:
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

    import matplotlib

    from pyro_vmtl.cli.digits import KL_WEIGHT, fit_digits
    from pyro_vmtl.cli.runs import check_free, write_run
    from pyro_vmtl.datasets import rotated_digits

    try:
        check_free(out, overwrite=overwrite)
    except OSError as error:
        _user_error(str(error))
    _check_device(device)
    matplotlib.use("agg")  # pictures go to files: no window, no display needed

    run = fit_digits(rotated_digits(seed=seed), seed=seed, device=device, progress=True)
    settings = {"source": source, "seed": seed, "device": device, "kl_weight": KL_WEIGHT}
    write_run(run, out, settings=settings, overwrite=overwrite)
    _show(run, out)
    if run.result.stopped == "interrupted":
        raise typer.Exit(130)


def _user_error(message: str) -> None:
    typer.secho(f"Error: {message}", err=True, fg="red")
    raise typer.Exit(2)


def _check_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        _user_error(f"--device {device} cannot be used ({reason}). Use --device cpu.")


def _show(run: DigitsRun, out: Path) -> None:
    """Print the tables, and where the rest is."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(Console().width, 100))
    names = {"vmtl": "VMTL", "single_task": "per task", "pooled": "pooled"}
    higher_is_better = {"accuracy": True, "nll": False, "ece": False}
    table = Table(title="On test images: VMTL beside logistic regression per task and pooled")
    table.add_column("task (degrees)")
    for metric in higher_is_better:
        for name in names.values():
            table.add_column(f"{metric}\n{name}", justify="right")
    tasks = list(run.data.task_labels)
    for task in [*tasks, "mean"]:
        cells = []
        for metric, higher in higher_is_better.items():
            values = [
                run.metrics[n][metric].mean() if task == "mean" else run.metrics[n].at[task, metric]
                for n in names
            ]
            best = max(values) if higher else min(values)
            cells += [f"[bold]{v:.3f}[/bold]" if v == best else f"{v:.3f}" for v in values]
        table.add_row(str(task), *cells, end_section=task == tasks[-1])
    console.print(table)

    table = Table(title="Relatedness: mean weight [90 % interval] of each source")
    table.add_column("task")
    sources = list(dict.fromkeys(run.relatedness.columns.get_level_values(0)))
    for source in sources:
        table.add_column(str(source), justify="center")
    for task, row in run.relatedness.iterrows():
        cells = [
            "–"
            if source == task
            else f"{row[source, 'mean']:.2f}\n[{row[source, '5%']:.2f}, {row[source, '95%']:.2f}]"
            for source in sources
        ]
        table.add_row(str(task), *(cell.replace("[", "\\[") for cell in cells))
    console.print(table)

    result = run.result
    console.print(
        f"Fitted in {result.seconds:.1f} s, {len(result.history.loss)} steps ({result.stopped}).",
        f"Results: {out / 'metrics.json'}, {out / 'relatedness.csv'}",
        f"Pictures: {out / 'relatedness.png'}, {out / 'learning_curves.png'}",
        sep="\n",
        highlight=False,
        soft_wrap=True,
    )
