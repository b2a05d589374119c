"""Run a model and its guide on draws from the posterior and the prior, and keep all sites."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch import Tensor

from pyro_vmtl.analysis.export.site_dims import DRAWS
from pyro_vmtl.handlers.isolation import bare_parameters, evaluating, isolated, validation
from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.handlers.tracing import sample_sites, trace_guide_and_model
from pyro_vmtl.inference.step import batch_of
from pyro_vmtl.sharing.fixed_pools import with_fixed_pools

__all__ = ["Nodes", "Traced", "is_latent", "numbers_of"]

MOST_AT_ONCE = 5_000_000
"""Numbers in a batch of draws; intermediate values take several times as many."""

Nodes = dict[str, Any]
"""Sample sites of a trace, by name."""


class Traced:
    """Run a model and its guide on draws, and leave the fit and global state as they are."""

    def __init__(self, model: Program, guide: Program, args: tuple[Any, ...], seed: int) -> None:
        self.model, self.guide, self.args, self.seed = model, guide, args, seed
        store = pyro.get_param_store().get_state()
        self._params: dict[str, dict[str, Any]] = {}
        with self._isolated():
            self._run_once()
            bare = bare_parameters(model, guide)
        if bare:
            missing = [name for name in bare if name not in store["params"]]
            if missing:
                raise ValueError(
                    f"pyro.param({missing[0]!r}) has no value in Pyro's parameter store. Fit "
                    "first, or make the programs modules that hold their parameters."
                )
            self._params = {kind: {n: store[kind][n] for n in bare} for kind in store}
            with self._isolated():
                self._run_once()
        frames = [
            frame
            for node in (*self.model_sites.values(), *self.guide_sites.values())
            for frame in node["cond_indep_stack"]
        ]
        self.dim = min((frame.dim for frame in frames if frame.vectorized), default=0) - 1

    def posterior(self, num_samples: int) -> Iterator[tuple[range, Nodes, Nodes]]:
        """Yield batches of draws: their indices, sites of the target and of the guide."""
        numbers = numbers_of([*self.model_sites.values(), *self.guide_sites.values()])
        for draws in self._batches(num_samples, numbers):
            with batch_of(self.args, None) as args:  # so that row weights apply
                traces = trace_guide_and_model(self.target, self.guide, *args)
            yield draws, sample_sites(traces.model), sample_sites(traces.guide)

    def prior(self, model: Program, num_samples: int) -> Iterator[tuple[range, Nodes]]:
        """Yield batches of prior draws of a model, targets included."""
        numbers = numbers_of(list(self.model_sites.values()))
        for draws in self._batches(num_samples, numbers):
            with _Unconditioned():
                trace = poutine.trace(model).get_trace(*self.args)
            yield draws, sample_sites(trace)

    @torch.no_grad()
    def _batches(self, num_samples: int, numbers: int) -> Iterator[range]:
        step = max(1, MOST_AT_ONCE // numbers)
        with self._isolated():
            for start in range(0, num_samples, step):
                draws = range(start, min(start + step, num_samples))
                with pyro.plate(DRAWS, len(draws), dim=self.dim):
                    yield draws

    @torch.no_grad()
    def _run_once(self) -> None:
        with batch_of(self.args, None) as args:
            traces = trace_guide_and_model(self.model, self.guide, *args)
        self.model_sites, self.guide_sites = map(sample_sites, traces)
        self.target = with_fixed_pools(self.model, traces.guide)

    @contextmanager
    def _isolated(self) -> Iterator[None]:
        state = {kind: dict(values) for kind, values in self._params.items()} or None
        with (
            validation(False),
            evaluating(self.model, self.guide),
            isolated(self.seed),
            pyro.get_param_store().scope(state),
        ):
            yield


class _Unconditioned(UnconditionMessenger):
    """Sample observed sites, except deterministic ones."""

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["infer"].get("_deterministic"):
            super()._pyro_sample(msg)


def is_latent(node: Any) -> bool:
    """Whether a site belongs to the posterior: it is drawn, or computed from drawn values."""
    if isinstance(node["fn"], Unit):  # of pyro.factor
        return False
    return not node["is_observed"] or bool(node["infer"].get("_deterministic"))


def numbers_of(nodes: list[Any]) -> int:
    """Count the numbers in the values of sites and in the parameters of their distributions."""
    values = (v for node in nodes for v in (node["value"], *vars(node["fn"]).values()))
    return max(1, sum(v.numel() for v in values if isinstance(v, Tensor)))
