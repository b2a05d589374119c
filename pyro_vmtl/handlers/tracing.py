"""Trace a guide, and its model replayed on the guide's draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pyro import poutine
from pyro.poutine import Trace

__all__ = ["TracePair", "is_sample", "reason", "sample_sites", "trace_guide_and_model"]


class TracePair(NamedTuple):
    """Traces of a model and its guide, of the same draws."""

    model: Trace
    guide: Trace


def trace_guide_and_model(
    model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
) -> TracePair:
    """Trace a guide, then its model on the values that the guide drew.

    A sharing model finds the posteriors of this run of the guide in the trace that it is replayed
    on: Pyro's ``replay`` hands over the ``infer`` of each site along with its value.

    Parameters
    ----------
    model, guide
        Pyro programs.
    *args, **kwargs
        Arguments of both.

    Returns
    -------
    TracePair
        The traces of the model and of the guide.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> def program():
    ...     return pyro.sample("w", dist.Normal(0.0, 1.0))
    >>> traces = trace_guide_and_model(program, program)
    >>> traces.model.nodes["w"]["value"] is traces.guide.nodes["w"]["value"]
    True
    """
    guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    replayed = poutine.replay(model, trace=guide_trace)
    return TracePair(poutine.trace(replayed).get_trace(*args, **kwargs), guide_trace)


def is_sample(node: Any) -> bool:
    """Whether a node of a trace is a sample site, and not a parameter or the indices of a plate."""
    return node["type"] == "sample" and type(node["fn"]).__name__ != "_Subsample"


def sample_sites(trace: Trace) -> dict[str, Any]:
    """Return the sample sites of a trace, by name."""
    return {name: node for name, node in trace.nodes.items() if is_sample(node)}


def reason(error: BaseException) -> str:
    """Return an error's message without the table of shapes that Pyro appends while it traces."""
    return str(error).partition("Trace Shapes:")[0].strip()
