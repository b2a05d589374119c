"""Tables and plots of a fitted estimator, with the user's labels."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pyro_vmtl.data.limits import exceeds
from pyro_vmtl.estimators.predicting import PredictionMixin
from pyro_vmtl.inference.history import History

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


__all__ = ["InspectionMixin"]

MAX_WEIGHTS = 20_000_000
"""Draws of source weights that are held at once."""


class InspectionMixin(PredictionMixin):
    """Tables and plots of a fitted estimator."""

    _relatedness: xr.Dataset | None = None  # computed once

    @property
    def tasks_(self) -> tuple[Hashable, ...]:
        """Labels of the T tasks, sorted; labels of several types by type first.

        All properties and tables with tasks follow this order.
        """
        check_is_fitted(self)
        try:
            return tuple(sorted(self._sizes))  # type: ignore[type-var]
        except TypeError:
            return tuple(sorted(self._sizes, key=lambda task: (type(task).__name__, str(task))))

    @property
    def task_sizes_(self) -> tuple[int, ...]:
        """Number of training rows of each task, in the order of ``tasks_``."""
        return tuple(self._sizes[task] for task in self.tasks_)

    @property
    def history_(self) -> History:
        """Loss of the fit and its terms at every step, tasks in the order of ``tasks_``."""
        order, history = self._task_order(), self.fitted_.result.history

        def by_task(terms: dict[str, Tensor]) -> dict[str, Tensor]:
            return {site: v if v.ndim == 1 else v[:, order] for site, v in terms.items()}

        return replace(
            history,
            log_likelihood=by_task(history.log_likelihood),
            kl=by_task(history.kl),
            relatedness={
                site: v[:, order][:, :, [*order, -1]] for site, v in history.relatedness.items()
            },
        )

    def _task_order(self) -> list[int]:
        """Return the position in the fit of each of ``tasks_``."""
        position = {task: t for t, task in enumerate(self._sizes)}
        return [position[task] for task in self.tasks_]

    @property
    def relatedness_(self) -> xr.Dataset:
        """Share of the posterior mean of a task's coefficients due to each other task's rows.

        Variables ``mean``, ``lower`` and ``upper`` (a 90 % interval), with dimensions ``task`` and
        ``source``. The last source, ``"base"``, is the share that is not borrowed. NaN for a task
        and itself.
        """
        from pyro_vmtl.analysis.relatedness.weights import relatedness_datatree, weight_summary

        if self._relatedness is None:
            tasks = self.tasks_
            tree = relatedness_datatree(self._relatedness_draws(), range(len(tasks)))
            coords = {"task": tasks, "source": (*tasks, "base")}
            self._relatedness = weight_summary(tree).assign_coords(
                {dim: (dim, np.fromiter(v, object, len(v))) for dim, v in coords.items()}
            )
        return self._relatedness

    def _relatedness_draws(self) -> Tensor:
        """Draw shares, (S, T, T + 1), tasks in the order of ``tasks_``."""
        order = self._task_order()
        size = len(order) * (len(order) + 1)
        num_samples = max(20, min(1000, MAX_WEIGHTS // size))
        draws = self.fitted_.relatedness(num_samples=num_samples, seed=self.random_state)
        return draws[:, order][:, :, [*order, -1]]

    def summary(self) -> pd.DataFrame:
        """Return a table with a row per task: its size, how much it borrows, and from whom most.

        Columns ``rows``; ``borrowed``, the share of the posterior mean of the task's coefficients
        that comes from other tasks' rows; ``nearest``, the task that most of it comes from, or
        None if none has one and a half times an even share of what is borrowed; ``share``, what
        comes from that task; and for a stack the weight of each member. Of more than 1,500 tasks,
        whose pairs are not compared, ``nearest`` is None and ``share`` is NaN.
        """
        index = pd.Index(list(self.tasks_), name="task", tupleize_cols=False)
        nearest = np.full(len(index), None, dtype=object)
        if exceeds("TASK_PAIRS", len(index) ** 2):
            borrowed = self.fitted_.borrowed(seed=self.random_state).numpy()[self._task_order()]
            share = np.full(len(index), np.nan)
        else:
            sources = np.nan_to_num(self.relatedness_["mean"].to_numpy()[:, :-1])
            borrowed, share = sources.sum(1), sources.max(1)
            stands_out = share > min(1.5 / max(len(sources) - 1, 1), 0.6) * borrowed
            largest = sources.argmax(1)[stands_out]
            nearest[stands_out] = self.relatedness_["source"].to_numpy()[largest]
        columns: dict[str, Any] = {
            "rows": self.task_sizes_,
            "borrowed": borrowed,
            "nearest": pd.Series(nearest, index, dtype=object),
            "share": share,
        }
        if len(self.fitted_.members) > 1:
            weights = self.fitted_.weights.numpy()[self._task_order()]
            columns |= dict(zip(self.fitted_.members, weights.T, strict=True))
        return pd.DataFrame(columns, index=index)

    def to_datatree(
        self,
        X: Any,
        y: Any,
        tasks: Any = None,
        *,
        sample_weight: Any = None,
        columns: Any = None,
        rows: Sequence[Any] | None = None,
        num_samples: int = 500,
    ) -> xr.DataTree:
        """Draw from the fit, and return the draws for ArviZ, with the user's labels.

        Parameters
        ----------
        X, y, tasks, sample_weight, columns
            The rows passed to ``fit``, which an estimator does not keep.
        rows
            Other rows (X, y, tasks), or (X, y, tasks, sample_weight, columns), to predict, for a
            group ``predictions``.
        num_samples
            S, number of posterior draws; for a stack, of each member.

        Returns
        -------
        DataTree
            As of :func:`~pyro_vmtl.analysis.to_datatree`, tasks in the order of ``tasks_``, and
            ``row`` the position among the given rows. Targets, predictions and log-likelihoods are
            in the user's unit. Coefficients and features are standardized, or only centred if
            ``scale_features`` is False, as the attribute ``units`` of their groups says.

        Raises
        ------
        ValueError
            If rows have tasks or classes that are not in the fit, or cannot be used.
        """
        from pyro_vmtl.estimators.exporting import export_estimator

        training = X, y, tasks, sample_weight, columns
        return export_estimator(self, training, rows, num_samples=num_samples)

    def influence(
        self,
        X: Any,
        y: Any,
        tasks: Any = None,
        *,
        sample_weight: Any = None,
        columns: Any = None,
        rows: Sequence[Any] | None = None,
        **settings: Any,
    ) -> xr.Dataset:
        """Estimate how much each training row helps to predict rows of every task.

        Parameters
        ----------
        X, y, tasks, sample_weight, columns
            The rows passed to ``fit``, which an estimator does not keep.
        rows
            Other rows (X, y, tasks) with targets, whose log predictive density is influenced; by
            default those of the fit.
        **settings
            Those of :func:`pyro_vmtl.influence`, such as ``method="newton"``.

        Returns
        -------
        Dataset
            As of :func:`pyro_vmtl.influence`; ``row`` is the position among the given rows.

        Raises
        ------
        ValueError
            If rows have tasks or classes that are not in the fit, or cannot be used.
        """
        from pyro_vmtl.estimators.exporting import estimator_influence

        training = X, y, tasks, sample_weight, columns
        return estimator_influence(self, training, rows, **settings)

    def plot_relatedness(self, ax: Axes | None = None) -> Axes:
        """Plot a heat map of ``relatedness_``: which task borrows from which.

        See :func:`pyro_vmtl.analysis.plot_relatedness`.
        """
        from pyro_vmtl.analysis import plot_relatedness, relatedness_datatree
        from pyro_vmtl.analysis.export.labels import SHARE

        draws = self._relatedness_draws()
        tree = relatedness_datatree(draws, self.tasks_, task_sizes=self.task_sizes_, name=SHARE)
        return plot_relatedness(tree, ax)
