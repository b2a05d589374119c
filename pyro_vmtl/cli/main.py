"""``pyro-vmtl``: the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pyro_vmtl._version import __version__
from pyro_vmtl.cli.user_errors import check_device, told

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)

Device = Annotated[str, typer.Option(help="Where to predict: cpu or cuda.")]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
Run = Annotated[Path, typer.Argument(help="Run directory of `pyro-vmtl fit`.")]
Table = Annotated[Path, typer.Argument(help="Table: CSV, Parquet or .npz.")]


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
    source: Annotated[
        str | None,
        typer.Argument(help="Table to fit (CSV, Parquet or .npz), or 'digits', embedded data."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Column that is to be predicted.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Column that says which task a row is of.")
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="Columns to learn from, with commas; by default all others.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="classification, regression or counts; by default guessed, and told."),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Preset to fit; 'shared' is a fifth of the default's time.")
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(help="Part of each task's rows to keep for testing, such as 0.25; none."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the split and of the fit; 0.")] = None,
    device: Annotated[str | None, typer.Option(help="Where to fit: cpu or cuda; cpu.")] = None,
    out: Annotated[
        str | None, typer.Option(help="Run directory to write; runs/SOURCE by default.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file with these options; those given here go before it."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew, and replace an earlier run in --out.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a fit that was interrupted.")
    ] = False,
    as_json: AsJSON = False,
) -> None:
    """Fit a table of many tasks, or the embedded digits, and write a run directory.

    Examples
    --------
    pyro-vmtl fit exams.csv --target score --task school --holdout 0.25

    pyro-vmtl fit sales.parquet --target sold --task shop --kind counts --features price,day

    pyro-vmtl fit --config runs/exams/config.toml --seed 1 --out runs/exams-1

    A run directory holds report.html with its pictures, metrics.json, summary.csv, relatedness.csv,
    draws for ArviZ (posterior.nc), the settings that reproduce it (config.toml) and all that
    predictions need. While a fit runs, its state is
    kept in OUT.checkpoints: if it is interrupted in any way, the same command with --resume goes
    on, to the same numbers.
    """
    from pyro_vmtl.cli.settings import read_settings

    names = None
    if features is not None:
        names = [name.strip() for name in features.split(",") if name.strip()]
    with told(as_json=as_json):
        given = {
            **{"source": source, "target": target, "task": task, "kind": kind, "method": method},
            **{"holdout": holdout, "seed": seed, "device": device, "out": out},
            "features": names,
        }
        settings = read_settings(given, config)
    if settings.source == "digits":
        from pyro_vmtl.cli.digits_command import fit_digits_run

        fit_digits_run(settings, overwrite=overwrite)
        return
    from pyro_vmtl.cli.table_commands import fit_table_run

    fit_table_run(settings, overwrite=overwrite, resume=resume, as_json=as_json)


@app.command()
def predict(
    run: Run,
    table: Table,
    out: Annotated[Path, typer.Option(help="Predictions to write, .csv or .parquet.")],
    device: Device = "cpu",
    overwrite: Overwrite = False,
    as_json: AsJSON = False,
) -> None:
    """Predict the rows of a table with the columns of the fit.

    Missing values, new categories and new tasks are dealt with, and told. For classes there is a
    column with the prediction and one with the probability of each class; for others there are
    mean, standard deviation and the bounds of the central intervals of 50 and 90 %.

    Example: pyro-vmtl predict runs/exams new.csv --out predictions.csv
    """
    from pyro_vmtl.cli.table_commands import predict_table

    check_device(device)
    predict_table(run, table, out, device=device, overwrite=overwrite, as_json=as_json)


@app.command()
def evaluate(run: Run, table: Table, device: Device = "cpu", as_json: AsJSON = False) -> None:
    """Test a run on the rows of a table whose targets are known.

    Example: pyro-vmtl evaluate runs/exams later.csv
    """
    from pyro_vmtl.cli.table_commands import evaluate_table

    check_device(device)
    evaluate_table(run, table, device=device, as_json=as_json)


@app.command()
def report(
    run: Run,
    open_page: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Write the report of a run anew: tables and pictures, with what they show, in one page.

    The page holds all that it needs; its pictures are in the run directory as PNG and SVG, too.

    Example: pyro-vmtl report runs/exams --open
    """
    from pyro_vmtl.cli.report_command import report_run

    report_run(run, open_page=open_page, as_json=as_json)
