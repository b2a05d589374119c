"""A fitted preset: it predicts, and tells who borrows from whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vmtl.data.one_task import as_one_task, split_one_task
from pyro_vmtl.data.plates import some_tasks
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.inference.svi import FitResult
from pyro_vmtl.methods.new_task import new_task_draws
from pyro_vmtl.predictive.families import concat_draws, predictive_mixture
from pyro_vmtl.predictive.posterior_predictive import likelihood_draws
from pyro_vmtl.sharing.share import relatedness
from pyro_vmtl.sharing.unwrap import unwrap

if TYPE_CHECKING:
    from pyro_vmtl.methods.preset import Preset

__all__ = ["Fitted"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted model and guide.

    Attributes
    ----------
    preset
        what was fitted.
    model, guide
        the programs, to be given to ``predict_proba`` and others.
    result
        history and time of the fit.
    num_tasks
        T.
    """

    preset: Preset
    model: nn.Module
    guide: nn.Module
    result: FitResult
    num_tasks: int

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
            Draws from the posterior.
        seed
            Seed of the draws.
        tasks
            (B,), indices in ascending order of those tasks to predict, (B, N); all by default.
        """
        return predictive_mixture(
            [self.draws(rows, num_samples=num_samples, seed=seed, tasks=tasks)]
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
        return predictive_mixture([new_task_draws(self, rows, num_samples=num_samples, seed=seed)])

    def draws(
        self,
        rows: TaskData,
        *,
        num_samples: int = 200,
        seed: int = 0,
        tasks: Tensor | None = None,
    ) -> Distribution:
        """Give what each draw from the posterior predicts, (S, T, N).

        Parameters
        ----------
        rows, num_samples, seed
            As for :meth:`predictive`.
        tasks
            (B,), indices in ascending order of those tasks to predict, (S, B, N); all by default.
        """
        programs = unwrap(self.model), unwrap(self.guide)
        settings: dict[str, Any] = {"num_samples": num_samples, "seed": seed}
        if not self.preset.pooled:
            with some_tasks(tasks):
                return likelihood_draws(*programs, rows, **settings)
        if tasks is not None:
            rows = rows.map_rows(lambda values: values[tasks])
        draws = likelihood_draws(*programs, as_one_task(rows), **settings)
        return concat_draws([draws], lambda numbers: split_one_task(numbers[0], rows))

    def relatedness(self, *, num_samples: int = 1000, seed: int = 0) -> Tensor:
        """Draw how much each task borrows from each source.

        Parameters
        ----------
        num_samples
            S, the number of draws.
        seed
            Seed of the draws.

        Returns
        -------
        Tensor
            (S, T, T + 1), rows on the simplex; the last column is the base. Where coefficients are
            not shared it is 1, but for pooled and hierarchical ones, which borrow evenly from all
            other tasks.
        """
        if "w" in self.preset.shared:
            return relatedness(self.guide, "w", num_samples=num_samples, seed=seed)
        others = self.num_tasks - 1
        weights = torch.zeros(self.num_tasks, self.num_tasks + 1)
        if (self.preset.pooled or self.preset.hierarchical) and others:
            weights[:, :-1] = (1 - torch.eye(self.num_tasks)) / others
        else:
            weights[:, -1] = 1.0
        return weights.expand(num_samples, -1, -1)
