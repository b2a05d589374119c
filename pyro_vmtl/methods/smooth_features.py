"""Kernel features of the rows of a table, for smooth functions in linear models."""

from __future__ import annotations

from dataclasses import replace

from torch.nn import functional

from pyro_vmtl.data.limits import LimitError, check_limit
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.methods.by_features import FEW
from pyro_vmtl.methods.gaussian_process import LEAST_GAIN
from pyro_vmtl.methods.length_scales import evidence_gain, landmarks, learn_length_scales
from pyro_vmtl.models.kernel_features import PrincipalFeatures

__all__ = ["promises_to_be_smooth", "smooth_features"]

OWN_SCALE = 2.0
"""Root of the kernel's variance over the mean square of the features, for tasks' own functions."""


def smooth_features(
    data: TaskData, num_landmarks: int, *, counts: bool = False, own: bool = False
) -> PrincipalFeatures:
    """Choose landmarks, and learn length scales by regressions of the targets.

    Of classes the indicators are regressed, of ``counts`` log(1 + y). Features with the prior of
    other features, of tasks' ``own`` functions, are of a like size.
    """
    if data.num_features > FEW:
        raise LimitError(
            f"The rows have {data.num_features} features, expected at most {FEW} for smooth "
            "functions. Reduce them, for example with sklearn.decomposition.PCA."
        )
    numbers = data.mask.numel() * (data.num_features + num_landmarks)
    check_limit("NUMBERS", numbers, "Smooth functions of so many rows", "If there is memory")
    x = data.x[data.mask]
    squares = x[:, : data.num_features - data.intercept].square().sum(1)
    scale = OWN_SCALE * float(squares.mean().sqrt()) if own and len(x) else 1.0
    log_length_scale = learn_length_scales(_as_numbers(data, counts), num_landmarks, 1).to(x)
    return PrincipalFeatures(landmarks(x, num_landmarks), log_length_scale, x, scale)


def promises_to_be_smooth(data: TaskData, *, counts: bool = False) -> bool:
    """Whether smooth functions have a larger evidence than linear ones in such regressions."""
    return data.num_features <= FEW and evidence_gain(_as_numbers(data, counts), 1) > LEAST_GAIN


def _as_numbers(data: TaskData, counts: bool) -> TaskData:
    """Return rows with targets as real numbers, (T, N), or (T, N, C - 1) for classes."""
    if data.y is None:
        return data
    y = data.y.double().log1p() if counts else data.y
    if data.classes is not None:
        y = functional.one_hot(data.y, data.num_classes)[..., 1:].double()
    return replace(data, y=y)
