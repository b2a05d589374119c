"""``pyro-vmtl benchmark``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pyro_vmtl.cli.user_errors import check_device, user_error

__all__ = ["benchmark"]


def benchmark(
    name: Annotated[
        str,
        typer.Argument(
            help="digits, digits-angle, office-caltech, rotated-mnist, school, synthetic, or "
            "suite: all of them, at several sizes."
        ),
    ],
    percent: Annotated[
        float | None, typer.Option(help="Training rows in percent (digits, office-caltech).")
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(help="Training rows of each task (digits-angle, rotated-mnist, synthetic)."),
    ] = None,
    features: Annotated[str | None, typer.Option(help="effnet or surf (office-caltech).")] = None,
    lists: Annotated[
        str | None, typer.Option(help="random or mrn, the published lists (office-caltech).")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of splits: random ones, or the first published ones.")
    ] = 3,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Names of methods, with commas between; by default all, for the suite a choice."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Fits at once; as many as cores by default.")] = -1,
    validation: Annotated[
        bool, typer.Option("--validation", help="Test on held-out training rows.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where to fit: cpu or cuda.")] = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="Directory of the results; runs/benchmark-... by default.")
    ] = None,
) -> None:
    """Compare methods on a data set, over splits and seeds.

    Run it again to go on where it was interrupted, or with more seeds or methods: fits that are
    done are not done again, and tables and picture show what was asked for last. Data sets that are
    not embedded are read from the folder PYRO_VMTL_DATA.

    Examples: pyro-vmtl benchmark office-caltech --percent 5 --seeds 3

    pyro-vmtl benchmark suite --seeds 5 --methods default,per-task,pooled
    """
    from dataclasses import fields

    from pyro_vmtl.datasets import DATA_SETS

    if jobs == 0:
        user_error("--jobs is 0, expected 1 or more, or -1 for as many as cores.")
    given = {"percent": percent, "rows": rows, "features": features, "lists": lists}
    options = {option: value for option, value in given.items() if value is not None}
    if name == "suite":
        for option in options:
            user_error(f"--{option} does not apply to the suite. Leave it out.")
        check_device(device)
        _suite(methods, seeds=seeds, jobs=jobs, validation=validation, device=device, out=out)
        return
    if name not in DATA_SETS:
        user_error(f"NAME is {name!r}, expected one of {', '.join(DATA_SETS)} or suite.")
    known = {field.name for field in fields(DATA_SETS[name])}  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            user_error(f"--{option} does not apply to {name}. Leave it out.")
    try:
        data_set = DATA_SETS[name](**options)
        data_set.check()
    except (ValueError, OSError) as error:
        user_error(str(error))
    check_device(device)

    import matplotlib

    from benchmarks.output import show_benchmark, write_benchmark
    from benchmarks.runs import make_trials, methods_for, run_benchmark

    matplotlib.use("agg")
    chosen = _chosen(methods, methods_for(data_set))
    if data_set.num_splits is not None and seeds > data_set.num_splits:
        user_error(f"--seeds is {seeds}, expected at most {data_set.num_splits} published splits.")
    if out is None:
        settings = "".join(
            f"-{option}-{value:g}" if isinstance(value, float) else f"-{option}-{value}"
            for option, value in options.items()
        )
        out = Path("runs") / f"benchmark-{name}{settings}{'-validation' if validation else ''}"
    trials = make_trials(
        data_set,
        chosen,
        seeds=seeds,
        validation=validation,
        device=device,
    )
    with _told(out):
        outcome = run_benchmark(trials, out, jobs=jobs)
    if not outcome.results.empty:
        write_benchmark(outcome, out)
    show_benchmark(outcome, out)
    if outcome.failed:
        raise typer.Exit(1)


def _suite(
    methods: str | None,
    *,
    seeds: int,
    jobs: int,
    validation: bool,
    device: str,
    out: Path | None,
) -> None:
    """Run all data sets."""
    import matplotlib

    from benchmarks.suite import METHODS, check_suite, run_suite, show_suite, write_suite

    matplotlib.use("agg")
    try:
        check_suite()
    except (ValueError, OSError) as error:
        user_error(str(error))
    chosen = _chosen(methods, METHODS)
    if out is None:
        out = Path("runs") / f"benchmark-suite{'-validation' if validation else ''}"
    with _told(out):
        outcome = run_suite(
            out, chosen, seeds=seeds, jobs=jobs, validation=validation, device=device
        )
    if not outcome.results.empty:
        write_suite(outcome, out)
    show_suite(outcome, out)
    if outcome.failed:
        raise typer.Exit(1)


@contextmanager
def _told(out: Path) -> Iterator[None]:
    """Tell what cannot be written, and how an interrupted benchmark goes on."""
    try:
        yield
    except OSError as error:
        user_error(str(error))
    except KeyboardInterrupt:
        typer.echo(f"Interrupted. What is done is in {out}; the same command goes on.", err=True)
        raise typer.Exit(130) from None


def _chosen(methods: str | None, possible: Sequence[str]) -> list[str]:
    """Give the methods that were asked for."""
    chosen = list(possible) if methods is None else [m.strip() for m in methods.split(",")]
    for method in chosen:
        if method not in possible:
            user_error(f"--methods has {method!r}, expected some of {', '.join(possible)}.")
    return chosen
