"""Looking at a fitted estimator: tables and a picture, with the user's labels."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils.validation import check_is_fitted

from pyro_vmtl.fitted import Fitted
from pyro_vmtl.fitting import FitResult
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
    _relatedness: pd.DataFrame | None = None

    @property
    def fit_result_(self) -> FitResult:
        """History and time of the fit, and why it ended."""
        check_is_fitted(self)
        return self._fitted.result

    @property
    def history_(self) -> History:
        """Loss of the fit at every step, and its terms."""
        return self.fit_result_.history

    @property
    def relatedness_(self) -> xr.Dataset:
        """How much each task borrows from each source.

        Variables ``mean``, ``lower`` and ``upper`` (a 90 % interval), with dimensions ``task`` and
        ``source``, whose last is ``"base"``: what is not borrowed. NaN for a task and itself.
        """
        import xarray as xr

        table = self.relatedness_table()
        sources = list(dict.fromkeys(table.columns.get_level_values(0)))
        names = {"mean": "mean", "lower": "5%", "upper": "95%"}
        return xr.Dataset(
            {
                name: (("task", "source"), table.xs(level, axis=1, level=1).to_numpy())
                for name, level in names.items()
            },
            coords={"task": list(self.tasks_), "source": sources},
        )

    def relatedness_table(self) -> pd.DataFrame:
        """Give the same as a table, as :func:`~pyro_vmtl.analysis.relatedness_table` does."""
        from pyro_vmtl.analysis import relatedness_table

        check_is_fitted(self)
        if self._relatedness is not None:
            return self._relatedness
        size = len(self.tasks_) * (len(self.tasks_) + 1)
        draws = max(20, min(1000, MOST_WEIGHTS // size))
        fitted = self._fitted.relatedness(num_samples=draws, seed=self.random_state)
        self._relatedness = relatedness_table(fitted, self.tasks_)
        return self._relatedness

    def summary(self) -> pd.DataFrame:
        """Give a row per task: its training rows, how much it borrows, and from whom most.

        Columns ``rows``, ``borrowed`` (all but the base), ``nearest`` (the source with the largest
        mean weight), ``weight`` (that weight) and, for a stack, how much each member counts.
        """
        import pandas as pd

        mean = self.relatedness_table().xs("mean", axis=1, level=1)
        sources = np.nan_to_num(mean.to_numpy()[:, :-1])
        nearest = sources.argmax(1)
        table = pd.DataFrame(
            {
                "rows": self.task_sizes_,
                "borrowed": sources.sum(1),
                "nearest": [self.tasks_[i] if len(self.tasks_) > 1 else None for i in nearest],
                "weight": sources.max(1),
            },
            index=pd.Index(list(self.tasks_), name="task"),
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

        return plot_relatedness(self.relatedness_table(), ax)
