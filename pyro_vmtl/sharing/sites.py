"""Shapes and checks of shared sites: their task plate, and whether they can be pooled."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro.poutine.mask_messenger import MaskMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.plate_messenger import PlateMessenger
from pyro.poutine.scale_messenger import ScaleMessenger
from torch import Tensor

from pyro_vmtl.data.plates import TASK_PLATE
from pyro_vmtl.sharing.correlated import base_dist, marginals
from pyro_vmtl.sharing.transformed import transforms_to, untransformed

__all__ = [
    "as_normal",
    "check_all_tasks",
    "check_num_tasks",
    "check_same_transforms",
    "is_inside_tasks",
    "marginals_of_part",
    "task_frame",
    "tasks_of_plate",
]


def task_frame(msg: Any) -> Any:
    """Return the task plate of a site, checking that it is the outermost."""
    frames = {frame.name: frame for frame in msg["cond_indep_stack"] if frame.vectorized}
    frame = frames.get(TASK_PLATE)
    if frame is None or min(f.dim for f in frames.values()) < frame.dim:
        raise ValueError(
            f"Site {msg['name']!r} is inside the plates {sorted(frames)}, expected "
            f"{TASK_PLATE!r} as the outermost, whose dimension share pools. Sample the site inside "
            f"`with pyro.plate({TASK_PLATE!r}, T, dim=...)`, or pass the name of yours, "
            "`share(..., plate=...)`."
        )
    return frame


def check_num_tasks(msg: Any, num_tasks: int) -> None:
    """Check that a site has the number of tasks of the first run of its guide."""
    size = task_frame(msg).full_size
    if size != num_tasks:
        raise ValueError(
            f"Site {msg['name']!r} has {size} tasks, expected {num_tasks} as when its guide first "
            "ran. Make rows to predict with `data.new_rows`, or call `share` again."
        )


def check_all_tasks(msg: Any) -> None:
    """Check that a guide without sources of its own runs on all tasks."""
    frame = task_frame(msg)
    if frame.size != frame.full_size:
        raise ValueError(
            f"Plate {TASK_PLATE!r} has {frame.size} of {frame.full_size} tasks at site "
            f"{msg['name']!r}, and its guide has the posteriors of these only, expected those of "
            "all: every task may be a source. Sample it by `sample_posterior`, as MeanFieldNormal "
            "does, or fit without `tasks`."
        )


def tasks_of_plate(msg: Any, device: torch.device) -> Tensor | None:
    """Return the indices of the tasks that a site runs on, (B,); None for all tasks."""
    frame = task_frame(msg)
    if frame.size == frame.full_size:
        return None
    every = torch.arange(frame.full_size, device=device).reshape(-1, *[1] * (-frame.dim - 1))
    return pyro.subsample(every, event_dim=0).flatten()


def is_inside_tasks(messenger: Messenger, *, msg: Any) -> bool:
    """Whether a plate, mask or scale of a site is of the cells inside a task, not of tasks."""
    if isinstance(messenger, PlateMessenger):
        inner = {frame.name for frame in msg["cond_indep_stack"]} - {TASK_PLATE}
        return messenger.name in inner
    factor = getattr(messenger, "mask", getattr(messenger, "scale", None))
    if not isinstance(messenger, MaskMessenger | ScaleMessenger) or not isinstance(factor, Tensor):
        return False
    return factor.shape[max(factor.ndim + task_frame(msg).dim + 1, 0) :].numel() > 1


def as_normal(fn: Any, msg: Any, where: str) -> tuple[dist.Independent, list[Any]]:
    """Return the normal of a site of the ``"model"``, or marginals in the ``"guide"`` or a source.

    With it come the transforms that make values of the site from those of the normal, each of a
    number of its own. In the guide the batch shape is (T, ...); the prior in a model may broadcast
    over tasks.
    """
    (inner, transforms), frame = untransformed(fn), task_frame(msg)
    independent = isinstance(inner, torch.distributions.Normal)
    normal = marginals(inner) if independent or where != "model" else None
    if normal is None or any(each.domain.event_dim or not each.bijective for each in transforms):
        raise ValueError(
            f"Site {msg['name']!r} is {type(base_dist(fn)).__name__} in the {where}, expected "
            "Normal: share pools normals, and bijections of their numbers such as LogNormal. Use "
            "such a prior, and a Normal or MultivariateNormal posterior of the same numbers."
        )
    if where == "guide" and (len(fn.batch_shape) != -frame.dim or fn.batch_shape[0] != frame.size):
        raise ValueError(
            f"Site {msg['name']!r} has batch shape {tuple(fn.batch_shape)} in the guide, expected "
            f"{frame.size} tasks at dimension {frame.dim} and nothing to its left. "
            "Use `.to_event()` for dimensions that are not plates."
        )
    if independent and isinstance(fn, dist.Independent) and fn.base_dist is inner:
        return fn, transforms
    return normal.to_event(len(fn.event_shape) - len(normal.event_shape)), transforms


def check_same_transforms(msg: Any, in_model: list[Any], in_guide: list[Any] | None) -> None:
    """Check that a site transforms its normal alike in model and guide; None is an autoguide."""
    in_guide = transforms_to(msg["fn"].support) if in_guide is None else in_guide
    if in_model != in_guide:
        names = [[type(each).__name__ for each in found] for found in (in_model, in_guide)]
        raise ValueError(
            f"Site {msg['name']!r} transforms a normal by {names[0]} in the model and by "
            f"{names[1]} in the guide, expected the same transforms. Use the same distribution, "
            "such as LogNormal, in both."
        )


def marginals_of_part(msg: Any, joint: Any, joint_msg: Any) -> dist.Independent | None:
    """Return the marginals of a site that is a part of a normal vector; None if it is not.

    Autoguides such as ``AutoMultivariateNormal`` draw one vector from ``joint``, in a site of its
    own, and have point masses at its parts. Parts that are not transformed are views of the vector,
    so that the same views of its moments are theirs.
    """
    part, whole, normal = msg["fn"].v, joint_msg["value"], marginals(joint)
    if normal is None or part.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr():
        return None
    num_dims = msg["fn"].event_dim - task_frame(msg).dim  # there may be particles to the left
    offset = part.storage_offset() - whole.storage_offset()
    loc, scale = (
        moment.contiguous().as_strided(part.shape[-num_dims:], part.stride()[-num_dims:], offset)
        for moment in (normal.base_dist.loc, normal.base_dist.scale)
    )
    return dist.Normal(loc, scale, validate_args=False).to_event(msg["fn"].event_dim)
