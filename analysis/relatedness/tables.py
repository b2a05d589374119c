"""Tables of who borrows from whom."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
from torch import Tensor

__all__ = ["own_group_share", "relatedness_table"]


def relatedness_table(draws: Tensor, task_labels: Sequence[Hashable]) -> pd.DataFrame:
    """Mean and 90 % interval of every task's weights.

    Parameters
    ----------
    draws
        (S, T, T + 1), draws of the weights as :func:`pyro_vmtl.relatedness` gives them.
    task_labels
        The T labels of the tasks.

    Returns
    -------
    DataFrame
        Rows are tasks. For each source and the base there are the columns ``(source, "mean")``,
        ``(source, "5%")`` and ``(source, "95%")``. A task's weight on itself is missing (NaN).
    """
    values = draws.cpu().numpy().astype(float)
    num_tasks = len(task_labels)
    values[:, range(num_tasks), range(num_tasks)] = np.nan
    summaries = {"mean": values.mean(0)}
    summaries["5%"], summaries["95%"] = np.quantile(values, [0.05, 0.95], axis=0)
    sources = [*task_labels, "base"]
    columns = {
        (source, name): summary[:, i]
        for i, source in enumerate(sources)
        for name, summary in summaries.items()
    }
    return pd.DataFrame(columns, index=pd.Index(list(task_labels), name="task"))


def own_group_share(weights: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    r"""Part of each task's source weight, base aside, that stays in its own group.

    Parameters
    ----------
    weights
        (\*S, T, T + 1), weights with the base last; NaN counts as 0.
    groups
        The group of each task.

    Returns
    -------
    ndarray
        (\*S, T), from 0 to 1; NaN where nothing is borrowed.

    Examples
    --------
    >>> import numpy as np
    >>> own_group_share(np.array([[0, 0.3, 0.1, 0.6], [0.5, 0, 0, 0.5], [1, 0, 0, 0]]), "aab")
    array([0.75, 1.  , 0.  ])
    """
    sources = np.nan_to_num(weights[..., :-1])
    labels = np.empty(len(groups), dtype=object)
    labels[:] = list(groups)
    same = labels[:, None] == labels
    borrowed = sources.sum(-1)
    share = np.full(borrowed.shape, np.nan)
    return np.divide((sources * same).sum(-1), borrowed, out=share, where=borrowed > 0)
