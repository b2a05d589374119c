"""Running Pyro programs without a trace in anything global."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch import nn

__all__ = ["check_no_bare_parameters", "isolated", "validation"]


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed torch and empty Pyro's parameter store; give both back as they were.

    Pyro keeps the ``PyroParam`` s of all guides in one store, by name: two ``AutoNormal`` guides
    would end on each other's values. In here a guide has only its own.

    Examples
    --------
    >>> with isolated(seed=1):
    ...     first = torch.rand(())
    >>> with isolated(seed=1):
    ...     second = torch.rand(())
    >>> bool(first == second)
    True
    """
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=cuda), pyro.get_param_store().scope():
        torch.manual_seed(seed)
        yield


@contextmanager
def validation(enabled: bool) -> Iterator[None]:
    """Switch the checks of Pyro and torch on or off; give both settings back as they were."""
    before = torch.distributions.Distribution._validate_args
    try:
        with pyro.validation_enabled(enabled):
            yield
    finally:
        # pyro.validation_enabled leaves torch with pyro's setting
        torch.distributions.Distribution.set_default_validate_args(before)


def check_no_bare_parameters(*programs: Any) -> None:
    """Check that all that was put into the empty parameter store belongs to a module.

    Raises
    ------
    ValueError
        If a program has a bare ``pyro.param``, which lives in the global store alone: in here it
        would start anew, and be forgotten.
    """
    modules = [program for program in programs if isinstance(program, nn.Module)]
    known = {id(parameter) for module in modules for parameter in module.parameters()}
    for name, value in pyro.get_param_store().named_parameters():
        if id(value) not in known:
            raise ValueError(
                f"pyro.param({name!r}) is not a parameter of the model or guide module, and would "
                "not be kept. Make the program an nn.Module with an nn.Parameter, or a PyroModule "
                "with a PyroParam."
            )
