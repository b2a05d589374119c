"""One fitted pair of model and guide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vmtl.data.one_task import split_one_task
from pyro_vmtl.data.plates import some_tasks
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.program_handler import Program, unwrap
from pyro_vmtl.inference.svi import FitResult
from pyro_vmtl.methods.borrowing import Borrowing
from pyro_vmtl.predictive.families import family_of
from pyro_vmtl.predictive.posterior_predictive import likelihood_draws

__all__ = ["Member", "PairMethod"]


class PairMethod(Protocol):
    """What a fitted pair asks of the method that made it.

    Its attributes are those of :class:`~pyro_vmtl.methods.method.ProgramMethod`.
    """

    site: str

    @property
    def pooled(self) -> bool:
        """Whether all rows are of one task."""

    @property
    def deterministic(self) -> bool:
        """Whether the posteriors are point estimates."""

    @property
    def subsamples_tasks(self) -> bool:
        """Whether the programs run on some of the tasks, by ``pyro.subsample``."""

    @property
    def predicts_new_tasks(self) -> bool:
        """Whether tasks without training rows can be predicted, and tasks added."""

    def prepare(self, data: TaskData) -> TaskData:
        """Return training rows as the programs take them."""

    def prepare_new(self, rows: TaskData) -> TaskData:
        """Return rows to predict as the programs take them."""

    def programs(self, data: TaskData) -> tuple[Program, Program]:
        """Return model and guide for prepared rows, not yet fitted."""


@dataclass(frozen=True, eq=False)
class Member:
    """A fitted model and guide.

    Attributes
    ----------
    method
        What was fitted.
    model, guide
        The programs, as ``predict_proba`` and others take them.
    result
        History and time of the fit.
    borrowing
        Shares of the posterior means that come from other tasks.
    """

    method: PairMethod
    model: nn.Module
    guide: nn.Module
    result: FitResult
    borrowing: Borrowing

    @property
    def num_tasks(self) -> int:
        """T, the number of tasks."""
        return self.borrowing.num_tasks

    def draws(
        self,
        rows: TaskData,
        *,
        num_samples: int = 200,
        seed: int = 0,
        tasks: Tensor | None = None,
    ) -> Distribution:
        """Return the likelihood of rows under draws from the posterior.

        Parameters
        ----------
        rows
            Rows of the tasks of the fit, (T, N), such as ``data.new_rows(X, tasks)``.
        num_samples
            S, draws from the posterior.
        seed
            Seed of the draws.
        tasks
            (B,), indices in ascending order of the tasks to predict; all by default.

        Returns
        -------
        Distribution
            Batch (S, T, N), or (S, B, N).
        """
        settings: dict[str, Any] = {
            "site": self.method.site,
            "num_samples": num_samples,
            "seed": seed,
        }
        programs = unwrap(self.model), unwrap(self.guide)
        if self.method.pooled:
            if tasks is not None:
                rows = rows.map_rows(lambda values: values[tasks])
            draws = likelihood_draws(*programs, self.method.prepare_new(rows), **settings)
            return family_of(draws).map(lambda values: split_one_task(values[0], rows), draws)
        rows = self.method.prepare_new(rows)
        if tasks is None or self.method.subsamples_tasks:
            with some_tasks(tasks):
                return likelihood_draws(*programs, rows, **settings)
        draws = likelihood_draws(*programs, rows, **settings)
        return family_of(draws).map(lambda values: values[0][:, tasks], draws)

    def relatedness(self, *, num_samples: int = 1000, seed: int = 0) -> Tensor:
        """Draw the share of each task's posterior mean that comes from each other task.

        Parameters
        ----------
        num_samples
            S, the number of draws.
        seed
            Seed of the draws.

        Returns
        -------
        Tensor
            (S, T, T + 1), rows on the simplex; the last column is what is not borrowed.
        """
        return self.borrowing.draw(self.guide, num_samples=num_samples, seed=seed)
