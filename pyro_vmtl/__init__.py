"""Variational multi-task learning as an effect handler over Pyro models and guides."""

from pyro_vmtl._version import __version__
from pyro_vmtl.data import TaskData
from pyro_vmtl.elbo import MeanFieldELBO
from pyro_vmtl.fit import FitResult, NonFiniteLossError, fit
from pyro_vmtl.history import History
from pyro_vmtl.pools import GaussianSumPool, LinearPool, LogarithmicPool
from pyro_vmtl.predict import log_predictive_density, predict_moments, predict_proba
from pyro_vmtl.schedule import Cosine, Exponential
from pyro_vmtl.share import relatedness, share
from pyro_vmtl.temper import temper

__all__ = [
    "Cosine",
    "Exponential",
    "FitResult",
    "GaussianSumPool",
    "History",
    "LinearPool",
    "LogarithmicPool",
    "MeanFieldELBO",
    "NonFiniteLossError",
    "TaskData",
    "__version__",
    "fit",
    "log_predictive_density",
    "predict_moments",
    "predict_proba",
    "relatedness",
    "share",
    "temper",
]
