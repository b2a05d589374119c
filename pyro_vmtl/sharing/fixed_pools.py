"""The model of a shared fit with its pools fixed, so that it is a density like any other."""

from __future__ import annotations

import math

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.poutine import Trace
from torch import Tensor

from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.handlers.tracing import sample_sites
from pyro_vmtl.sharing.messengers import RECORDED, detached_sources

__all__ = ["has_sources", "with_fixed_pools"]

LEAST, MOST, NUMBERS = 100, 50_000, 20_000_000
"""Draws of the source weights to compute their mean from: as many as have this many numbers."""

AT_ONCE = 5_000_000
"""Numbers drawn at once."""


def has_sources(node: dict[str, object]) -> bool:
    """Whether a site of a trace is one of source weights."""
    return RECORDED in node["infer"]  # type: ignore[operator]


@torch.no_grad()
def with_fixed_pools(model: Program, guide_trace: Trace) -> Program:
    """Return a sharing model in which each task has a fixed prior, the pool of its sources.

    The posteriors of the sources, which cannot be sampled jointly with the task, stay as they are,
    and the source weights are at their posterior mean. For logarithmic pools, whose log density is
    linear in the weights, that is the expectation over them. The weights are no site of the result.
    A model that does not share is returned as it is.

    Parameters
    ----------
    model
        A sharing model.
    guide_trace
        Trace of its guide, without further draws.
    """
    fixed = Trace()
    for name, node in sample_sites(guide_trace).items():
        if has_sources(node):
            value = _mean_log_weights(node["fn"]).reshape(node["value"].shape)
            recorded = detached_sources(node["infer"][RECORDED])
            infer = {**node["infer"], RECORDED: recorded}
            fixed.add_node(name, **{**node, "value": value, "infer": infer})
    names = list(fixed.nodes)
    return poutine.block(poutine.replay(model, trace=fixed), hide=names) if names else model


def _mean_log_weights(posterior: TorchDistribution) -> Tensor:
    """Compute the logarithm of the mean of weights that are drawn on a log scale."""
    first, second = posterior.sample(torch.Size([2]))
    if torch.equal(first, second):
        return first
    num = min(max(NUMBERS // first.numel(), LEAST), MOST)
    parts = torch.arange(num).split(max(1, AT_ONCE // first.numel()))
    sums = [posterior.sample(torch.Size([len(part)])).logsumexp(0) for part in parts]
    return torch.stack(sums).logsumexp(0) - math.log(num)
