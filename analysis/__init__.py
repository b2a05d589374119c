"""Looking at a fit: metrics, tables, pictures."""

if __name__ == "analysis":
    raise ImportError("Import this as pyro_vmtl.analysis: `analysis` would be a second copy of it.")


from pyro_vmtl.analysis.band_plots import plot_regression_bands
from pyro_vmtl.analysis.baselines import (
    boosted_trees_classification,
    boosted_trees_regression,
    logistic_regression_per_task,
    logistic_regression_pooled,
    ridge_per_task,
    ridge_pooled,
)
from pyro_vmtl.analysis.by_site import plot_relatedness_by_site
from pyro_vmtl.analysis.calibration_curves import (
    ece_interval,
    plot_coverage,
    plot_pit,
    plot_reliability,
)
from pyro_vmtl.analysis.comparison import ALL_TASKS, plot_comparison, summarise
from pyro_vmtl.analysis.datatree import to_datatree
from pyro_vmtl.analysis.decision_plots import plot_decision_regions
from pyro_vmtl.analysis.evolution import plot_relatedness_evolution
from pyro_vmtl.analysis.gaussian_process import gaussian_process
from pyro_vmtl.analysis.graph import plot_relatedness_graph
from pyro_vmtl.analysis.heat_map import plot_relatedness
from pyro_vmtl.analysis.history_plots import plot_elbo, plot_elbo_terms, plot_history
from pyro_vmtl.analysis.khat import plot_khat, psis_khat
from pyro_vmtl.analysis.leave_one_out import compare_fits, loo, loo_by_task
from pyro_vmtl.analysis.loo_plot import plot_loo
from pyro_vmtl.analysis.metrics import (
    classification_metrics,
    expected_calibration_error,
    regression_metrics,
)
from pyro_vmtl.analysis.nuts import nuts_reference
from pyro_vmtl.analysis.pool_weights import relatedness_datatree
from pyro_vmtl.analysis.prediction_grids import decision_grid, regression_grid
from pyro_vmtl.analysis.predictive_checks import plot_ppc, plot_ppc_by_task
from pyro_vmtl.analysis.pyro_svi import from_pyro_svi
from pyro_vmtl.analysis.ranks import plot_ranks, rank_uniformity
from pyro_vmtl.analysis.recovery import plot_relatedness_truth, relatedness_recovery
from pyro_vmtl.analysis.reference_plot import plot_reference
from pyro_vmtl.analysis.relatedness import own_group_share, relatedness_table
from pyro_vmtl.analysis.report import Picture, ReportTable, Section, write_report
from pyro_vmtl.analysis.report_contents import report_sections
from pyro_vmtl.analysis.restarts import plot_restarts, restart_spread
from pyro_vmtl.analysis.shrinkage_plots import plot_shrinkage
from pyro_vmtl.analysis.simulation import simulate_ranks
from pyro_vmtl.analysis.suite import average_ranks, judge, plot_average_ranks, suite_means
from pyro_vmtl.analysis.task_statistics import predictive_pvalues
from pyro_vmtl.analysis.tree_files import read_netcdf, write_netcdf
from pyro_vmtl.analysis.uncertain_rows import most_uncertain_rows, plot_uncertain_rows
from pyro_vmtl.analysis.uncertainty_plots import plot_uncertainty

__all__ = [
    "ALL_TASKS",
    "Picture",
    "ReportTable",
    "Section",
    "average_ranks",
    "boosted_trees_classification",
    "boosted_trees_regression",
    "classification_metrics",
    "compare_fits",
    "decision_grid",
    "ece_interval",
    "expected_calibration_error",
    "from_pyro_svi",
    "gaussian_process",
    "judge",
    "logistic_regression_per_task",
    "logistic_regression_pooled",
    "loo",
    "loo_by_task",
    "most_uncertain_rows",
    "nuts_reference",
    "own_group_share",
    "plot_average_ranks",
    "plot_comparison",
    "plot_coverage",
    "plot_decision_regions",
    "plot_elbo",
    "plot_elbo_terms",
    "plot_history",
    "plot_khat",
    "plot_loo",
    "plot_pit",
    "plot_ppc",
    "plot_ppc_by_task",
    "plot_ranks",
    "plot_reference",
    "plot_regression_bands",
    "plot_relatedness",
    "plot_relatedness_by_site",
    "plot_relatedness_evolution",
    "plot_relatedness_graph",
    "plot_relatedness_truth",
    "plot_reliability",
    "plot_restarts",
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
    "relatedness_recovery",
    "relatedness_table",
    "report_sections",
    "restart_spread",
    "ridge_per_task",
    "ridge_pooled",
    "simulate_ranks",
    "suite_means",
    "summarise",
    "to_datatree",
    "write_netcdf",
    "write_report",
]
