"""Estimators with scikit-learn's interface, for rows with task labels or several outputs."""

from pyro_vmtl.estimators.classifier import VMTLClassifier
from pyro_vmtl.estimators.device import check_device
from pyro_vmtl.estimators.exceptions import DataWarning, OutlierWarning, VersionWarning
from pyro_vmtl.estimators.feedback import FeedbackEstimator
from pyro_vmtl.estimators.feedback_kinds import FeedbackClassifier, FeedbackRegressor
from pyro_vmtl.estimators.regressor import VMTLRegressor
from pyro_vmtl.estimators.saving import versions

__all__ = [
    "DataWarning",
    "FeedbackClassifier",
    "FeedbackEstimator",
    "FeedbackRegressor",
    "OutlierWarning",
    "VMTLClassifier",
    "VMTLRegressor",
    "VersionWarning",
    "check_device",
    "versions",
]
