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
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_vmtl.calibration import Calibration
from pyro_vmtl.cross_validation import folds
from pyro_vmtl.data import TaskData
from pyro_vmtl.fitted import Fitted
from pyro_vmtl.fitting import FitResult
from pyro_vmtl.held_out import HeldOut, of_rows
from pyro_vmtl.mixture import mixed
from pyro_vmtl.preset import Preset
from pyro_vmtl.progress import fits_bar

__all__ = ["FittedStack", "Stack", "stacking_weights"]

PRIOR_ROWS = 20.0
"""Rows that the prior of a task's weights counts for."""

NUM_ITERATIONS = 300

MOST_HELD_OUT = 20_000
"""Rows held out that are predicted, all folds together: two numbers of a calibration, and weights
of a few members, need no more, and 200 draws of so many take 16 MB for each class."""


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

    def fit(self, data: TaskData, *, seed: int = 0, progress: bool = False) -> FittedStack:
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
        """
        started = time.perf_counter()
        with fits_bar(len(self.members) * (self.num_folds + 1), visible=progress) as report:
            members = self._members(data, seed, report)
            stopped = any(fitted.result.stopped == "interrupted" for fitted in members.values())
            held_out = None
            if not stopped and data.mask.sum() > 1:
                held_out, stopped = self.held_out(data, seed=seed, report=report)
        ends = {fitted.result.stopped for fitted in members.values()}
        result = FitResult(
            next(iter(members.values())).result.history,
            time.perf_counter() - started,
            "interrupted" if stopped else "steps" if "steps" in ends else "settled",
        )
        if held_out is None:
            even = torch.full((data.num_tasks, len(members)), 1 / len(members))
            return FittedStack(members, even, result)
        return self.weigh(members, held_out, result)

    def _members(
        self, data: TaskData, seed: int, report: Callable[[str], None]
    ) -> dict[str, Fitted]:
        """Fit the members to all rows, up to an interruption."""
        members: dict[str, Fitted] = {}
        for name, preset in self.members.items():
            report(f"{name}, all rows")
            members[name] = preset.fit(data, seed=seed)
            if members[name].result.stopped == "interrupted":
                break
        return members

    def held_out(
        self, data: TaskData, *, seed: int = 0, report: Callable[[str], None] = lambda name: None
    ) -> tuple[HeldOut | None, bool]:
        """Predict rows by fits that did not see them: every row, or about ``MOST_HELD_OUT``.

        Parameters
        ----------
        data
            Training rows.
        seed
            Seed of the folds and of all fits.
        report
            Called with the name of each fit.

        Returns
        -------
        tuple
            Predictions of the folds that were done, or None if there are none, and whether it was
            interrupted.
        """
        parts: list[HeldOut] = []
        for train, held in folds(data, self.num_folds, seed=seed, most_held_out=MOST_HELD_OUT):
            draws = {}
            # What is not learned of a task without rows, such as its noise, is no prediction.
            known = held.mask & train.mask.any(1, keepdim=True)
            for name, preset in self.members.items():
                report(f"{name}, without fold {len(parts) + 1}")
                fitted = preset.fit(train, seed=seed)
                if fitted.result.stopped == "interrupted":
                    return HeldOut.joined(parts), True
                draws[name] = of_rows(fitted.draws(held, seed=seed), known)
            assert held.y is not None
            parts.append(HeldOut(draws, held.y[known], known.nonzero()[:, 0], data.num_tasks))
            del train, held  # before the rows of the next fold are copied
        return HeldOut.joined(parts), False

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
        calibrations, log_densities = {}, []
        for name in members:
            draws = held_out.draws[name]
            if self.calibrated:
                calibrations[name] = Calibration.learn(draws, held_out.y)
                draws = calibrations[name](draws)
            log_densities.append(draws.log_prob(held_out.y).logsumexp(0))
        density = torch.stack(log_densities, dim=1)
        weights = stacking_weights(density, held_out.task, held_out.num_tasks)
        return FittedStack(members, weights.cpu(), result, calibrations)


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
    """

    members: Mapping[str, Fitted]
    weights: Tensor
    result: FitResult
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)

    def predictive(self, rows: TaskData, *, num_samples: int = 200, seed: int = 0) -> Distribution:
        """Give the predictive distribution of rows, (T, N), as :func:`~pyro_vmtl.mixed` does.

        Parameters
        ----------
        rows
            Such as ``data.new_rows(X, tasks)``.
        num_samples
            Draws from the posterior of each member.
        seed
            Seed of the draws.
        """
        parts = []
        for name, fitted in self.members.items():
            draws = fitted.draws(rows, num_samples=num_samples, seed=seed)
            parts.append(self.calibrations.get(name, Calibration())(draws))
        return mixed(parts, self.weights)

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


def stacking_weights(log_density: Tensor, task: Tensor, num_tasks: int) -> Tensor:
    """Find weights of large held-out log density, by expectation maximisation from even ones.

    Parameters
    ----------
    log_density
        (rows, M), log predictive density of each row under each member, up to a constant per row.
    task
        (rows,), the task of each row, from 0 on.
    num_tasks
        T.

    Returns
    -------
    Tensor
        (T, M), rows on the simplex. A task without rows has the mean weights.

    Examples
    --------
    >>> stacking_weights(torch.tensor([[0.0, -9.0]] * 200), torch.zeros(200, dtype=int), 1).round()
    tensor([[1., 0.]])
    """
    density = (log_density - log_density.amax(1, keepdim=True)).exp()
    counts = torch.bincount(task, minlength=num_tasks).to(density)[:, None]
    weights = density.new_full((num_tasks, density.shape[1]), 1 / density.shape[1])
    mean = weights[0]
    for _ in range(NUM_ITERATIONS):
        responsibility = density * weights[task]
        responsibility = responsibility / responsibility.sum(1, keepdim=True)
        sums = torch.zeros_like(weights).index_add_(0, task, responsibility)
        weights = (sums + PRIOR_ROWS * mean) / (counts + PRIOR_ROWS)
        mean = weights.mean(0)
    return weights
