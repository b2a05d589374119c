"""A handler that renames a plate, so that others find it by the name that they know."""

from __future__ import annotations

from typing import Any

from pyro.poutine.messenger import Messenger
from torch import nn

__all__ = ["RenamedPlate"]


class RenamedPlate(Messenger):
    """Rename the plate ``old`` to ``new`` in all sites of a program, and the site of its indices.

    Handlers around this one, traces included, see the new name.
    """

    fixed_graph = True

    def __init__(self, old: str, new: str, state: nn.Module) -> None:
        super().__init__()
        self.old = old
        self.new = new

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == self.old and type(msg["fn"]).__name__ == "_Subsample":
            msg["name"] = self.new
        msg["cond_indep_stack"] = tuple(
            frame._replace(name=self.new) if frame.name == self.old else frame
            for frame in msg["cond_indep_stack"]
        )
