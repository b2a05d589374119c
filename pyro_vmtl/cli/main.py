"""``pyro-vmtl``: the commands and their options."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from pyro_vmtl._version import __version__

__all__ = ["app"]

# The commands import what they need when they run, so that --help does not wait for torch.

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)

Device = Annotated[str, typer.Option(help="Device to predict on: cpu or cuda.")]
Spreadsheet = Annotated[
    bool, typer.Option("--spreadsheet", help="Quote text in CSV files that begins like a formula.")
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]
Run = Annotated[Path, typer.Argument(help="Run directory of `pyro-vmtl fit`.")]
Table = Annotated[Path, typer.Argument(help="Table: CSV, Parquet or .npz.")]


def _show_version(value: bool) -> None:
    if value:
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
    """Variational multi-task learning: many small related tasks that borrow from one another."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: a fit keeps its state


@app.command()
def fit(
    source: Annotated[
        str | None,
        typer.Argument(help="Table to fit (CSV, Parquet or .npz), or 'digits' for the example."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Column to predict; or several, comma-separated, without --task."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Column with the task of each row.")] = None,
    features: Annotated[
        str | None,
        typer.Option(help="Comma-separated columns to learn from.  [default: all others]"),
    ] = None,
    missing: Annotated[
        str | None,
        typer.Option(help="Comma-separated entries that are missing values, such as NA,None."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="classification, regression or counts.  [default: guessed and reported]"),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="Preset to fit; 'shared' takes a fifth of the time.  [default: default]"),
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(help="Fraction of each task's rows to hold out for testing.  [default: 0]"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the split and the fit.  [default: 0]")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device to fit on: cpu or cuda.  [default: cpu]")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Run directory to write.  [default: runs/SOURCE]")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file with these options; the command line takes precedence."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew, and replace an earlier run in --out.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted fit.")] = False,
    spreadsheet: Spreadsheet = False,
    as_json: AsJSON = False,
) -> None:
    """Fit a table with many tasks, or the digits example, and write a run directory.

    Examples
    --------
    pyro-vmtl fit exams.csv --target score --task school --holdout 0.25

    pyro-vmtl fit sales.parquet --target sold --task shop --kind counts --features price,day

    pyro-vmtl fit --config runs/exams/config.toml --seed 1 --out runs/exams-1

    pyro-vmtl fit days.csv --target rain,mood,sales

    A run directory holds report.html with its pictures, metrics.json, summary.csv, relatedness.csv,
    draws for ArviZ (posterior.nc), the settings that reproduce it (config.toml) and the fitted
    estimator. The state of a running fit is kept in OUT.checkpoints: after any interruption, the
    same command with --resume continues it, to the same numbers.
    """
    from pyro_vmtl.cli.settings import read_settings, split_names
    from pyro_vmtl.cli.user_errors import report_user_errors

    with report_user_errors(as_json=as_json):
        given = {
            "source": source,
            "target": target,
            "task": task,
            "features": None if features is None else split_names(features),
            "missing": None if missing is None else split_names(missing),
            "kind": kind,
            "method": method,
            "holdout": holdout,
            "seed": seed,
            "device": device,
            "out": out,
            "spreadsheet": spreadsheet or None,
        }
        settings = read_settings(given, config)
    from pyro_vmtl.cli.outputs_command import fit_outputs_table, several_targets

    if several_targets(settings):
        fit_outputs_table(settings, overwrite=overwrite, as_json=as_json)
        return
    from pyro_vmtl.cli.fit_command import run_fit

    run_fit(settings, overwrite=overwrite, resume=resume, as_json=as_json)


@app.command()
def predict(
    run: Run,
    table: Table,
    out: Annotated[Path, typer.Option(help="File to write, .csv or .parquet.")],
    known: Annotated[
        str | None,
        typer.Option(help="Of several targets, those that TABLE knows, comma-separated."),
    ] = None,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    spreadsheet: Spreadsheet = False,
    as_json: AsJSON = False,
) -> None:
    """Predict the rows of a table with the columns of the fit.

    Missing values, new categories and new tasks are handled and reported. Classification writes the
    predicted class and the probability of each class; otherwise the mean, the standard deviation
    and the bounds of the central intervals of 50 and 90 % are written.

    Example: pyro-vmtl predict runs/exams new.csv --out predictions.csv
    """
    options = {"overwrite": overwrite, "spreadsheet": spreadsheet, "as_json": as_json}
    if _of_outputs(run):
        from pyro_vmtl.cli.outputs_command import predict_outputs_table
        from pyro_vmtl.cli.settings import split_names

        predict_outputs_table(run, table, out, split_names(known or ""), **options)
        return
    from pyro_vmtl.cli.run_commands import run_predict
    from pyro_vmtl.cli.user_errors import user_error

    if known is not None:
        user_error("--known is for runs of several targets. Leave it out.")
    run_predict(run, table, out, device=device, **options)


