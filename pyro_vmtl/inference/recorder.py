"""Record tensor operations, to be replayed without autograd and without the programs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import getitem
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.weak import WeakTensorKeyDictionary

from pyro_vmtl.handlers.isolation import isolated

__all__ = ["Recorder", "Replay"]

INTERPRETED_FROM = 50
"""Run from which on a graph is interpreted: by then, others have taken as long as preparing it."""

CANNOT_INTERPRET = (AttributeError, RuntimeError)
"""What is raised where torch has no TorchScript, or not these operations."""


class Recorder(TorchDispatchMode):
    """Write the tensor operations under it into a graph, to be replayed without autograd.

    It does what ``make_fx`` does, but without the shapes of all values, which take most of the
    time of ``make_fx``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.graph = Graph()
        self.constants: dict[str, Tensor] = {}
        self.infos: list[Any] = []
        self.nodes = WeakTensorKeyDictionary()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, for two seconds, to leave it alone here

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.lift_fresh.default:  # a constant must not change in place
            func = torch.ops.aten.lift_fresh_copy.default
        found = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.detach.default:
            self.nodes[found] = self._node_of(args[0])
            return found
        node = self.graph.call_function(func, *tree_map(self._node_of, (args, kwargs or {})))
        if func is torch.ops.aten._linalg_check_errors.default:
            self.infos.append(node.args[0])
        elif isinstance(found, Tensor):
            self.nodes[found] = node
        elif isinstance(found, tuple | list):
            for place, value in enumerate(found):
                if isinstance(value, Tensor):
                    self.nodes[value] = self.graph.call_function(getitem, (node, place))
        else:  # as of a check that raises an error
            raise RuntimeError(f"{func} returns {found}, which may differ at other steps.")
        return found

    def _node_of(self, value: Any) -> Any:
        """Return the node that stands for a tensor; a constant if no operation has made it."""
        if not isinstance(value, Tensor):
            return value
        if value not in self.nodes:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = value
            self.nodes[value] = self.graph.get_attr(name)
        return self.nodes[value]

    def finish(self, outcome: Any) -> GraphModule:
        """Return a module that computes the outcome, and what is not 0 where a matrix is singular.

        Its errors are raised by operations without a result, which TorchScript leaves out.
        """
        self.graph.output((tree_map(self._node_of, outcome), self.infos))
        self.graph.eliminate_dead_code()
        return GraphModule(self.constants, self.graph)


class Replay:
    """Run a recorded graph in inference mode, after some runs without Python, too.

    Between small operations Python takes longer than they do. TorchScript's interpreter, without
    its optimizations, does the same operations in the same order in about half the time, but takes
    a tenth of a second to prepare. Where torch has none, Python goes on.

    Tensors made in inference mode are barred from autograd for good. So the outcome is copied.
    """

    def __init__(self, graph: GraphModule) -> None:
        self.flat = _Flat(graph)
        self.run: Callable[[], tuple[Tensor, ...]] = self.flat
        self.num_runs = 0

    def __call__(self) -> Any:
        """Compute the outcome."""
        self.num_runs += 1
        if self.num_runs == INTERPRETED_FROM:
            with suppress(*CANNOT_INTERPRET):
                self.run = self._interpreted()
        with torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            tensors = self.run()
        outcome, infos = self.flat.outcome(map(torch.clone, tensors))
        if infos and torch.stack([info.any() for info in infos]).any():
            raise torch.linalg.LinAlgError("A matrix to factorize is not positive-definite.")  # type: ignore[attr-defined]
        return outcome

    def _interpreted(self) -> Callable[[], tuple[Tensor, ...]]:
        """Return the graph as TorchScript, by a run of it that leaves the random state alone."""
        before = [(buffer, buffer.clone()) for buffer in self.flat.buffers()]
        with isolated(0), warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore", DeprecationWarning)
            # a recorded graph has its shapes, whatever a mode of the caller looks at
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            interpreted: Callable[[], tuple[Tensor, ...]] = torch.jit.trace(
                self.flat, (), check_trace=False
            )
        for buffer, value in before:  # which steps may change in place
            if not buffer.equal(value):  # else graphs that have saved it go on being valid
                buffer.copy_(value)
        return interpreted


class _Flat(nn.Module):
    """The tensors of what a graph returns."""

    def __init__(self, graph: GraphModule) -> None:
        super().__init__()
        self.graph = graph
        self.leaves: list[Any] = []

    def forward(self) -> tuple[Tensor, ...]:
        leaves, self.spec = tree_flatten(self.graph())
        self.leaves = [Tensor if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))

    def outcome(self, tensors: Iterator[Tensor]) -> Any:
        """Put tensors in the places of those in the last run."""
        leaves = [next(tensors) if leaf is Tensor else leaf for leaf in self.leaves]
        return tree_unflatten(leaves, self.spec)
