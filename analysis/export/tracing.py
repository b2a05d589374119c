"""Draws from a posterior, with all that a model and its guide make of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch import Tensor, nn

from pyro_vmtl.analysis.export.site_dims import DRAWS
from pyro_vmtl.handlers.isolation import bare_parameters, evaluating, isolated, validation
from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.inference.step import batch_of
from pyro_vmtl.sharing.sources import Sources

__all__ = ["Nodes", "Traced", "is_latent", "is_sample", "numbers_of"]

MOST_AT_ONCE = 5_000_000
"""Numbers in a batch of draws; what is computed of them takes several times as many."""

Nodes = dict[str, Any]
"""Sample sites of a trace, by name."""


class Traced:
    """A model and its guide, to be run on draws from the posterior and from the prior.

    The fit stays as it is: parameter store, random state, modes of modules, and what sharing notes.

    Parameters
    ----------
    model, guide
        Pyro programs.
    args
        What they are called with.
    seed
        Seed of the draws.

    Attributes
    ----------
    model_sites, guide_sites
        sample sites of one run.
    """

    def __init__(self, model: Program, guide: Program, args: tuple[Any, ...], seed: int) -> None:
        self.model, self.guide, self.args, self.seed = model, guide, args, seed
        store = pyro.get_param_store().get_state()
        self._params: dict[str, dict[str, Any]] | None = None
        with self._kept(), isolated(seed):
            self.model_sites, self.guide_sites = self._run()
            unwrap = bare_parameters(model, guide)
        if unwrap:
            missing = [name for name in unwrap if name not in store["params"]]
            if missing:
                raise ValueError(
                    f"pyro.param({missing[0]!r}) has no value in Pyro's parameter store. Fit "
                    "first, or make the programs modules that hold their parameters."
                )
            self._params = {kind: {n: store[kind][n] for n in unwrap} for kind in store}
            with self._kept(), self._seeded():
                self.model_sites, self.guide_sites = self._run()
        frames = [
            frame
            for node in (*self.model_sites.values(), *self.guide_sites.values())
            for frame in node["cond_indep_stack"]
        ]
        self.dim = min((frame.dim for frame in frames if frame.vectorized), default=0) - 1

    def posterior(self, num_samples: int) -> Iterator[tuple[range, Nodes, Nodes]]:
        """Give batches of draws: their numbers, sites of the model and of the guide."""
        numbers = numbers_of([*self.model_sites.values(), *self.guide_sites.values()])
        for draws in self._batches(num_samples, numbers):
            yield draws, *self._run()

    def prior(self, model: Program, num_samples: int) -> Iterator[tuple[range, Nodes]]:
        """Give batches of draws of a model alone, targets included."""
        numbers = numbers_of(list(self.model_sites.values()))
        for draws in self._batches(num_samples, numbers):
            with _Unconditioned():
                trace = poutine.trace(model).get_trace(*self.args)
            yield draws, _sites(trace)

    @torch.no_grad()
    def _batches(self, num_samples: int, numbers: int) -> Iterator[range]:
        step = max(1, MOST_AT_ONCE // numbers)
        with self._kept(), self._seeded():
            for start in range(0, num_samples, step):
                draws = range(start, min(start + step, num_samples))
                with pyro.plate(DRAWS, len(draws), dim=self.dim):
                    yield draws

    @torch.no_grad()
    def _run(self) -> tuple[Nodes, Nodes]:
        with batch_of(self.args, None) as args:  # rows that have weights count as much
            guide = poutine.trace(self.guide).get_trace(*args)
            model = poutine.trace(poutine.replay(self.model, trace=guide)).get_trace(*args)
        return _sites(model), _sites(guide)

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        own = nullcontext()
        if self._params is not None:
            state = {kind: dict(values) for kind, values in self._params.items()}
            own = pyro.get_param_store().scope(state)
        with isolated(self.seed), own:
            yield

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Compare tasks exactly, and give back what sharing had noted."""
        programs = [p for p in (self.model, self.guide) if isinstance(p, nn.Module)]
        all_sources = {m for p in programs for m in p.modules() if isinstance(m, Sources)}
        before = [(s, s.noted, s.posterior, s.pool, s.exact) for s in all_sources]
        try:
            for sources in all_sources:
                sources.exact = True
            with validation(False), evaluating(*programs):
                yield
        finally:
            for sources, noted, posterior, pool, exact in before:
                sources.noted, sources.posterior = noted, posterior
                sources.pool, sources.exact = pool, exact


class _Unconditioned(UnconditionMessenger):
    """Draws targets anew; what only names a result stays that."""

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["infer"].get("_deterministic"):
            super()._pyro_sample(msg)


def _sites(trace: Any) -> Nodes:
    return {name: node for name, node in trace.nodes.items() if is_sample(node)}


def is_sample(node: Any) -> bool:
    """Tell sample sites from parameters and from the places of a plate."""
    return node["type"] == "sample" and type(node["fn"]).__name__ != "_Subsample"


def is_latent(node: Any) -> bool:
    """Is it a site of the posterior: drawn, or computed from what is drawn?"""
    if isinstance(node["fn"], Unit):  # of pyro.factor
        return False
    return not node["is_observed"] or bool(node["infer"].get("_deterministic"))


def numbers_of(nodes: list[Any]) -> int:
    """Count the numbers of sites: their values, and what their distributions are made of."""
    values = (v for node in nodes for v in (node["value"], *vars(node["fn"]).values()))
    return max(1, sum(v.numel() for v in values if isinstance(v, Tensor)))
