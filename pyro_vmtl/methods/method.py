"""Methods: a pair of programs for given rows, and how to fit it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.handlers.own_parameters import as_module
from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.inference.joint import MOST_NUMBERS, CannotJoinError, fit_jointly
from pyro_vmtl.inference.svi import FitResult, fit
from pyro_vmtl.methods.borrowing import Borrowing
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.member import Member, PairMethod

__all__ = ["Method", "ProgramMethod", "Programs"]

LARGE = 200_000
"""Rows, with padding, of large data: all of them take 30 ms a step."""

EVALUATIONS_FROM_START = 100
"""Evaluations of L-BFGS that are enough from the parameters of a fit to similar rows."""


FILE = "fit.pt"
"""Name of the checkpoint in the folder of a fit."""

JOINT_FILE = f"joint-{FILE}"
"""Its name if fits were at once."""


class Method(Protocol):
    """Whatever fits the rows of many tasks.

    Examples
    --------
    >>> class Quick:
    ...     def fit(self, data, **settings):
    ...         return Preset(fitting={"num_steps": 20}).fit(data, **settings)
    >>> from pyro_vmtl import Preset
    >>> Quick().fit(data).num_tasks
    3
    """

    def fit(
        self,
        data: TaskData,
        *,
        seed: int = 0,
        progress: bool = False,
        checkpoints: Path | None = None,
    ) -> Fitted:
        """Fit training rows.

        Parameters
        ----------
        data
            Training rows.
        seed
            Seed of the fit, initial values included.
        progress
            Whether to show a progress bar.
        checkpoints
            Folder to keep the state of the fit in, and to resume from.

        Returns
        -------
        Fitted
            What predicts, with one or more members.
        """


class ProgramMethod(PairMethod):
    """A method that fits one pair of programs."""

    def fit_settings(self, data: TaskData) -> dict[str, Any]:
        """Return arguments of :func:`~pyro_vmtl.fit` for training rows."""
        return {}

    def fit(
        self,
        data: TaskData,
        *,
        seed: int = 0,
        progress: bool = False,
        checkpoints: Path | None = None,
        start: Member | None = None,
    ) -> Fitted:
        """Make model and guide, and fit them. See :meth:`Method.fit`.

        L-BFGS starts at the parameters of ``start``, a fit of this method to similar rows, from
        where it reaches its optimum. Adam might keep some of what only those rows said.
        """
        settings = self._settings_from(start, data)
        rows = self.prepare(data)
        pair = self.initial_programs(rows, seed, start if "start" in settings else None)
        settings |= {"seed": seed, "progress": progress}
        return self._fit(*pair, rows, data, checkpoints, settings)

    def _fit(
        self,
        model: nn.Module,
        guide: nn.Module,
        rows: TaskData,
        data: TaskData,
        checkpoints: Path | None,
        settings: Mapping[str, Any],
    ) -> Fitted:
        """Fit programs to prepared rows of the data."""
        checkpoint = None if checkpoints is None else checkpoints / FILE
        result = fit(model, guide, rows, checkpoint=checkpoint, **settings)
        if rows.mask.numel() > LARGE:  # recorded steps hold the rows in circles of references
            gc.collect()
        return self._fitted(model, guide, rows, data, result)

    def _settings_from(self, start: Member | None, data: TaskData) -> dict[str, Any]:
        """Return the settings of a fit that starts at the parameters of another, if it is one."""
        settings = self.fit_settings(data)
        if start is not None and settings.get("optimizer") == "lbfgs":
            settings["start"] = start.model, start.guide
            most = settings.get("num_steps", EVALUATIONS_FROM_START)
            settings["num_steps"] = min(most, EVALUATIONS_FROM_START)
        return settings

    def for_trial(self) -> ProgramMethod:
        """Return a method that takes less time, to see whether this one is worth its own."""
        return self

    def promises(self, data: TaskData) -> bool:
        """Whether training rows say that a fit may pay, which takes less time than a fit."""
        return True

    def starts_anew(self, data: TaskData) -> bool:
        """Whether fits to similar rows start anew, and so may run beside that of all rows."""
        return self.fit_settings(data).get("optimizer", "adam") == "adam"

    def fit_each(
        self,
        parts: Sequence[TaskData],
        *,
        seed: int = 0,
        checkpoints: Sequence[Path | None] | None = None,
        start: Member | None = None,
    ) -> list[Fitted]:
        """Fit several sets of rows, such as those without each fold; if possible, all at once.

        The arguments are those of :meth:`fit`, with a folder of checkpoints for each set. A fit
        that is interrupted is the last.
        """
        folders = [None] * len(parts) if checkpoints is None else checkpoints
        settings = self._settings_from(start, parts[0])
        problems: list[tuple[nn.Module, nn.Module, TaskData]] = []
        are_few = sum(data.x.numel() for data in parts) <= MOST_NUMBERS
        if len(parts) > 1 and are_few and not settings.get("compile"):
            near = start if "start" in settings else None
            problems = [
                (*self.initial_programs(rows, seed, near), rows)
                for rows in map(self.prepare, parts)
            ]
            files = [None if folder is None else folder / JOINT_FILE for folder in folders]
            with suppress(CannotJoinError):
                results = fit_jointly(problems, seed=seed, checkpoints=files, **settings)
                return [
                    self._fitted(*problem, data, result)
                    for problem, data, result in zip(problems, parts, results, strict=True)
                ]
        fits: list[Fitted] = []
        for data, folder in zip(parts, folders, strict=True):
            if problems:  # made once, as some programs take long to make
                pair_and_rows = problems.pop(0)
                fits.append(self._fit(*pair_and_rows, data, folder, {**settings, "seed": seed}))
            else:
                fits.append(self.fit(data, seed=seed, checkpoints=folder, start=start))
            if fits[-1].result.stopped == "interrupted":
                break
        return fits

    def _fitted(
        self, model: nn.Module, guide: nn.Module, rows: TaskData, data: TaskData, result: FitResult
    ) -> Fitted:
        """Return a fit to prepared rows of the data."""
        rows_per_task = data.rows_per_task.float().cpu()
        borrowing = Borrowing.of_programs(model, guide, rows, rows_per_task)
        return Fitted.of_one(Member(self, model, guide, result, borrowing))

    def programs_from(self, start: Member, data: TaskData) -> tuple[Program, Program]:
        """Return model and guide for rows like those of a fit that they start at."""
        return self.programs(data)

    def initial_programs(
        self, data: TaskData, seed: int = 0, start: Member | None = None
    ) -> tuple[nn.Module, nn.Module]:
        """Make the programs for prepared rows, as modules on their device."""
        with isolated(seed):
            pair = self.programs(data) if start is None else self.programs_from(start, data)
            model, guide = map(as_module, pair)
        return model.to(data.x.device), guide.to(data.x.device)


@dataclass(frozen=True)
class Programs(ProgramMethod):
    """A model and guide of your own, as a method.

    It can be fitted, stacked, saved and exported as the presets are.

    Parameters
    ----------
    make
        Returns model and guide, not yet fitted, for a :class:`~pyro_vmtl.TaskData`: each fit, such
        as that of a fold, has its own. Both are called with the rows. Make them share by
        :func:`~pyro_vmtl.share`.
    settings
        Arguments of :func:`~pyro_vmtl.fit`, such as ``num_steps``.
    site
        Name of the observed site, with a univariate distribution.

    See Also
    --------
    Stack : Several methods, weighted by what they predict of held-out rows.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist, torch
    >>> from pyro.infer.autoguide import AutoNormal
    >>> from pyro_vmtl import share
    >>> def model(data):
    ...     with pyro.plate("task", data.num_tasks, dim=-2):
    ...         mean = pyro.sample("mean", dist.Normal(torch.zeros(()), 1.0))
    ...         with pyro.plate("data", data.num_rows, dim=-1), pyro.poutine.mask(mask=data.mask):
    ...             pyro.sample("y", dist.StudentT(4.0, mean, 1.0), obs=data.y)
    >>> def programs(data):
    ...     return share(model, AutoNormal(model), sites=["mean"])
    >>> method = Programs(programs, {"num_steps": 50})
    >>> data = TaskData.regression([[0.0]] * 6, [1.0, 1.2, 0.9, 1.0, -4.0, -4.2], list("aabbcc"))
    >>> method.fit(data).predictive(data).mean.shape
    torch.Size([3, 2])
    """

    make: Callable[[TaskData], tuple[Program, Program]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    site: str = "y"

    def programs(self, data: TaskData) -> tuple[Program, Program]:
        """Return model and guide for training rows, not yet fitted."""
        return self.make(data)

    def fit_settings(self, data: TaskData) -> dict[str, Any]:
        """Return the arguments of :func:`~pyro_vmtl.fit`."""
        return dict(self.settings)
