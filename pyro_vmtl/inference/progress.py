"""Progress bars of one fit and of several fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pyro_vmtl.inference.elbo import ELBOTerms

__all__ = ["Report", "fits_bar", "progress_bar"]

Report = Callable[[int, int, ELBOTerms], None]

_of_fits: ContextVar[Callable[[float], None]] = ContextVar("_of_fits", default=lambda part: None)
"""Reports the completed fraction of the current fit to the bar of several fits, if any."""

SPEED_SECONDS = 24 * 3600.0
"""Window of the estimated speed. Fits are unequal, so that of the last seconds misleads."""


@contextmanager
def progress_bar(num_steps: int, *, visible: bool) -> Iterator[Report]:
    """Show step, loss, log-likelihood, KL and remaining time, on standard error.

    Yield a function of the number of steps done, their maximum number, and the terms of the loss.
    """
    if not visible:
        outer = _of_fits.get()
        yield lambda done, total, terms: outer(done / total)
        return

    with _bar("fitting", num_steps) as (bar, task):

        def report(done: int, total: int, terms: ELBOTerms) -> None:
            log_likelihood, kl = (
                sum(float(values.sum()) for values in kind.values())
                for kind in vars(terms).values()
            )
            loss = kl - log_likelihood
            numbers = f"loss {loss:.1f} = KL {kl:.1f} - log-likelihood {log_likelihood:.1f}"
            bar.update(task, completed=done, total=total, now=numbers)

        yield report


@contextmanager
def fits_bar(num_fits: int, *, visible: bool) -> Iterator[Callable[[str], None]]:
    """Show which of several fits is running, and the remaining time, on standard error.

    Yield a function of the name of each fit, to be called as it starts. The steps of fits without
    a visible bar of their own advance this one.
    """
    if not visible:
        yield lambda name: None
        return

    with _bar("fits", num_fits) as (bar, task):
        begun = 0

        def report(name: str) -> None:
            nonlocal begun
            bar.update(task, completed=begun, now=name)
            begun += 1

        before = _of_fits.set(lambda part: bar.update(task, completed=begun - 1 + part))
        try:
            yield report
        finally:
            _of_fits.reset(before)
        bar.update(task, completed=num_fits, now="done")


@contextmanager
def _bar(what: str, total: int) -> Iterator[tuple[Any, Any]]:
    """Show a bar with a field ``now``, and yield it with its task."""
    from rich import progress
    from rich.console import Console

    columns = (
        *(what, progress.BarColumn(), progress.MofNCompleteColumn(), "{task.fields[now]}"),
        progress.TimeRemainingColumn(compact=True),
    )
    console = Console(stderr=True)
    with progress.Progress(*columns, console=console, speed_estimate_period=SPEED_SECONDS) as bar:
        yield bar, bar.add_task("", total=total, now="")
