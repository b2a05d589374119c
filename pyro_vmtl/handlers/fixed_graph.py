"""Programs that do the same tensor operations at every step, so that a fit can record them once.

A class says so of its instances by ``fixed_graph = True`` in its body, and a function by
``function.fixed_graph = True``. It is a promise: the order and kind of tensor operations depends
neither on how often the program ran, nor on what it drew, nor on the values of its parameters. A
subclass has to declare it, too, as it may do something else than its parent.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

__all__ = ["has_fixed_graph"]

TORCH_LAYERS = frozenset(
    {
        *(nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict),
        *(nn.ParameterList, nn.ParameterDict, nn.Identity, nn.Flatten, nn.Unflatten),
        *(nn.Linear, nn.Bilinear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d),
        *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
        *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.LayerNorm, nn.GroupNorm),
        *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Softplus),
        *(nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Softmax, nn.LogSoftmax),
    }
)
"""Layers of torch that keep the promise. Batch normalization counts its steps."""


def has_fixed_graph(program: Any) -> bool:
    """Whether a program declares ``fixed_graph``.

    All submodules of a module must, and the functions and classes among their attributes. They must
    have no forward hooks.
    """
    if isinstance(program, nn.Module):
        return all(map(_is_declared_module, program.modules()))
    if isinstance(program, partial):
        return has_fixed_graph(program.func)
    return _declares(program) or _declares(type(program))


def _is_declared_module(module: nn.Module) -> bool:
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    attributes = (
        value
        for value in vars(module).values()
        if callable(value) and not isinstance(value, torch.distributions.Distribution)
    )
    declared = type(module) in TORCH_LAYERS or _declares(type(module))
    return declared and all(map(has_fixed_graph, attributes))


def _declares(value: Any) -> bool:
    """Whether an object declares it itself, and does not inherit it."""
    return getattr(value, "__dict__", {}).get("fixed_graph") is True
