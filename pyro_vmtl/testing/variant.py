"""What a check is given: how to make the programs of a variant, and rows to run them on."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pyro_vmtl.data.plates import some_tasks
from pyro_vmtl.data.row_batches import Batches
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import evaluating, isolated, validation
from pyro_vmtl.handlers.program_handler import Program, unwrap
from pyro_vmtl.handlers.tracing import reason
from pyro_vmtl.inference.elbo import ELBOTerms, MeanFieldELBO, evaluate
from pyro_vmtl.inference.step import batch_of
from pyro_vmtl.methods.method import Programs
from pyro_vmtl.testing.site_messengers import AtLocations, SiteLines, is_machinery

__all__ = ["NotApplicable", "Variant", "VariantError", "in_double", "refused"]


class VariantError(AssertionError):
    """A check of a variant failed: which one, what it found, and what to change where.

    Examples
    --------
    >>> print(VariantError("padding", "the loss changed.", "mask the plate of rows"))
    padding: the loss changed.
      mask the plate of rows
    """

    def __init__(self, check: str, found: str, change: str, line: str | None = None) -> None:
        where = f"\n  at {line}" if line else ""
        super().__init__(f"{check}: {found}\n  {change}{where}")
        self.check = check


class NotApplicable(Exception):  # noqa: N818 (no error)
    """A check does not apply to a variant: it refuses what the check would try."""


@dataclass(frozen=True, eq=False)
class Variant:
    """A model and guide of your own, to be checked.

    Attributes
    ----------
    make
        Returns model and guide, not yet fitted, for rows, as for :class:`~pyro_vmtl.Programs`.
    data
        Rows with targets, of at least two tasks, some of them with different numbers of rows.
    site
        Name of the observed site.

    Examples
    --------
    >>> Variant(fitted.member.method.programs, data).site
    'y'
    """

    make: Callable[[TaskData], tuple[Program, Program]]
    data: TaskData
    site: str = "y"

    def programs(self, seed: int = 0) -> tuple[nn.Module, nn.Module]:
        """Make the programs, as modules that have not run."""
        return Programs(self.make).initial_programs(self.data, seed)

    def ready(self, *, double: bool = True, seed: int = 0) -> tuple[nn.Module, nn.Module, TaskData]:
        """Make the programs with all parameters, at random numbers, and the rows for them.

        All checks of the loss are in double precision, so that it is told apart from rounding.
        """
        model, guide = self.programs(seed)
        with isolated(seed):
            guide(self.data)
            model.eval(), guide.eval()
            with torch.no_grad():
                for program in (model, guide):
                    for parameter in program.parameters():
                        if parameter.requires_grad:
                            parameter.add_(0.1 * torch.randn_like(parameter))
        if not double:
            return model, guide, self.data
        return model.double(), guide.double(), in_double(self.data)

    def terms(
        self,
        model: nn.Module,
        guide: nn.Module,
        data: TaskData,
        *,
        tasks: Tensor | None = None,
        batches: Batches | None = None,
    ) -> ELBOTerms:
        """Compute the terms of the ELBO at locations, without draws."""
        with (
            isolated(0),
            validation(False),
            evaluating(model, guide),
            AtLocations(),
            some_tasks(tasks),
            batch_of((data,), batches) as args,
        ):
            return evaluate(MeanFieldELBO(), model, guide, *args).terms

    def line_of(self, site: str) -> str | None:
        """Return the file and line that sample a site of the model, if it runs."""
        model, sites = self.programs()[0], SiteLines()
        # where the model fails, the lines before it are enough
        with suppress(Exception), sites, isolated(0), validation(False):
            unwrap(model)(self.data)
        return sites.lines.get(site)

    def fails(self, check: str, found: str, change: str, site: str | None = None) -> VariantError:
        """Return the error of a check, with the line that samples a site."""
        return VariantError(check, found, change, None if site is None else self.line_of(site))

    @contextmanager
    def errors_of(self, check: str, doing: str, change: str) -> Iterator[None]:
        """Raise what goes wrong in here as an error of a check, with the user's line."""
        try:
            yield
        except (VariantError, NotApplicable):
            raise
        except Exception as error:
            found = f"{doing}: {type(error).__name__}: {reason(error)}"
            raise VariantError(check, found, change, _line_of_error(error)) from error


def in_double(data: TaskData) -> TaskData:
    """Return rows in double precision."""
    made = data.map_rows(lambda values: values.double() if values.is_floating_point() else values)
    if data.attended is None:
        return made
    return replace(made, attended=replace(data.attended, x=data.attended.x.double()))


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Make errors in here say that a check does not apply."""
    try:
        yield
    except (ValueError, RuntimeError, IndexError) as error:
        raise NotApplicable(f"{what}: {str(error).splitlines()[0]}") from error


def _line_of_error(error: Exception) -> str | None:
    """Return the innermost line of the user's in a traceback."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not is_machinery(frame.filename)
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None
