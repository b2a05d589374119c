"""Estimators in the manner of scikit-learn."""

from pyro_vmtl.estimators.classifier import VMTLClassifier
from pyro_vmtl.estimators.notices import DataNotice, VersionNotice
from pyro_vmtl.estimators.regressor import VMTLRegressor
from pyro_vmtl.estimators.saving import versions

__all__ = ["DataNotice", "VMTLClassifier", "VMTLRegressor", "VersionNotice", "versions"]
