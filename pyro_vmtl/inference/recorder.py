"""Record tensor operations, to be replayed without autograd and without the programs."""

from __future__ import annotations

from operator import getitem
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["Recorder", "Replay"]


class Recorder(TorchDispatchMode):
    """Write the tensor operations under it into a graph, to be replayed without autograd.

    It does what ``make_fx`` does, but without the shapes of all values, which take most of the
    time of ``make_fx``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.graph = Graph()
        self.constants: dict[str, Tensor] = {}
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
        if isinstance(found, Tensor):
            self.nodes[found] = node
        elif isinstance(found, tuple | list):
            for place, value in enumerate(found):
                if isinstance(value, Tensor):
                    self.nodes[value] = self.graph.call_function(getitem, (node, place))
        elif found is not None:  # as of a check that raises an error
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
        """Return a module that computes the outcome."""
        self.graph.output(tree_map(self._node_of, outcome))
        self.graph.eliminate_dead_code()
        return GraphModule(self.constants, self.graph)


class Replay(nn.Module):
    """Run a recorded graph in inference mode, which takes a tenth off the time of small operations.

    Tensors made in that mode are barred from autograd for good. So the outcome is copied.
    """

    def __init__(self, graph: GraphModule) -> None:
        super().__init__()
        self.graph = graph

    def forward(self) -> Any:
        """Compute the outcome."""
        with torch.inference_mode():
            outcome = self.graph()
        return tree_map_only(Tensor, Tensor.clone, outcome)
