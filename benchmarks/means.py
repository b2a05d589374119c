"""Mean and standard error over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

__all__ = ["means_and_errors"]


def means_and_errors(rows: Iterable[Mapping[str, object]], by: Sequence[str]) -> pd.DataFrame:
    """Format the mean ± standard error over seeds of each number, for each group of rows.

    Parameters
    ----------
    rows
        Rows with a ``seed``, the columns to group by, and numbers.
    by
        Columns to group by.
    """
    groups = pd.DataFrame(rows).drop(columns="seed").groupby(list(by), sort=False)
    means, errors = groups.mean(), groups.sem()
    return (means.map("{:.4f}".format) + errors.map(" ± {:.4f}".format)).where(means.notna(), "")