@app.command()
def evaluate(run: Run, table: Table, device: Device = "cpu", as_json: AsJSON = False) -> None:
    """Score a run on the rows of a table whose targets are known.

    Example: pyro-vmtl evaluate runs/exams later.csv
    """
    if _of_outputs(run):
        from pyro_vmtl.cli.outputs_command import evaluate_outputs_table

        evaluate_outputs_table(run, table, as_json=as_json)
        return
    from pyro_vmtl.cli.run_commands import run_evaluate

    run_evaluate(run, table, device=device, as_json=as_json)


@app.command()
def influence(
    run: Run,
    table: Table,
    out: Annotated[Path, typer.Option(help="File to write, .csv or .parquet.")],
    rows: Annotated[
        Path | None,
        typer.Option(help="Table of rows that are to be predicted.  [default: those held out]"),
    ] = None,
    method: Annotated[
        str, typer.Option(help="first-order, newton or refit: more exact, and slower.")
    ] = "first-order",
    refit: Annotated[
        float,
        typer.Option(min=0, max=1, help="Fraction of the rows to refit, the roughest estimates."),
    ] = 0.0,
    report: Annotated[
        bool, typer.Option("--report", help="Add it to the run, and to its report.")
    ] = False,
    device: Device = "cpu",
    overwrite: Overwrite = False,
    as_json: AsJSON = False,
) -> None:
    """Estimate which rows of a fit help or harm the predictions of which task.

    TABLE is the one that was fitted; rows that were held out from it are held out again. For each
    row the file has its task, its influence on the log density of the predicted rows of every task,
    in nats and positive where the row helps, and how far the fit would move without it. A picture
    of the influence between tasks is written beside it. With --report the run and its report keep
    it, with the features of the rows that harm most.

    Example: pyro-vmtl influence runs/exams exams.csv --out influence.csv
    """
    from pyro_vmtl.cli.user_errors import user_error

    if _of_outputs(run):
        user_error("influence is for runs with tasks, and this one has several targets.")
    from pyro_vmtl.cli.influence_command import run_influence

    run_influence(
        run, table, out, rows=rows, method=method, refit=refit, report=report, device=device,
        overwrite=overwrite, as_json=as_json,
    )  # fmt: skip


@app.command()
def report(
    run: Run,
    open_page: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Rewrite the report of a run: tables and pictures, each with its meaning, on one page.

    The page is self-contained; its pictures are in the run directory as PNG and SVG, too.

    Example: pyro-vmtl report runs/exams --open
    """
    if _of_outputs(run):
        from pyro_vmtl.cli.outputs_command import rewrite_outputs_report

        rewrite_outputs_report(run, open_page=open_page, as_json=as_json)
        return
    from pyro_vmtl.cli.run_commands import rewrite_report

    rewrite_report(run, open_page=open_page, as_json=as_json)


@app.command()
def new_variant(
    name: Annotated[str, typer.Argument(help="Name of the module to write, such as robust.")],
) -> None:
    """Write a model and guide of your own to start from, with a test that checks them.

    NAME.py and test_NAME.py are written here; `pytest test_NAME.py` passes as they are. Change the
    model, and run it again: each check that fails names what went wrong, and where.

    Example: pyro-vmtl new-variant robust
    """
    from pyro_vmtl.cli.new_variant import write_variant
    from pyro_vmtl.cli.user_errors import report_user_errors

    with report_user_errors():
        for path in write_variant(name, Path()):
            typer.echo(path)


def _of_outputs(run: Path) -> bool:
    """Whether a run has several targets, and no tasks."""
    return (run / "outputs").is_dir()
