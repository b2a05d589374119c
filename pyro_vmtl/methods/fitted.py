"""What a method returns: one or more fitted pairs that predict together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vmtl.data.limits import check_limit
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.inference.svi import FitResult
from pyro_vmtl.methods.member import Member
from pyro_vmtl.methods.new_task import new_task_draws
from pyro_vmtl.predictive.calibration import Calibration, calibrate
from pyro_vmtl.predictive.families import predictive_mixture

__all__ = ["Fitted"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """Fitted members that predict together. A single fit has one member.

    Attributes
    ----------
    members
        The fits by name.
    weights
        (T, M), rows on the simplex: weight of each member in each task.
    result
        History of the first member's fit, seconds of all fits, and why they ended.
    calibrations
        Corrections of the predictions of members, by name.
    new_task_weights
        (M,), weight of each member for a task that is not among these; by default the mean of
        ``weights``.
    share_draws
        (S, T, T + 1), draws of :meth:`relatedness` by the fits without each of K folds; None for a
        single fit.

    Examples
    --------
    >>> fitted.predictive(data).mean.shape
    torch.Size([3, 12])
    """

    members: Mapping[str, Member]
    weights: Tensor
    result: FitResult
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    new_task_weights: Tensor = field(default=None)  # type: ignore[assignment]
    share_draws: Tensor | None = None

    def __post_init__(self) -> None:
        """Weigh members for new tasks as for others, unless told otherwise."""
        if self.new_task_weights is None:
            object.__setattr__(self, "new_task_weights", self.weights.mean(0))

    @classmethod
    def of_one(cls, member: Member) -> Fitted:
        """Return the fit of a single member."""
        return cls({"fit": member}, torch.ones(member.num_tasks, 1), member.result)

    @property
    def num_tasks(self) -> int:
        """T, the number of tasks."""
        return len(self.weights)

    @property
    def member(self) -> Member:
        """The only member.

        Raises
        ------
        ValueError
            If there are several.
        """
        if len(self.members) > 1:
            raise ValueError(
                f"The fit has the members {', '.join(self.members)}, expected one. Choose it, as "
                f"in fitted.members[{next(iter(self.members))!r}]."
            )
        return next(iter(self.members.values()))

    @property
    def model(self) -> nn.Module:
        """The model of the only member."""
        return self.member.model

    @property
    def guide(self) -> nn.Module:
        """The guide of the only member."""
        return self.member.guide

    def draws(
        self,
        rows: TaskData,
        *,
        num_samples: int = 200,
        seed: int = 0,
        tasks: Tensor | None = None,
        calibrated: bool = True,
        differentiable: bool = False,
    ) -> list[Distribution]:
        """Return the predictions of each member's posterior draws.

        Parameters
        ----------
        rows
            Rows of the tasks of the fit, (T, N), such as ``data.new_rows(X, tasks)``.
        num_samples
            S, draws from the posterior of each member.
        seed
            Seed of the draws.
        tasks
            (B,), indices in ascending order of the tasks to predict; all by default.
        calibrated
            Whether to correct them by the calibrations of the members, see :meth:`calibrate`.
        differentiable
            Whether they have gradients in the parameters of the members.

        Returns
        -------
        list of Distribution
            One for each member, batch (S, T, N) or (S, B, N).
        """
        settings = {"num_samples": num_samples, "seed": seed, "differentiable": differentiable}
        draws = [member.draws(rows, tasks=tasks, **settings) for member in self.members.values()]
        return self.calibrate(draws) if calibrated else draws

    def calibrate(self, draws: Sequence[Distribution]) -> list[Distribution]:
        """Correct the predictions of draws of each member."""
        return calibrate(dict(zip(self.members, draws, strict=True)), self.calibrations)

    def new_task_draws(
        self, rows: TaskData, *, num_samples: int = 200, seed: int = 0
    ) -> list[Distribution]:
        """Return the predictions of each member for a task without training rows.

        Parameters
        ----------
        rows
            Rows of one task, (1, N).
        num_samples, seed
            As for :meth:`draws`.

        Raises
        ------
        ValueError
            If a member's method cannot predict new tasks.
        """
        return [
            new_task_draws(member, rows, num_samples=num_samples, seed=seed)
            for member in self.members.values()
        ]

    def predictive(
        self,
        rows: TaskData,
        *,
        num_samples: int = 200,
        seed: int = 0,
        tasks: Tensor | None = None,
        differentiable: bool = False,
    ) -> Distribution:
        """Return the predictive distribution of rows, a mixture over draws and members.

        Its batch is (T, N) or (B, N). See :meth:`draws` and :func:`~pyro_vmtl.predictive_mixture`.
        """
        parts = self.draws(
            rows, num_samples=num_samples, seed=seed, tasks=tasks, differentiable=differentiable
        )
        weights = self.weights if tasks is None else self.weights[tasks.cpu()]
        return predictive_mixture(parts, weights)

    def new_task_predictive(
        self, rows: TaskData, *, num_samples: int = 200, seed: int = 0
    ) -> Distribution:
        """Return the predictive distribution of rows of a task without training rows, (1, N).

        See :meth:`new_task_draws`.
        """
        parts = self.new_task_draws(rows, num_samples=num_samples, seed=seed)
        return predictive_mixture(parts, self.new_task_weights[None])

    def borrowed(self, *, seed: int = 0) -> Tensor:
        """Compute the share of each task's posterior mean that comes from all others, (T,)."""
        members = self.members.values()
        totals = [member.borrowing.total(member.guide, seed=seed) for member in members]
        return (self.weights * torch.stack(totals, dim=1)).sum(1)

    def relatedness(self, *, num_samples: int = 1000, seed: int = 0) -> Tensor:
        """Draw the share of each task's posterior mean that comes from each other task.

        It is the weighted mean over members (:mod:`pyro_vmtl.methods.borrowing`). A stack was
        fitted without each of its folds, too: by the jackknife
        (:mod:`pyro_vmtl.methods.jackknife`) intervals show what depends on which rows there are,
        and on which member is right, as far as held-out rows tell. Of one fold they show the latter
        only.

        Parameters
        ----------
        num_samples
            S, the number of draws. A stack has up to 200, which are repeated where more are asked.
        seed
            Seed of the draws; those of a stack were drawn by the seed of its fit.

        Returns
        -------
        Tensor
            (S, T, T + 1), rows on the simplex; the last column is what is not borrowed, and the
            diagonal is 0.

        See Also
        --------
        pyro_vmtl.relatedness : The source weights of a shared site themselves.
        """
        check_limit(
            *("TASK_PAIRS", self.num_tasks**2, f"The relatedness of {self.num_tasks:,} tasks"),
            "What each of them borrows in all is in `borrowed`. Where there is memory",
        )
        if num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}, expected at least 1.")
        if self.share_draws is not None:
            return self.share_draws[
                torch.arange(num_samples) * len(self.share_draws) // num_samples
            ]
        total = torch.zeros(num_samples, self.num_tasks, self.num_tasks + 1)
        for weights, member in zip(self.weights.T, self.members.values(), strict=True):
            drawn = member.borrowing.draw(member.guide, num_samples=num_samples, seed=seed)
            total += weights[:, None] * drawn
        return total
