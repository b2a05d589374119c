"""The command ``python -m benchmarks NAME``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from pyro_vmtl.cli.user_errors import user_error
from pyro_vmtl.estimators import check_device

__all__ = ["app", "benchmark"]

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def benchmark(
    name: Annotated[
        str,
        typer.Argument(
            help="curves, digits, digits-angle, grouped-table, office-caltech, random-slopes, "
            "rotated-mnist, school, synthetic, or suite for many of them at several sizes."
        ),
    ],
    percent: Annotated[
        float | None, typer.Option(help="Training rows in percent (digits, office-caltech).")
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(help="Training rows per task (all with a number of them)."),
    ] = None,
    features: Annotated[str | None, typer.Option(help="effnet or surf (office-caltech).")] = None,
    lists: Annotated[
        str | None,
        typer.Option(help="random splits, or mrn for the published lists (office-caltech)."),
    ] = None,
    groups: Annotated[int | None, typer.Option(help="Groups of tasks (curves, synthetic).")] = None,
    kind: Annotated[
        str | None, typer.Option(help="regression, classification or counts (curves).")
    ] = None,
    table: Annotated[str | None, typer.Option(help="Name of the table (grouped-table).")] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of splits: random ones, or the first published ones.")
    ] = 3,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated names of methods. By default all but linear-mixed-model, "
            "linear-mixed-model-selected, boosted-mixed-model, lightgbm-task and nuts; for the "
            "suite a selection."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Number of fits in parallel; -1 uses all cores.")] = -1,
    validation: Annotated[
        bool, typer.Option("--validation", help="Test on held-out training rows.")
    ] = False,
    device: Annotated[str, typer.Option(help="Device to fit on: cpu or cuda.")] = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(help="Directory for the results; runs/benchmark-NAME... by default."),
    ] = None,
) -> None:
    """Compare methods on a data set, over splits and seeds.

    Run the command again to resume an interrupted benchmark, or to add seeds or methods: finished
    fits are not repeated, and tables and figure show what was last requested. Data sets that are
    not bundled are read from the directory PYRO_VMTL_DATA.

    For example:

    python -m benchmarks office-caltech --percent 5 --seeds 3

    python -m benchmarks suite --seeds 5 --methods default,per-task,pooled
    """
    if jobs == 0:
        user_error("--jobs is 0, expected 1 or more, or -1 for all cores.")
    given = {"percent": percent, "rows": rows, "features": features, "lists": lists}
    given |= {"groups": groups, "kind": kind, "table": table}
    options = {option: value for option, value in given.items() if value is not None}
    _check_options(name, options)
    out = out or Path("runs") / _directory_name(name, options, validation=validation)
    with _user_errors(out):
        check_device(device)
    run = _run_suite if name == "suite" else _run_data_set
    failed = run(
        name,
        options,
        methods,
        out=out,
        jobs=jobs,
        splits={"seeds": seeds, "validation": validation, "device": device},
    )
    if failed:
        raise typer.Exit(1)


def _run_data_set(
    name: str,
    options: Mapping[str, Any],
    methods: str | None,
    *,
    out: Path,
    jobs: int,
    splits: Mapping[str, Any],
) -> bool:
    """Run one data set; return whether any trial failed."""
    from benchmarks.datasets import DATA_SETS
    from benchmarks.methods import ON_REQUEST, methods_for
    from benchmarks.output import show_benchmark, write_benchmark
    from benchmarks.runs import make_trials, run_benchmark

    with _user_errors(out):
        data_set = DATA_SETS[name](**options)
        data_set.check()
    possible = methods_for(data_set)
    default = [method for method in possible if method not in ON_REQUEST]
    chosen = default if methods is None else _chosen(methods, possible)
    limit = data_set.num_splits
    if limit is not None and splits["seeds"] > limit:
        user_error(f"--seeds is {splits['seeds']}, expected at most {limit} published splits.")
    with _user_errors(out):
        outcome = run_benchmark(make_trials(data_set, chosen, **splits), out, jobs=jobs)
    if not outcome.results.empty:
        write_benchmark(outcome, out)
    show_benchmark(outcome, out)
    return bool(outcome.failed)


def _run_suite(
    name: str,
    options: Mapping[str, Any],
    methods: str | None,
    *,
    out: Path,
    jobs: int,
    splits: Mapping[str, Any],
) -> bool:
    """Run all data sets; return whether any trial failed."""
    from benchmarks.suite import METHODS, check_suite, run_suite, show_suite, write_suite

    with _user_errors(out):
        check_suite()
    chosen = [*METHODS] if methods is None else _chosen(methods, METHODS)
    with _user_errors(out):
        outcome = run_suite(out, chosen, jobs=jobs, **splits)
    if not outcome.results.empty:
        write_suite(outcome, out)
    show_suite(outcome, out)
    return bool(outcome.failed)


def _check_options(name: str, options: Mapping[str, object]) -> None:
    """Check that the data set exists and has each option."""
    from benchmarks.datasets import DATA_SETS

    if name != "suite" and name not in DATA_SETS:
        user_error(f"NAME is {name!r}, expected one of {', '.join(DATA_SETS)} or suite.")
    known = set() if name == "suite" else {field.name for field in fields(DATA_SETS[name])}
    for option in options:
        if option not in known:
            which = "the suite" if name == "suite" else name
            user_error(f"--{option} does not apply to {which}. Leave it out.")


def _directory_name(name: str, options: Mapping[str, object], *, validation: bool) -> str:
    parts = [f"benchmark-{name}"]
    for option, value in options.items():
        parts.append(f"{option}-{value:g}" if isinstance(value, float) else f"{option}-{value}")
    return "-".join([*parts, *(["validation"] if validation else [])])


@contextmanager
def _user_errors(out: Path) -> Iterator[None]:
    """Report what cannot be read or written, and how to resume after an interruption."""
    try:
        yield
    except (ValueError, OSError) as error:
        user_error(str(error))
    except KeyboardInterrupt:
        typer.echo(
            f"Interrupted. Finished fits are in {out}; repeat the command to resume.", err=True
        )
        raise typer.Exit(130) from None


def _chosen(methods: str, possible: Sequence[str]) -> list[str]:
    """Return the requested methods."""
    chosen = [method.strip() for method in methods.split(",")]
    for method in chosen:
        if method not in possible:
            user_error(f"--methods has {method!r}, expected some of {', '.join(possible)}.")
    return chosen
