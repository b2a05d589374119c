"""Analysis of fits: export to ArviZ, metrics, diagnostics, tables and pictures."""

if __name__ == "analysis":
    raise ImportError("Import this as pyro_vmtl.analysis: `analysis` would be a second copy of it.")

from pyro_vmtl.analysis.arviz_api import az
from pyro_vmtl.analysis.baselines import (
    logistic_regression_per_task,
    logistic_regression_pooled,
)
from pyro_vmtl.analysis.calibration.calibration_curves import (
    plot_coverage,
    plot_pit,
    plot_reliability,
)
from pyro_vmtl.analysis.calibration.predictive_checks import plot_ppc_by_task, predictive_pvalues
from pyro_vmtl.analysis.calibration.ranks import rank_uniformity
from pyro_vmtl.analysis.diagnostics.history_plots import plot_elbo, plot_elbo_terms
from pyro_vmtl.analysis.diagnostics.khat import plot_khat, psis_khat
from pyro_vmtl.analysis.diagnostics.leave_one_out import compare_fits, loo, loo_by_task
from pyro_vmtl.analysis.diagnostics.nuts import nuts_reference
from pyro_vmtl.analysis.diagnostics.reference_plot import plot_reference
from pyro_vmtl.analysis.diagnostics.restarts import restart_spread
from pyro_vmtl.analysis.diagnostics.simulation import simulate_ranks
from pyro_vmtl.analysis.export.datatree import to_datatree
from pyro_vmtl.analysis.export.pyro_svi import from_pyro_svi
from pyro_vmtl.analysis.export.tree_files import read_netcdf, write_netcdf
from pyro_vmtl.analysis.metrics import (
    ALL_TASKS,
    classification_metrics,
    ece_interval,
    expected_calibration_error,
    regression_metrics,
)
from pyro_vmtl.analysis.predictions.prediction_grids import decision_grid, regression_grid
from pyro_vmtl.analysis.predictions.shrinkage_plots import plot_shrinkage
from pyro_vmtl.analysis.predictions.task_plots import plot_decision_regions, plot_regression_bands
from pyro_vmtl.analysis.predictions.uncertainty_plots import (
    most_uncertain_rows,
    plot_uncertain_rows,
    plot_uncertainty,
)
from pyro_vmtl.analysis.relatedness.comparison_plots import (
    plot_relatedness_by_site,
    plot_relatedness_evolution,
)
from pyro_vmtl.analysis.relatedness.weight_plots import plot_relatedness, plot_relatedness_graph
from pyro_vmtl.analysis.relatedness.weights import (
    relatedness_datatree,
    relatedness_table,
)
from pyro_vmtl.analysis.report import Picture, ReportTable, Section, write_report
from pyro_vmtl.analysis.report_contents import report_sections

__all__ = [
    "ALL_TASKS",
    "Picture",
    "ReportTable",
    "Section",
    "az",
    "classification_metrics",
    "compare_fits",
    "decision_grid",
    "ece_interval",
    "expected_calibration_error",
    "from_pyro_svi",
    "logistic_regression_per_task",
    "logistic_regression_pooled",
    "loo",
    "loo_by_task",
    "most_uncertain_rows",
    "nuts_reference",
    "plot_coverage",
    "plot_decision_regions",
    "plot_elbo",
    "plot_elbo_terms",
    "plot_khat",
    "plot_pit",
    "plot_ppc_by_task",
    "plot_reference",
    "plot_regression_bands",
    "plot_relatedness",
    "plot_relatedness_by_site",
    "plot_relatedness_evolution",
    "plot_relatedness_graph",
    "plot_reliability",
    "plot_shrinkage",
    "plot_uncertain_rows",
    "plot_uncertainty",
    "predictive_pvalues",
    "psis_khat",
    "rank_uniformity",
    "read_netcdf",
    "regression_grid",
    "regression_metrics",
    "relatedness_datatree",
    "relatedness_table",
    "report_sections",
    "restart_spread",
    "simulate_ranks",
    "to_datatree",
    "write_netcdf",
    "write_report",
]
