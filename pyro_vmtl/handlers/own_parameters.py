"""Programs that own their parameters, whatever Pyro's global parameter store holds.

Pyro keeps parameters in one store, by name. Of two ``AutoNormal`` guides that run outside of a fit
the second takes the values of the first, without a word, as their parameters have the same names.
Here each program runs with a store of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pyro
from pyro.nn.module import PyroModule, _Context
from pyro.poutine.messenger import Messenger
from torch import nn
from torch.distributions import constraints

__all__ = ["as_module", "own_parameters"]

STORED = "_was_in_pyro_store"
"""Mark of a parameter that Pyro's store may have handed to several modules."""


def own_parameters(*programs: Any) -> None:
    """Let every ``PyroModule`` of some programs own its parameters.

    Those that are in Pyro's store leave it, and are copied, as other modules may have them, too.
    """
    store = pyro.get_param_store()
    contexts: dict[_Context, _Context] = {}
    copies: dict[nn.Parameter, nn.Parameter] = {}
    modules = [m for p in programs if isinstance(p, nn.Module) for m in p.modules()]
    for module in modules:
        if not isinstance(module, PyroModule):
            continue
        context = module._pyro_context
        if not isinstance(context, _OwnStore) and not context.active:
            new = contexts.setdefault(context, _OwnStore())
            new.used = context.used
            module._pyro_context = new
        for key, parameter in module._parameters.items():
            name = None if parameter is None else store.param_name(parameter)
            if name is not None:
                setattr(parameter, STORED, True)
                del store[name]
            if parameter is not None and hasattr(parameter, STORED):
                copy = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
                module._parameters[key] = copies.setdefault(parameter, copy)


def as_module(program: Callable[..., Any]) -> nn.Module:
    """Make a function a module that owns its parameters, as those of ``pyro.param``.

    They are made when the function first runs. From then on they are those of the module, with the
    constraints that the function states. :func:`~pyro_vmtl.share`, :func:`~pyro_vmtl.temper` and
    :class:`~pyro_vmtl.Programs` do this with functions.

    Parameters
    ----------
    program
        A function with ``pyro.param`` statements, as in Pyro's tutorials. A module is returned as
        it is, but for the parameters of a ``PyroModule``, which it owns from now on.

    Returns
    -------
    Module
        What does the same without Pyro's parameter store.

    Examples
    --------
    >>> import pyro.distributions as dist, torch
    >>> from torch.distributions import constraints
    >>> def guide():
    ...     scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
    ...     pyro.sample("w", dist.Normal(0.0, scale))
    >>> module = as_module(guide)
    >>> _ = module()
    >>> [name for name, _ in module.named_parameters()], "scale" in pyro.get_param_store()
    (['own.scale'], False)
    """
    if isinstance(program, nn.Module):
        own_parameters(program)
        return program
    if inspect.isfunction(program):
        with suppress(ValueError):  # of a variable that has no value yet
            used = inspect.getclosurevars(program)
            own_parameters(*used.nonlocals.values(), *used.globals.values())
    return _Function(program)


class _Function(nn.Module):
    """A function that runs in a parameter store of its own, which lasts from run to run."""

    fixed_graph = True

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.own = nn.Module()
        self.constraints: dict[str, Any] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function, and keep the parameters that it makes."""
        kept = {key.replace("/", "."): value for key, value in self.own.named_parameters()}
        state: Any = {"params": dict(kept), "constraints": dict(self.constraints)}
        with pyro.get_param_store().scope(state), _Parameters() as met:
            result = self.function(*args, **kwargs)
        self.constraints = state["constraints"]
        for name, found in met.found.items():  # in the order of the function
            if name in kept:
                continue
            value = state["params"].get(name, found)
            if name not in met.of_modules and name in state["params"]:
                # other modules may have it, too; a PyroModule takes the copy from the store
                value = nn.Parameter(value.detach().clone(), value.requires_grad)
            self.own.register_parameter(name.replace(".", "/"), value)
            self.constraints.setdefault(name, constraints.real)
        return result


class _Parameters(Messenger):
    """Find the parameters of a run, and which of them are of modules that keep them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, Any] = {}
        self.of_modules: set[str] = set()

    def _pyro_post_param(self, msg: Any) -> None:
        self.found[msg["name"]] = msg["value"].unconstrained()
        if any(isinstance(initial, nn.Parameter) for initial in msg["args"][1:2]):
            self.of_modules.add(msg["name"])


class _OwnStore(_Context):
    """The context of a ``PyroModule``, in which the parameter store is empty at first.

    So the module reads the parameters that it has. Those of bare ``pyro.param`` statements in it
    go to the outer store, as without this context.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bare: set[str] = set()

    def __enter__(self) -> None:
        if not self.active:
            store = pyro.get_param_store()
            self.scope = store.scope(_only(store.get_state(), self.bare))
            self.scope.__enter__()
            self.met = _Parameters().__enter__()
        super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        if not self.active:
            store = pyro.get_param_store()
            state = store.get_state()
            self.met.__exit__(*exception)
            self.scope.__exit__(*exception)
            # not those of the model that an autoguide runs once
            found = self.met.found.keys() & state["params"].keys()
            del self.met, self.scope
            bare = {name for name in found if not isinstance(state["params"][name], nn.Parameter)}
            self.bare |= bare
            store.set_state(_only(state, bare))


def _only(state: Any, names: set[str]) -> Any:
    """Return the part of a store's state that has these names."""
    return {
        kind: {name: value for name, value in values.items() if name in names}
        for kind, values in state.items()
    }
