"""Generative models: plain Pyro programs, and the priors of their coefficients."""

if __name__ == "models":
    raise ImportError("Import this as pyro_vmtl.models: `models` would be a second copy of it.")

from pyro_vmtl.models.coregionalized_regressor import CoregionalizedRegressor
from pyro_vmtl.models.kernel_features import KernelFeatures, PrincipalFeatures
from pyro_vmtl.models.linear_classifier import LinearClassifier
from pyro_vmtl.models.linear_counts import LinearCounts
from pyro_vmtl.models.linear_regressor import LinearRegressor
from pyro_vmtl.models.outputs import LinearOutputs, MLPOutputs
from pyro_vmtl.models.paper.latent_classifier import LatentClassifier
from pyro_vmtl.models.paper.latent_regressor import LatentRegressor
from pyro_vmtl.models.priors import HierarchicalNormal, StandardNormal, ZeroMeanNormal
from pyro_vmtl.models.task_noise import LogNormalNoise, TaskNoise

__all__ = [
    "CoregionalizedRegressor",
    "HierarchicalNormal",
    "KernelFeatures",
    "LatentClassifier",
    "LatentRegressor",
    "LinearClassifier",
    "LinearCounts",
    "LinearOutputs",
    "LinearRegressor",
    "LogNormalNoise",
    "MLPOutputs",
    "PrincipalFeatures",
    "StandardNormal",
    "TaskNoise",
    "ZeroMeanNormal",
]
