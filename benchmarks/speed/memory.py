"""Measure the memory of a step: the most bytes that tensors hold at once."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["peak_bytes"]


def peak_bytes(step: Callable[[], Any]) -> int:
    """Measure the most bytes that a call adds to those held before it; views count once."""
    with _Watch(_storages()) as watch:
        step()
    return watch.peak


def _storages() -> set[int]:
    """Find the storages of all existing tensors."""
    gc.collect()
    tensors = [value for value in gc.get_objects() if type(value) in (Tensor, Parameter)]
    return {tensor.untyped_storage()._cdata for tensor in tensors}


class _Watch(TorchDispatchMode):
    """Track the storages that operations allocate until they are freed."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.known = known
        self.held: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: Any) -> None:
        key = storage._cdata
        if key in self.held or key in self.known:
            return
        self.held[key] = storage.nbytes()
        self.peak = max(self.peak, sum(self.held.values()))
        weakref.finalize(storage, self.held.pop, key, None)
