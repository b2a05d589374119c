"""A Pyro program together with the effect handler it runs under."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import nn

__all__ = ["TASK_PLATE", "Handled", "Program"]

TASK_PLATE = "task"
"""Name of the plate over tasks in models and guides."""

Program = Callable[..., Any]
"""A model or a guide: any callable with Pyro statements, often an ``nn.Module``."""


class Handled(nn.Module):
    """A program that runs under a handler, as one module with the parameters of both.

    Parameters
    ----------
    program
        Model or guide.
    handler
        Makes a fresh handler from ``state`` for each run.
    state
        What the handler needs and learns.
    """

    def __init__(
        self, program: Program, handler: Callable[[Any], Messenger], state: nn.Module
    ) -> None:
        super().__init__()
        self.program = program
        self.handler = handler
        self.state = state

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program under the handler."""
        with self.handler(self.state):
            return self.program(*args, **kwargs)
