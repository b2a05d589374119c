"""Looking at a fitted estimator: tables and a picture, with the user's labels."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils.validation import check_is_fitted

from pyro_vmtl.fitted import Fitted
from pyro_vmtl.history import History
from pyro_vmtl.stacking import FittedStack

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes

__all__ = ["InspectionMixin"]

MOST_WEIGHTS = 20_000_000
"""Draws of source weights that are held at once."""


class InspectionMixin:
    """What there is to see of a fit."""

    tasks_: tuple[Hashable, ...]
    task_sizes_: tuple[int, ...]
    random_state: int
    _fitted: Fitted | FittedStack

    @property
    def history_(self) -> History:
        """Loss of the fit at every step, and its terms."""
        check_is_fitted(self)
        return self._fitted.result.history

    @property
    def relatedness_(self) -> xr.Dataset:
        """How much each task borrows from each source.

        Variables ``mean``, ``lower`` and ``upper`` (a 90 % interval), with dimensions ``task`` and
        ``source``, whose last is ``"base"``: what is not borrowed. NaN for a task and itself.
        """
        import xarray as xr

        table = self._relatedness_table(range(len(self.tasks_)))
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

    def _relatedness_table(self, labels: Sequence[Hashable]) -> pd.DataFrame:
        from pyro_vmtl.analysis import relatedness_table

        check_is_fitted(self)
        size = len(self.tasks_) * (len(self.tasks_) + 1)
        draws = max(20, min(1000, MOST_WEIGHTS // size))
        fitted = self._fitted.relatedness(num_samples=draws, seed=self.random_state)
        return relatedness_table(fitted, labels)

    def summary(self) -> pd.DataFrame:
        """Give a row per task: its training rows, how much it borrows, and from whom most.

        Columns ``rows``, ``borrowed`` (all but the base), ``nearest`` (the source with the largest
        mean weight; None where nothing is borrowed), ``weight`` (that weight) and, for a stack, how
        much each member counts.
        """
        import pandas as pd

        mean = self._relatedness_table(range(len(self.tasks_))).xs("mean", axis=1, level=1)
        sources = np.nan_to_num(mean.to_numpy()[:, :-1])
        nearest = np.where(sources.any(1), sources.argmax(1), -1)
        table = pd.DataFrame(
            {
                "rows": self.task_sizes_,
                "borrowed": sources.sum(1),
                "nearest": [None if i < 0 else self.tasks_[i] for i in nearest],
                "weight": sources.max(1),
            },
            index=pd.Index(list(self.tasks_), name="task", tupleize_cols=False),
        )
        if isinstance(self._fitted, FittedStack):
            weights = self._fitted.weights.numpy()
            for name, column in zip(self._fitted.members, weights.T, strict=True):
                table[name] = column
        return table

    def plot_relatedness(self, ax: Axes | None = None) -> Axes:
        """Draw a heat map of mean weights: who borrows from whom.

        Parameters
        ----------
        ax
            Axes to draw on; new ones by default.
        """
        from pyro_vmtl.analysis import plot_relatedness

        names = [str(label) for label in self.tasks_]
        if len({*names, "base"}) <= len(names):  # such as 1 and "1"
            names = [repr(label) for label in self.tasks_]
        return plot_relatedness(self._relatedness_table(names), ax)
