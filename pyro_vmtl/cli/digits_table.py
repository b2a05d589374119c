"""The embedded example: scikit-learn's digits as a table, a task for each angle of rotation."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pyro_vmtl.datasets import rotated_digits

__all__ = ["ANGLE", "DIGIT", "DIGITS", "digits_table"]

DIGITS = "digits"
"""Name of the example as the source of a fit."""

DIGIT, ANGLE = "digit", "angle (degrees)"
"""The target column, and the task column."""


def digits_table(seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the rotated digits as a table, and whether each row is a test row."""
    split = rotated_digits(seed=seed)
    table = pd.DataFrame(
        np.concatenate([split.X_train, split.X_test]),
        columns=[f"pixel {row}, {column}" for row in range(8) for column in range(8)],
    )
    table[DIGIT] = np.concatenate([split.y_train, split.y_test])
    table[ANGLE] = np.array([*split.tasks_train, *split.tasks_test])
    return table, np.arange(len(table)) >= len(split.y_train)
