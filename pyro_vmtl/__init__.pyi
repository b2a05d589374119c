from ._version import __version__ as __version__
from .attribution.influence import influence as influence
from .attribution.posterior_means import posterior_means as posterior_means
from .attribution.selection import select_rows as select_rows
from .data.counterparts import attend as attend
from .data.folds import folds as folds
from .data.one_task import as_one_task as as_one_task
from .data.output_data import OutputData as OutputData
from .data.plates import sample_posterior as sample_posterior
from .data.row_batches import BalancedRows as BalancedRows
from .data.row_batches import RandomRows as RandomRows
from .data.task_batches import RandomTasks as RandomTasks
from .data.task_batches import TaskBlocks as TaskBlocks
from .data.task_data import TaskData as TaskData
from .estimators import FeedbackClassifier as FeedbackClassifier
from .estimators import FeedbackEstimator as FeedbackEstimator
from .estimators import FeedbackRegressor as FeedbackRegressor
from .estimators import VMTLClassifier as VMTLClassifier
from .estimators import VMTLRegressor as VMTLRegressor
from .handlers.output_layer import output_layer as output_layer
from .handlers.own_parameters import as_module as as_module
from .handlers.point_estimates import point_estimates as point_estimates
from .handlers.program_handler import unwrap as unwrap
from .handlers.schedules import (
    Constant as Constant,
)
from .handlers.schedules import (
    Cosine as Cosine,
)
from .handlers.schedules import (
    Exponential as Exponential,
)
from .handlers.schedules import (
    Linear as Linear,
)
from .handlers.schedules import (
    Stairs as Stairs,
)
from .handlers.target import target_learning_rate as target_learning_rate
from .handlers.temper import temper as temper
from .handlers.tracing import trace_guide_and_model as trace_guide_and_model
from .inference.elbo import MeanFieldELBO as MeanFieldELBO
from .inference.history import History as History
from .inference.saved_program import load_program as load_program
from .inference.saved_program import save_program as save_program
from .inference.svi import FitResult as FitResult
from .inference.svi import NonFiniteLossError as NonFiniteLossError
from .inference.svi import fit as fit
from .linear_response.response import LinearResponse as LinearResponse
from .methods.add_task import add_task as add_task
from .methods.by_features import ByFeatures as ByFeatures
from .methods.fit_files import load_fitted as load_fitted
from .methods.fit_files import save_fitted as save_fitted
from .methods.fitted import Fitted as Fitted
from .methods.method import Method as Method
from .methods.method import Programs as Programs
from .methods.preset import Preset as Preset
from .methods.stack import Stack as Stack
from .outputs.feedback import feedback as feedback
from .outputs.feedback import feedback_gates as feedback_gates
from .outputs.feedback import known_outputs as known_outputs
from .outputs.star_crf import StarCRF as StarCRF
from .predictive.calibration import Calibration as Calibration
from .predictive.families import family_of as family_of
from .predictive.families import predictive_mixture as predictive_mixture
from .predictive.families import register_family as register_family
from .predictive.family import Family as Family
from .predictive.overdispersed_poisson import OverdispersedPoisson as OverdispersedPoisson
from .predictive.posterior_predictive import (
    likelihood_draws as likelihood_draws,
)
from .predictive.posterior_predictive import (
    log_predictive_density as log_predictive_density,
)
from .predictive.posterior_predictive import (
    predict_moments as predict_moments,
)
from .predictive.posterior_predictive import (
    predict_proba as predict_proba,
)
from .predictive.quantiles import quantiles as quantiles
from .sharing.pool import Pool as Pool
from .sharing.pools import (
    ExpectedLogarithmicPool as ExpectedLogarithmicPool,
)
from .sharing.pools import (
    GaussianSumPool as GaussianSumPool,
)
from .sharing.pools import (
    LinearPool as LinearPool,
)
from .sharing.pools import (
    LogarithmicPool as LogarithmicPool,
)
from .sharing.share import relatedness as relatedness
from .sharing.share import share as share
from .sharing.sources import CellSources as CellSources
