"""Looking at a fit: metrics, tables, pictures."""

if __name__ == "analysis":
    raise ImportError("Import this as pyro_vmtl.analysis: `analysis` would be a second copy of it.")

from pyro_vmtl.analysis.baselines import (
    logistic_regression_per_task,
    logistic_regression_pooled,
)
from pyro_vmtl.analysis.metrics import classification_metrics, expected_calibration_error
from pyro_vmtl.analysis.plots import plot_history, plot_relatedness
from pyro_vmtl.analysis.relatedness import own_group_share, relatedness_table

__all__ = [
    "classification_metrics",
    "expected_calibration_error",
    "logistic_regression_per_task",
    "logistic_regression_pooled",
    "own_group_share",
    "plot_history",
    "plot_relatedness",
    "relatedness_table",
]
