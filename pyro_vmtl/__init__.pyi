from ._version import __version__ as __version__
from .adding import add_task as add_task
from .attention import attend as attend
from .batches import BalancedRows as BalancedRows
from .batches import RandomRows as RandomRows
from .calibration import Calibration as Calibration
from .counts import Counts as Counts
from .cross_validation import folds as folds
from .data import TaskData as TaskData
from .elbo import MeanFieldELBO as MeanFieldELBO
from .estimators import VMTLClassifier as VMTLClassifier
from .estimators import VMTLRegressor as VMTLRegressor
from .fitted import Fitted as Fitted
from .fitting import FitResult as FitResult
from .fitting import NonFiniteLossError as NonFiniteLossError
from .fitting import fit as fit
from .history import History as History
from .mixture import mixed as mixed
from .one_task import as_one_task as as_one_task
from .points import point_estimates as point_estimates
from .pools import (
    GaussianSumPool as GaussianSumPool,
)
from .pools import (
    LinearPool as LinearPool,
)
from .pools import (
    LogarithmicPool as LogarithmicPool,
)
from .predict import (
    likelihood_draws as likelihood_draws,
)
from .predict import (
    log_predictive_density as log_predictive_density,
)
from .predict import (
    predict_moments as predict_moments,
)
from .predict import (
    predict_proba as predict_proba,
)
from .predict import (
    predictive_cdf as predictive_cdf,
)
from .quantile import quantiles as quantiles
from .schedule import (
    Constant as Constant,
)
from .schedule import (
    Cosine as Cosine,
)
from .schedule import (
    Exponential as Exponential,
)
from .schedule import (
    Linear as Linear,
)
from .schedule import (
    Stairs as Stairs,
)
from .sharing import relatedness as relatedness
from .sharing import share as share
from .sources import CellSources as CellSources
from .stacking import FittedStack as FittedStack
from .stacking import Stack as Stack
from .task_batches import RandomTasks as RandomTasks
from .task_batches import TaskBlocks as TaskBlocks
from .task_batches import sample_of_plate as sample_of_plate
from .tempering import temper as temper
