"""Looking at a fitted estimator: tables and a picture, with the user's labels."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pyro_vmtl.inference.history import History
from pyro_vmtl.inference.svi import FitResult
from pyro_vmtl.methods.fitted import Fitted

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes

    from pyro_vmtl.estimators.base import VMTLEstimator

__all__ = ["InspectionMixin"]

MOST_WEIGHTS = 20_000_000
"""Draws of source weights that are held at once."""


class InspectionMixin:
    """What there is to see of a fit."""

    random_state: int
    _sizes: dict[Hashable, int]  # training rows of each task, in the order of the fit
    _fitted: Fitted
    _table: pd.DataFrame | None = None  # who borrows from whom, once it was asked for

    @property
    def tasks_(self) -> tuple[Hashable, ...]:
        """Labels of the T tasks, sorted; by kind first where they are of several."""
        check_is_fitted(self)
        try:
            return tuple(sorted(self._sizes))  # type: ignore[type-var]
        except TypeError:
            return tuple(sorted(self._sizes, key=lambda task: (type(task).__name__, str(task))))

    @property
    def task_sizes_(self) -> tuple[int, ...]:
        """Training rows of each task."""
        return tuple(self._sizes[task] for task in self.tasks_)

    @property
    def fit_result_(self) -> FitResult:
        """History and time of the fit, and why it ended."""
        check_is_fitted(self)
        history, place = self._fitted.result.history, self._places()

        def in_order(terms: dict[str, Tensor]) -> dict[str, Tensor]:
            return {site: v if v.ndim == 1 else v[:, place] for site, v in terms.items()}

        log_likelihood, kl = in_order(history.log_likelihood), in_order(history.kl)
        related = {s: v[:, place][:, :, [*place, -1]] for s, v in history.relatedness.items()}
        history = replace(history, log_likelihood=log_likelihood, kl=kl, relatedness=related)
        return replace(self._fitted.result, history=history)

    @property
    def history_(self) -> History:
        """Loss of the fit at every step, and its terms, tasks in the order of ``tasks_``."""
        return self.fit_result_.history

    def _places(self) -> list[int]:
        """Give the place of each of ``tasks_`` in the fit."""
        place = {task: t for t, task in enumerate(self._sizes)}
        return [place[task] for task in self.tasks_]

    @property
    def relatedness_(self) -> xr.Dataset:
        """How much each task borrows from each source.

        Variables ``mean``, ``lower`` and ``upper`` (a 90 % interval), with dimensions ``task`` and
        ``source``, whose last is ``"base"``: what is not borrowed. NaN for a task and itself.
        """
        import xarray as xr

        table = self.relatedness_table(range(len(self.tasks_)))
        sources = [*self.tasks_, "base"]
        names = {"mean": "mean", "lower": "5%", "upper": "95%"}
        return xr.Dataset(
            {
                name: (("task", "source"), table.xs(level, axis=1, level=1).to_numpy())
                for name, level in names.items()
            },
            coords={
                name: (name, np.fromiter(labels, dtype=object, count=len(labels)))
                for name, labels in (("task", self.tasks_), ("source", sources))
            },
        )

    def _relatedness_draws(self) -> Tensor:
        """Draw weights, (S, T, T + 1), tasks in the order of ``tasks_``."""
        place = self._places()
        size = len(place) * (len(place) + 1)
        draws = max(20, min(1000, MOST_WEIGHTS // size))
        drawn = self._fitted.relatedness(num_samples=draws, seed=self.random_state)
        return drawn[:, place][:, :, [*place, len(place)]]

    def relatedness_table(self, labels: Sequence[Hashable] | None = None) -> pd.DataFrame:
        """Give the same as a table, as :func:`~pyro_vmtl.analysis.relatedness_table` does.

        Parameters
        ----------
        labels
            What the T tasks are called in it; ``tasks_`` by default.
        """
        import pandas as pd

        from pyro_vmtl.analysis import relatedness_table

        labels = self.tasks_ if labels is None else labels
        if self._table is None:
            self._table = relatedness_table(self._relatedness_draws(), range(len(labels)))
        table = self._table.copy()
        sources = [*labels, "base"]
        levels = table.columns.get_level_values(1)
        every = [source for source in sources for _ in range(len(levels) // len(sources))]
        table.columns = pd.MultiIndex.from_arrays([pd.Index(every, dtype=object), levels])
        table.index = pd.Index(list(labels), name="task", tupleize_cols=False)
        return table

    def summary(self) -> pd.DataFrame:
        """Give a row per task: its training rows, how much it borrows, and from whom most.

        Columns ``rows``, ``borrowed`` (all but the base), ``nearest`` (the source with the largest
        mean weight; None where none has one and a half times an even share of what is borrowed),
        ``weight`` (that weight) and, for a stack, how much each member counts.
        """
        import pandas as pd

        mean = self.relatedness_table(range(len(self.tasks_))).xs("mean", axis=1, level=1)
        sources = np.nan_to_num(mean.to_numpy()[:, :-1])
        # of what is borrowed, clearly more than an even share
        share = min(1.5 / max(len(sources) - 1, 1), 0.6)
        stands_out = sources.max(1) > share * sources.sum(1)
        nearest = np.where(stands_out, sources.argmax(1), -1)
        index = pd.Index(list(self.tasks_), name="task", tupleize_cols=False)
        table = pd.DataFrame(
            {
                "rows": self.task_sizes_,
                "borrowed": sources.sum(1),
                "nearest": pd.Series(
                    [None if i < 0 else self.tasks_[i] for i in nearest], index, dtype=object
                ),
                "weight": sources.max(1),
            },
            index=index,
        )
        if len(self._fitted.members) > 1:
            weights = self._fitted.weights.numpy()[self._places()]
            for name, column in zip(self._fitted.members, weights.T, strict=True):
                table[name] = column
        return table

    def to_datatree(
        self,
        X: Any,
        y: Any,
        tasks: Any = None,
        *,
        sample_weight: Any = None,
        rows: Sequence[Any] | None = None,
        num_samples: int = 500,
    ) -> xr.DataTree:
        """Draw from the fit, and lay the draws out for ArviZ, with the user's labels.

        Parameters
        ----------
        X, y, tasks, sample_weight
            The rows of the fit, as they were given to ``fit``: an estimator does not keep them.
        rows
            Other rows with targets, (X, y, tasks), to predict: gives a group ``predictions``.
        num_samples
            S, draws from the posterior; for a stack, of each member.

        Returns
        -------
        DataTree
            As :func:`~pyro_vmtl.analysis.to_datatree` gives it, tasks in the order of ``tasks_``,
            and ``row`` the place among the rows given. Targets, what is predicted of them and
            their log-likelihood are in the unit of the targets. Coefficients and features are
            standardised, as the attribute ``units`` of their groups says.

        Raises
        ------
        ValueError
            If rows are of tasks or classes that are not in the fit, or cannot be used.
        """
        from pyro_vmtl.estimators.exporting import exported

        return exported(
            cast("VMTLEstimator", self),
            *(X, y, tasks),
            sample_weight=sample_weight,
            rows=rows,
            num_samples=num_samples,
        )

    def plot_relatedness(self, ax: Axes | None = None) -> Axes:
        """Draw a heat map of mean weights: who borrows from whom.

        Parameters
        ----------
        ax
            Axes to draw on; new ones by default.
        """
        from pyro_vmtl.analysis import plot_relatedness, relatedness_datatree

        draws = self._relatedness_draws()
        return plot_relatedness(
            relatedness_datatree(draws, self.tasks_, task_sizes=self.task_sizes_), ax
        )
