r"""Stacking: several fits, each weighed by how well it predicts rows that were held out.

No prior is right for all data: tasks can be strangers, relatives or copies of one another. A stack
fits all of its members, and mixes what they predict (Yao, Vehtari, Simpson and Gelman, Bayesian
Analysis 2018). The weights maximise the log predictive density of rows that the fits did not see,

.. math:: \sum_n \log \sum_m \omega_{t(n) m}\, p_m(y_n \mid \text{rows of other folds}),

with a Dirichlet prior that draws the weights of each task to their mean over tasks. They are found
by expectation maximisation from even weights, which is stopped early: where members predict alike,
little is to be gained, and the weights stay nearer to even than the maximum is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_vmtl.data.folds import folds, needed_folds, subsample_rows
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.inference.progress import fits_bar
from pyro_vmtl.inference.svi import FitResult
from pyro_vmtl.methods.fitted import Fitted
from pyro_vmtl.methods.held_out import HeldOut, of_rows
from pyro_vmtl.methods.new_task import new_task_draws, new_task_member_weights
from pyro_vmtl.methods.preset import Preset
from pyro_vmtl.predictive.calibration import Calibration
from pyro_vmtl.predictive.families import predictive_mixture

__all__ = ["FittedStack", "Stack"]

ENOUGH_HELD_OUT = 20_000
"""Rows held out that are enough to calibrate and to weigh members: above 100,000, one fold."""


@dataclass(frozen=True)
class Stack:
    """Presets to fit and to weigh, in one object, to print, copy and change.

    Parameters
    ----------
    members
        Presets by name. The first one's history is that of the stack.
    num_folds
        Parts of the rows that are held out in turn.
    calibrated
        Learn a :class:`~pyro_vmtl.Calibration` of each member?

    Examples
    --------
    >>> from dataclasses import replace
    >>> shared = Preset(fitting={"num_steps": 50})  # few, to be quick here
    >>> stack = Stack({"shared": shared, "alone": replace(shared, shared=())}, num_folds=2)
    >>> X, tasks = torch.linspace(-1, 1, 12)[:, None], ["a", "b"] * 6
    >>> data = TaskData.regression(X, 2 * X[:, 0] + 0.1 * torch.sin(9 * X[:, 0]), tasks)
    >>> fitted = stack.fit(data)
    >>> fitted.weights.shape, fitted.predictive(data).mean.shape
    (torch.Size([2, 2]), torch.Size([2, 6]))
    """

    members: Mapping[str, Preset]
    num_folds: int = 5
    calibrated: bool = True

    def __post_init__(self) -> None:
        """Copy the members, so that changing those of one stack leaves others alone."""
        if not self.members:
            raise ValueError("members is empty, expected at least one preset.")
        if self.num_folds < 2:
            raise ValueError(f"num_folds is {self.num_folds}, expected at least 2.")
        object.__setattr__(self, "members", dict(self.members))

    def fit(
        self,
        data: TaskData,
        *,
        seed: int = 0,
        progress: bool = False,
        checkpoints: Path | None = None,
        validation: TaskData | None = None,
    ) -> FittedStack:
        """Fit all members to all rows, then to all folds but one.

        Ctrl-C ends it, and keeps the members and folds that were done.

        Parameters
        ----------
        data
            Training rows.
        seed
            Seed of the folds and of all fits.
        progress
            Show a progress bar?
        checkpoints
            Folder to keep the state of every fit in, and to go on from.
        validation
            Other rows of the same tasks, with their targets, to hold out in place of the folds:
            then each member is fitted once.
        """
        started = time.perf_counter()
        left_out = needed_folds(data, self.num_folds, enough=ENOUGH_HELD_OUT)
        num_fits = len(self.members) * (1 if validation is not None else left_out + 1)
        with fits_bar(num_fits, visible=progress) as report:
            members = self._members(data, seed, report, checkpoints)
            stopped = any(fitted.result.stopped == "interrupted" for fitted in members.values())
            held_out = None
            if not stopped and validation is not None:
                some = subsample_rows(validation, ENOUGH_HELD_OUT, seed=seed)
                held_out = self._predicted(members, data, some, seed)
            elif not stopped and data.mask.sum() > 1:
                held_out, stopped = self.held_out(
                    data, seed=seed, report=report, checkpoints=checkpoints
                )
        ends = {fitted.result.stopped for fitted in members.values()}
        result = FitResult(
            next(iter(members.values())).result.history,
            time.perf_counter() - started,
            "interrupted" if stopped else "steps" if "steps" in ends else "settled",
        )
        if held_out is None:
            even = torch.full((data.num_tasks, len(members)), 1 / len(members))
            return FittedStack(members, even, result)
        fitted = self.weigh(members, held_out, result)
        return replace(fitted, new_task_weights=new_task_member_weights(members, data, seed=seed))

    def _members(
        self, data: TaskData, seed: int, report: Callable[[str], None], checkpoints: Path | None
    ) -> dict[str, Fitted]:
        """Fit the members to all rows, up to an interruption."""
        members: dict[str, Fitted] = {}
        for name, preset in self.members.items():
            report(f"{name}, all rows")
            members[name] = preset.fit(data, seed=seed, checkpoints=_under(checkpoints, name))
            if members[name].result.stopped == "interrupted":
                break
        return members

    def held_out(
        self,
        data: TaskData,
        *,
        seed: int = 0,
        report: Callable[[str], None] = lambda name: None,
        checkpoints: Path | None = None,
    ) -> tuple[HeldOut | None, bool]:
        """Predict rows by fits that did not see them: all, or 20,000.

        Parameters
        ----------
        data
            Training rows.
        seed
            Seed of the folds and of all fits.
        report
            Called with the name of each fit.
        checkpoints
            Folder to keep the state of every fit in, and to go on from.

        Returns
        -------
        tuple
            Predictions of the folds that were done, or None if there are none, and whether it was
            interrupted.
        """
        parts: list[HeldOut] = []
        for train, held in folds(data, self.num_folds, seed=seed, enough=ENOUGH_HELD_OUT):
            members, number = {}, len(parts) + 1
            for name, preset in self.members.items():
                report(f"{name}, without fold {number}")
                folder = _under(checkpoints, f"{name}-without-fold-{number}")
                members[name] = preset.fit(train, seed=seed, checkpoints=folder)
                if members[name].result.stopped == "interrupted":
                    return HeldOut.joined(parts), True
            parts.append(self._predicted(members, train, held, seed))
            del train, held  # before the rows of the next fold are copied
        return HeldOut.joined(parts), False

    def _predicted(
        self, members: Mapping[str, Fitted], train: TaskData, held: TaskData, seed: int
    ) -> HeldOut:
        """Predict rows that were held out by fits that did not see them."""
        # What is not learned of a task without rows, such as its noise, is no prediction.
        known = held.mask & train.mask.any(1, keepdim=True)
        draws = {
            name: of_rows(fitted.draws(held, seed=seed), known) for name, fitted in members.items()
        }
        return HeldOut.of_tasks(draws, held, known)

    def weigh(
        self, members: Mapping[str, Fitted], held_out: HeldOut, result: FitResult
    ) -> FittedStack:
        """Calibrate and weigh fits by predictions of rows that were held out.

        Parameters
        ----------
        members
            The fits to all rows.
        held_out
            What their likes without those rows predict.
        result
            History and time of the whole.
        """
        calibrations = held_out.calibrations() if self.calibrated else {}
        weights = held_out.member_weights(calibrations)
        return FittedStack(members, weights, result, calibrations)


@dataclass(frozen=True, eq=False)
class FittedStack:
    """Fits that predict together.

    Attributes
    ----------
    members
        the fits by name.
    weights
        (T, M), rows on the simplex: how much each member counts in each task.
    result
        history of the first member's fit, seconds of all fits, and why they ended.
    calibrations
        for each member what corrects its predictions.
    new_task_weights
        (M,), how much each member counts for a task that is not among these; by default the mean
        of ``weights``.
    """

    members: Mapping[str, Fitted]
    weights: Tensor
    result: FitResult
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    new_task_weights: Tensor = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Weigh members for new tasks as for others, until more is known."""
        if self.new_task_weights is None:
            object.__setattr__(self, "new_task_weights", self.weights.mean(0))

    def predictive(
        self,
        rows: TaskData,
        *,
        num_samples: int = 200,
        seed: int = 0,
        tasks: Tensor | None = None,
    ) -> Distribution:
        """Return the predictive distribution of rows, (T, N), a mixture over draws.

        Parameters
        ----------
        rows
            Such as ``data.new_rows(X, tasks)``.
        num_samples
            Draws from the posterior of each member.
        seed
            Seed of the draws.
        tasks
            (B,), indices in ascending order of those tasks to predict, (B, N); all by default.
        """
        parts = []
        for name, fitted in self.members.items():
            draws = fitted.draws(rows, num_samples=num_samples, seed=seed, tasks=tasks)
            parts.append(self.calibrations.get(name, Calibration())(draws))
        return predictive_mixture(
            parts, self.weights if tasks is None else self.weights[tasks.cpu()]
        )

    def new_task_predictive(
        self, rows: TaskData, *, num_samples: int = 200, seed: int = 0
    ) -> Distribution:
        """Give the predictive distribution of rows of a new task, of which nothing is known.

        Parameters
        ----------
        rows
            Rows of one task, (1, N).
        num_samples, seed
            As for :meth:`predictive`.
        """
        parts = [
            new_task_draws(fitted, rows, num_samples=num_samples, seed=seed)
            for fitted in self.members.values()
        ]
        return predictive_mixture(parts, self.new_task_weights[None])

    def relatedness(self, *, num_samples: int = 1000, seed: int = 0) -> Tensor:
        """Draw how much each task borrows from each source, in the mean of the members.

        Parameters
        ----------
        num_samples
            S, the number of draws.
        seed
            Seed of the draws.

        Returns
        -------
        Tensor
            (S, T, T + 1), rows on the simplex; the last column is the base: what is not borrowed. A
            member that pools its tasks borrows evenly from all others.
        """
        num_tasks = len(self.weights)
        return sum(
            (
                self.weights[:, m, None]
                * fitted.relatedness(num_samples=num_samples, seed=seed).cpu()
                for m, fitted in enumerate(self.members.values())
            ),
            torch.zeros(num_samples, num_tasks, num_tasks + 1),
        )


def _under(checkpoints: Path | None, name: str) -> Path | None:
    return None if checkpoints is None else checkpoints / name
