"""Running Pyro programs without a trace in anything global."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch

__all__ = ["isolated"]


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
