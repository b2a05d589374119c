"""Variational multi-task learning as an effect handler over Pyro models and guides."""

from pyro_vmtl._version import __version__
from pyro_vmtl.attention import attend
from pyro_vmtl.batches import BalancedRows, RandomRows
from pyro_vmtl.data import TaskData
from pyro_vmtl.elbo import MeanFieldELBO
from pyro_vmtl.fit import FitResult, NonFiniteLossError, fit
from pyro_vmtl.history import History
from pyro_vmtl.points import point_estimates
from pyro_vmtl.pools import GaussianSumPool, LinearPool, LogarithmicPool
from pyro_vmtl.predict import log_predictive_density, predict_moments, predict_proba, predictive_cdf
from pyro_vmtl.schedule import Constant, Cosine, Exponential, Linear, Stairs
from pyro_vmtl.share import relatedness, share
from pyro_vmtl.sources import CellSources
from pyro_vmtl.task_batches import RandomTasks, TaskBlocks
from pyro_vmtl.temper import temper

__all__ = [
    "BalancedRows",
    "CellSources",
    "Constant",
    "Cosine",
    "Exponential",
    "FitResult",
    "GaussianSumPool",
    "History",
    "Linear",
    "LinearPool",
    "LogarithmicPool",
    "MeanFieldELBO",
    "NonFiniteLossError",
    "RandomRows",
    "RandomTasks",
    "Stairs",
    "TaskBlocks",
    "TaskData",
    "__version__",
    "attend",
    "fit",
    "log_predictive_density",
    "point_estimates",
    "predict_moments",
    "predict_proba",
    "predictive_cdf",
    "relatedness",
    "share",
    "temper",
]
