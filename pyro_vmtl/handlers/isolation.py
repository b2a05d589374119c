"""Run Pyro programs without touching global state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch import nn

__all__ = ["bare_parameters", "check_no_bare_parameters", "evaluating", "isolated", "validation"]


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed torch and empty Pyro's parameter store; restore both on exit.

    Pyro keeps the ``PyroParam`` s of all guides in one store, by name: two ``AutoNormal`` guides
    would overwrite each other's values. In this context a guide has only its own.
    """
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=cuda), pyro.get_param_store().scope():
        # torch's own function notes the stack of its caller, for when a device starts: milliseconds
        seeds = torch if torch.accelerator.is_available() else torch.default_generator
        seeds.manual_seed(seed)
        yield


@contextmanager
def validation(enabled: bool) -> Iterator[None]:
    """Enable or disable the validation of Pyro and torch; restore both settings on exit."""
    before = torch.distributions.Distribution._validate_args
    try:
        with pyro.validation_enabled(enabled):
            yield
    finally:
        # pyro.validation_enabled sets torch's to Pyro's setting
        torch.distributions.Distribution.set_default_validate_args(before)


@contextmanager
def evaluating(*programs: Any) -> Iterator[None]:
    """Put modules into evaluation mode, without dropout; restore their modes on exit."""
    modules = [m for p in programs if isinstance(p, nn.Module) for m in p.modules()]
    training = [module for module in modules if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def bare_parameters(*programs: Any) -> list[str]:
    """Return the names in the parameter store that belong to no module of the programs."""
    modules = [program for program in programs if isinstance(program, nn.Module)]
    known = {id(parameter) for module in modules for parameter in module.parameters()}
    store = pyro.get_param_store()
    return [name for name, value in store.named_parameters() if id(value) not in known]


def check_no_bare_parameters(*programs: Any) -> None:
    """Check that programs have no bare ``pyro.param``, which ends with :func:`isolated`."""
    for name in bare_parameters(*programs):
        raise ValueError(
            f"pyro.param({name!r}) is not a parameter of the model or guide module, and would "
            "be lost. Make a function a module that owns its parameters, `as_module(guide)`; in a "
            "module use an nn.Parameter, or in a PyroModule a PyroParam."
        )
