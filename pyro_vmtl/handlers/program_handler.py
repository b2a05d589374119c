"""A Pyro program together with the effect handler it runs under."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import nn

__all__ = ["TASK_PLATE", "UNCONSTRAINED", "Program", "ProgramWithHandler", "SiteMessenger"]

TASK_PLATE = "task"
"""Name of the plate over tasks in models and guides."""

UNCONSTRAINED = "_unconstrained"
"""What Pyro's autoguides append to the name of a site for its auxiliary site."""

Program = Callable[..., Any]
"""A model or a guide: any callable with Pyro statements, often an ``nn.Module``."""


class ProgramWithHandler(nn.Module):
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


class SiteMessenger(Messenger):
    """A handler of named sites, which objects to a program that has no such site.

    Parameters
    ----------
    sites
        Names of the sites to handle.
    """

    def __init__(self, sites: Iterable[str]) -> None:
        super().__init__()
        self.missing = set(sites)
        self.met: set[str] = set()

    def _pyro_sample(self, msg: Any) -> None:
        # Plates and the auxiliary sites of autoguides show up as sites, too.
        if type(msg["fn"]).__name__ != "_Subsample" and not msg["infer"].get("is_auxiliary"):
            self.missing.discard(msg["name"])
            self.met.add(msg["name"])

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        if self.missing and exception[0] is None:
            raise ValueError(
                f"The program has no site {', '.join(map(repr, sorted(self.missing)))}, found "
                f"{sorted(self.met)}."
            )
