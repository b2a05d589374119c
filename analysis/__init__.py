"""Looking at a fit: metrics, tables, pictures."""

if __name__ == "analysis":
    raise ImportError("Import this as pyro_vmtl.analysis: `analysis` would be a second copy of it.")


from pyro_vmtl.analysis.arviz_api import az
from pyro_vmtl.analysis.export.datatree import to_datatree
from pyro_vmtl.analysis.export.pyro_svi import from_pyro_svi
from pyro_vmtl.analysis.export.tree_files import read_netcdf, write_netcdf
from pyro_vmtl.analysis.predicted.band_plots import plot_regression_bands
from pyro_vmtl.analysis.predicted.decision_plots import plot_decision_regions
from pyro_vmtl.analysis.predicted.prediction_grids import decision_grid, regression_grid
from pyro_vmtl.analysis.predicted.shrinkage_plots import plot_shrinkage
from pyro_vmtl.analysis.predicted.uncertain_rows import most_uncertain_rows, plot_uncertain_rows
from pyro_vmtl.analysis.predicted.uncertainty_plots import plot_uncertainty
from pyro_vmtl.analysis.related.by_site import plot_relatedness_by_site
from pyro_vmtl.analysis.related.evolution import plot_relatedness_evolution
from pyro_vmtl.analysis.related.graph import plot_relatedness_graph
from pyro_vmtl.analysis.related.heat_map import plot_relatedness
from pyro_vmtl.analysis.related.pool_weights import relatedness_datatree
from pyro_vmtl.analysis.related.recovery import plot_relatedness_truth, relatedness_recovery
from pyro_vmtl.analysis.related.relatedness import own_group_share, relatedness_table
from pyro_vmtl.analysis.report import Picture, ReportTable, Section, write_report
from pyro_vmtl.analysis.report_contents import report_sections
from pyro_vmtl.analysis.scores.baselines import (
    boosted_trees_classification,
    boosted_trees_regression,
    logistic_regression_per_task,
    logistic_regression_pooled,
    ridge_per_task,
    ridge_pooled,
)
from pyro_vmtl.analysis.scores.comparison import ALL_TASKS, plot_comparison, summarise
from pyro_vmtl.analysis.scores.gaussian_process import gaussian_process
from pyro_vmtl.analysis.scores.metrics import (
    classification_metrics,
    expected_calibration_error,
    regression_metrics,
)
from pyro_vmtl.analysis.scores.suite import average_ranks, judge, plot_average_ranks, suite_means
from pyro_vmtl.analysis.trust.calibration_curves import (
    ece_interval,
    plot_coverage,
    plot_pit,
    plot_reliability,
)
from pyro_vmtl.analysis.trust.history_plots import plot_elbo, plot_elbo_terms, plot_history
from pyro_vmtl.analysis.trust.khat import plot_khat, psis_khat
from pyro_vmtl.analysis.trust.leave_one_out import compare_fits, loo, loo_by_task
from pyro_vmtl.analysis.trust.loo_plot import plot_loo
from pyro_vmtl.analysis.trust.nuts import nuts_reference
from pyro_vmtl.analysis.trust.predictive_checks import plot_ppc, plot_ppc_by_task
from pyro_vmtl.analysis.trust.ranks import plot_ranks, rank_uniformity
from pyro_vmtl.analysis.trust.reference_plot import plot_reference
from pyro_vmtl.analysis.trust.restarts import plot_restarts, restart_spread
from pyro_vmtl.analysis.trust.simulation import simulate_ranks
from pyro_vmtl.analysis.trust.task_statistics import predictive_pvalues

__all__ = [
    "ALL_TASKS",
    "Picture",
    "ReportTable",
    "Section",
    "average_ranks",
    "az",
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
