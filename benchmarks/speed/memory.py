"""Memory of a step: the most bytes that tensors hold at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["peak_bytes"]


def peak_bytes(step: Callable[[], Any]) -> int:
    """Give the most bytes held at once by tensors that a call makes, views counted once."""
    with _Watch() as watch:
        step()
    return watch.peak


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {id(a.untyped_storage()._cdata): a for a in args if isinstance(a, torch.Tensor)}
        del given
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: Any) -> None:
        key = storage._cdata
        if key in self.held:
            return
        self.held[key] = storage.nbytes()
        self.peak = max(self.peak, sum(self.held.values()))
        weakref.finalize(storage, self.held.pop, key, None)
