"""Kernel features of the rows of a table, for smooth functions in linear models."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional

from pyro_vmtl.data.limits import check_limit
from pyro_vmtl.data.one_task import as_one_task
from pyro_vmtl.data.task_data import TaskData
from pyro_vmtl.handlers.smooth_term import expand_features, expand_rows
from pyro_vmtl.methods.by_features import FEW, check_few_features
from pyro_vmtl.methods.length_scales import (
    LEAST_GAIN,
    evidence_gain,
    landmarks,
    learn_length_scales,
)
from pyro_vmtl.models.kernel_features import PrincipalFeatures
from pyro_vmtl.predictive.family import Family
from pyro_vmtl.predictive.poisson import PoissonFamily

__all__ = ["promises_to_be_smooth", "smooth_features", "smooth_start"]

COPIES = 6
"""Numbers of features and of coefficients that a fit holds for each of them."""

OWN_SCALE = 2.0
"""Root of the kernel's variance over the mean square of the features, for tasks' own functions."""


def smooth_features(
    data: TaskData, family: Family, num_landmarks: int, *, own: bool = False
) -> PrincipalFeatures:
    """Choose landmarks, and learn length scales by regressions of the targets.

    Of classes the indicators are regressed, of counts log(1 + y). Features with the prior of
    other features, of tasks' ``own`` functions, are of a like size.
    """
    check_few_features(data, "smooth functions")
    sizes = data.mask.numel(), data.num_tasks * max(data.num_classes, 1) if own else 0
    numbers = COPIES * max(sizes) * (data.num_features + num_landmarks)
    check_limit(
        *("NUMBERS", numbers, "Smooth functions of so many rows or tasks"),
        "Take fewer landmarks. If there is memory",
    )
    x = data.x[data.mask]
    squares = x[:, : data.num_features - data.intercept].square().sum(1)
    scale = OWN_SCALE * float(squares.mean().sqrt()) if own and len(x) else 1.0
    log_length_scale = learn_length_scales(_as_numbers(data, family), num_landmarks, 1).to(x)
    return PrincipalFeatures(landmarks(x, num_landmarks), log_length_scale, x, scale)


def promises_to_be_smooth(data: TaskData, family: Family) -> bool:
    """Whether smooth functions have a larger evidence than linear ones in such regressions."""
    return data.num_features <= FEW and evidence_gain(_as_numbers(data, family), 1) > LEAST_GAIN


def smooth_start(
    data: TaskData, family: Family, model: nn.Module, features: nn.Module
) -> tuple[Tensor, Tensor]:
    """Compute initial means and scales of a smooth term, (M,) or (C, M), by a fit without tasks."""
    rows = as_one_task(data)
    rows = replace(rows, x=expand_rows(expand_features(model, features), rows.x))
    shape = () if data.classes is None else (data.num_classes,)
    ones = data.x.new_ones(1, *shape, rows.num_features)
    loc, scale = family.initialize(model, rows, 1.0) or (0 * ones, 0.1 * ones)
    return loc[0, ..., data.num_features :], scale[0, ..., data.num_features :]


def _as_numbers(data: TaskData, family: Family) -> TaskData:
    """Return rows with targets as real numbers, (T, N), or (T, N, C - 1) for classes."""
    if data.y is None:
        return data
    y = data.y.double().log1p() if isinstance(family, PoissonFamily) else data.y
    if data.classes is not None:
        y = functional.one_hot(data.y, data.num_classes)[..., 1:].double()
    return replace(data, y=y)
