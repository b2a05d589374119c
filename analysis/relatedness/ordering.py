"""An order of tasks in which those that borrow from one another stand side by side."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

__all__ = ["clustered_order"]

MOST_OPTIMAL = 400
"""Tasks up to which the best order is looked for; beyond, it would take longer than the fit."""


def clustered_order(mean: np.ndarray) -> list[int]:
    """Order tasks by hierarchical clustering (average linkage) of how much they borrow.

    Two tasks are as near as one borrows from the other and the other from it, the base aside. Of
    the orders that a clustering allows, the one is taken in which neighbours are nearest
    (Bar-Joseph et al., 2001).

    Parameters
    ----------
    mean
        (T, T + 1), mean weights with the base last; NaN counts as 0.

    Examples
    --------
    >>> import numpy as np
    >>> pairs = np.array([[0, 0, 0.9, 0.1], [0.5, 0, 0.5, 0], [1, 0, 0, 0]])
    >>> clustered_order(pairs)
    [0, 2, 1]
    """
    sources = np.nan_to_num(mean[:, :-1])
    if len(sources) < 3:
        return list(range(len(sources)))
    shares = sources / np.maximum(sources.sum(1, keepdims=True), np.finfo(float).tiny)
    near = (shares + shares.T) / 2
    distance = squareform(1 - near / max(near.max(), np.finfo(float).tiny), checks=False)
    tree = linkage(distance, method="average")
    if len(sources) <= MOST_OPTIMAL:
        tree = optimal_leaf_ordering(tree, distance)
    order: list[int] = leaves_list(tree).tolist()
    # either direction is as good: the one that is nearer to the order given
    return order if np.corrcoef(order, range(len(order)))[0, 1] >= 0 else order[::-1]
