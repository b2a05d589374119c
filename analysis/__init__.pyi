from .arviz_api import az as az
from .calibration.calibration_curves import plot_coverage as plot_coverage
from .calibration.calibration_curves import plot_reliability as plot_reliability
from .calibration.predictive_checks import plot_ppc_by_task as plot_ppc_by_task
from .calibration.predictive_checks import predictive_pvalues as predictive_pvalues
from .calibration.ranks import rank_uniformity as rank_uniformity
from .diagnostics.history_plots import plot_elbo as plot_elbo
from .diagnostics.history_plots import plot_elbo_terms as plot_elbo_terms
from .diagnostics.khat import plot_khat as plot_khat
from .diagnostics.khat import psis_khat as psis_khat
from .diagnostics.leave_one_out import compare_fits as compare_fits
from .diagnostics.leave_one_out import loo as loo
from .diagnostics.leave_one_out import loo_by_task as loo_by_task
from .diagnostics.nuts import nuts_reference as nuts_reference
from .diagnostics.reliability import assess_reliability as assess_reliability
from .diagnostics.restarts import restart_spread as restart_spread
from .diagnostics.simulation import simulate_ranks as simulate_ranks
from .export.datatree import to_datatree as to_datatree
from .export.pyro_svi import from_pyro_svi as from_pyro_svi
from .export.tree_files import read_netcdf as read_netcdf
from .export.tree_files import write_netcdf as write_netcdf
from .influence.influence_plots import harmful_rows as harmful_rows
from .influence.influence_plots import (
    plot_influence_against_refits as plot_influence_against_refits,
)
from .influence.influence_plots import (
    plot_influence_between_tasks as plot_influence_between_tasks,
)
from .influence.influence_plots import plot_influential_rows as plot_influential_rows
from .metrics import ALL_TASKS as ALL_TASKS
from .metrics import classification_metrics as classification_metrics
from .metrics import expected_calibration_error as expected_calibration_error
from .metrics import regression_metrics as regression_metrics
from .outputs.gate_plots import plot_gates as plot_gates
from .outputs.gate_plots import plot_iterations as plot_iterations
from .predictions.prediction_grids import decision_grid as decision_grid
from .predictions.prediction_grids import regression_grid as regression_grid
from .predictions.shrinkage_plots import plot_shrinkage as plot_shrinkage
from .predictions.task_plots import plot_decision_regions as plot_decision_regions
from .predictions.task_plots import plot_regression_bands as plot_regression_bands
from .predictions.uncertainty_plots import most_uncertain_rows as most_uncertain_rows
from .predictions.uncertainty_plots import plot_uncertain_rows as plot_uncertain_rows
from .predictions.uncertainty_plots import plot_uncertainty as plot_uncertainty
from .relatedness.evolution_plot import plot_relatedness_evolution as plot_relatedness_evolution
from .relatedness.weight_plots import plot_relatedness as plot_relatedness
from .relatedness.weight_plots import plot_relatedness_graph as plot_relatedness_graph
from .relatedness.weights import relatedness_datatree as relatedness_datatree
from .relatedness.weights import relatedness_table as relatedness_table
from .report import write_report as write_report
from .report_contents import report_sections as report_sections
