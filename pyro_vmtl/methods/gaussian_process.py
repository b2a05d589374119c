r"""A Gaussian process for many tasks, as a method: smooth functions that the tasks combine.

The landmarks of the kernel are centres of clusters of the rows. Its length scales are learned from
some of the rows (:mod:`pyro_vmtl.methods.length_scales`), then functions, loadings and slopes given
the kernel from all of them (:class:`~pyro_vmtl.guides.CoregionalizedNormal`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from pyro_vmtl.data.limits import check_limit
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.guides.coregionalized import CoregionalizedNormal
from pyro_vmtl.inference.elbo import MeanFieldELBO
from pyro_vmtl.methods.by_features import check_few_features
from pyro_vmtl.methods.length_scales import (
    LEAST_GAIN,
    evidence_gain,
    landmarks,
    learn_length_scales,
)
from pyro_vmtl.methods.member import Member
from pyro_vmtl.methods.method import ProgramMethod
from pyro_vmtl.models.coregionalized_regressor import CoregionalizedRegressor
from pyro_vmtl.models.kernel_features import KernelFeatures
from pyro_vmtl.models.task_noise import LogNormalNoise

__all__ = ["GaussianProcess"]

COPIES = 10
"""Matrices of each task that a fit holds at once."""

EVALUATIONS_FROM_START = 20
"""Evaluations that are enough from the parameters of a fit to similar rows."""


@dataclass(frozen=True)
class GaussianProcess(ProgramMethod):
    """A Gaussian process of real targets, with random slopes of the features.

    Parameters
    ----------
    num_landmarks
        M, points at which the kernel is exact.
    num_factors
        Q, functions that tasks combine.
    num_steps
        Evaluations of L-BFGS at most.

    Examples
    --------
    >>> import torch
    >>> X = torch.linspace(-2, 2, 40)[:, None]
    >>> data = TaskData.regression(X, torch.sin(2 * X[:, 0]), ["a", "b"] * 20).with_intercept()
    >>> fitted = GaussianProcess(num_landmarks=20).fit(data)
    >>> bool((fitted.predictive(data).mean - data.y).abs().max() < 0.1)
    True
    """

    num_landmarks: int = 100
    num_factors: int = 3
    num_steps: int = 60

    subsamples_tasks = True

    def __post_init__(self) -> None:
        """Check the sizes."""
        for name in ("num_landmarks", "num_factors", "num_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1.")

    def fit_settings(self, data: TaskData) -> dict[str, Any]:
        """Return the arguments of :func:`~pyro_vmtl.fit`."""
        return {"elbo": MeanFieldELBO(), "optimizer": "lbfgs", "num_steps": self.num_steps}

    def for_trial(self) -> GaussianProcess:
        """Return a method that takes half of the evaluations."""
        return replace(self, num_steps=-(-self.num_steps // 2))

    def promises(self, data: TaskData) -> bool:
        """Whether the log evidence of smooth functions is 5 nats above that of linear ones."""
        self._check(data)
        return evidence_gain(data, self.num_factors) > LEAST_GAIN

    def _settings_from(self, start: Member | None, data: TaskData) -> dict[str, Any]:
        settings = super()._settings_from(start, data)
        if start is not None:
            settings["num_steps"] = min(self.num_steps, EVALUATIONS_FROM_START)
        return settings

    def programs(self, data: TaskData) -> tuple[nn.Module, nn.Module]:
        """Return model and guide for training rows, not yet fitted."""
        self._check(data)
        at = landmarks(data.x[data.mask], self.num_landmarks)
        scales = learn_length_scales(data, self.num_landmarks, self.num_factors)
        features = KernelFeatures(at, scales.to(at))
        sizes = data.num_features, self.num_landmarks, self.num_factors
        model = CoregionalizedRegressor(features, *sizes, LogNormalNoise())
        model = model.to(data.x.device)
        return model, CoregionalizedNormal(model, data)

    def _check(self, data: TaskData) -> None:
        if data.classes is not None:
            raise ValueError("The rows have classes, expected real targets.")
        check_few_features(data, "a Gaussian process")
        numbers = COPIES * data.num_tasks * (data.num_features + self.num_landmarks) ** 2
        check_limit("NUMBERS", numbers, "A Gaussian process of so many tasks", "If there is memory")
