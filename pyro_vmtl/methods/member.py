"""One fitted pair of model and guide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

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


class PairMethod(ABC):
    """What a fitted pair asks of the method that made it. Subclasses return the pair.

    Attributes
    ----------
    site
        Name of the observed site.
    pooled
        Whether all rows are of one task.
    deterministic
        Whether the posteriors are point estimates.
    subsamples_tasks
        Whether the programs run on some of the tasks, by ``pyro.subsample``.
    """

    site: str = "y"
    pooled: bool = False
    deterministic: bool = False
    subsamples_tasks: bool = False

    @property
    def predicts_new_tasks(self) -> bool:
        """Whether tasks without training rows can be predicted, and tasks added."""
        return True

    @abstractmethod
    def programs(self, data: TaskData) -> tuple[Program, Program]:
        """Return model and guide for prepared rows, not yet fitted."""

    def prepare(self, data: TaskData) -> TaskData:
        """Return training rows as the programs take them."""
        return data

    def prepare_new(self, rows: TaskData) -> TaskData:
        """Return rows to predict as the programs take them."""
        return rows

    def start(self, model: nn.Module, data: TaskData) -> tuple[Tensor, Tensor] | None:
        """Compute initial means and scales of a posterior; None for those of the guide."""
        return None

    def needs_calibration(self, data: TaskData) -> bool:
        """Whether a stack corrects the spread of predictions: that of exact posteriors is right."""
        return True


@dataclass(frozen=True, eq=False)
class Member:
    """A fitted model and guide, as ``predict_proba`` and others take them."""

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
        self, rows: TaskData, *, tasks: Tensor | None = None, **settings: Any
    ) -> Distribution:
        """Return the likelihood of rows under posterior draws, as :meth:`Fitted.draws` does."""
        programs = unwrap(self.model), unwrap(self.guide)
        settings["site"] = self.method.site
        if self.method.pooled:
            if tasks is not None:
                rows = rows.map_rows(lambda values: values[tasks])
            draws = likelihood_draws(*programs, self.method.prepare_new(rows), **settings)
            return family_of(draws).map(lambda values: split_one_task(values[0], rows), draws)
        some = tasks if self.method.subsamples_tasks else None
        with some_tasks(some):
            draws = likelihood_draws(*programs, self.method.prepare_new(rows), **settings)
        if some is tasks:
            return draws
        return family_of(draws).map(lambda values: values[0][:, tasks], draws)
