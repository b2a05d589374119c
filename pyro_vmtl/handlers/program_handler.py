"""A Pyro program together with the effect handler it runs under."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import nn

from pyro_vmtl.handlers.own_parameters import as_module

__all__ = ["UNCONSTRAINED", "Program", "ProgramWithHandler", "SiteMessenger", "unwrap"]

UNCONSTRAINED = "_unconstrained"
"""Suffix of the auxiliary sites of Pyro's autoguides."""

Program = Callable[..., Any]
"""A model or a guide: any callable with Pyro statements, often an ``nn.Module``."""


class ProgramWithHandler(nn.Module):
    """A program that runs under a handler, as one module that owns the parameters of both.

    ``handler`` makes a new handler for each run from ``state``, its settings and parameters.
    With ``changes_posterior = False`` a handler matters to the loss only (:func:`unwrap`).
    """

    fixed_graph = True

    def __init__(
        self, program: Program, handler: Callable[[Any], Messenger], state: nn.Module
    ) -> None:
        super().__init__()
        self.program = as_module(program)
        self.handler = handler
        self.state = state

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program under the handler."""
        with self.handler(self.state):
            return self.program(*args, **kwargs)


def unwrap(program: nn.Module) -> nn.Module:
    """Return a program without the handlers that do not change its posterior.

    Sharing and tempering change the loss, but not the predictions. Without them there are no source
    weights to draw, T by T numbers for every draw from the posterior.

    Parameters
    ----------
    program
        A model or guide, as ``share`` and ``temper`` return them.

    Returns
    -------
    Module
        The innermost program that has the same posterior.

    Examples
    --------
    >>> from pyro_vmtl import temper
    >>> model, guide = nn.Identity(), nn.Identity()
    >>> unwrap(temper(model, guide, kl_weights=0.5)[1]) is guide
    True
    """
    while isinstance(program, ProgramWithHandler) and not getattr(
        program.handler, "changes_posterior", True
    ):
        program = program.program
    return program


class SiteMessenger(Messenger):
    """A handler of named sites, which raises an error if a program lacks one of them."""

    def __init__(self, sites: Iterable[str]) -> None:
        super().__init__()
        self.missing = set(sites)
        self.met: set[str] = set()

    def _pyro_sample(self, msg: Any) -> None:
        # Plates and the auxiliary variables of autoguides are sample sites, too.
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
