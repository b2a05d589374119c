"""Draws of all sites, collected batch by batch as variables with named dimensions."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor, nn

from pyro_vmtl.analysis.export.densities import log_densities, num_tasks_apart
from pyro_vmtl.analysis.export.labels import Variable
from pyro_vmtl.analysis.export.site_dims import SiteDims
from pyro_vmtl.analysis.export.tracing import Nodes, Traced
from pyro_vmtl.handlers.isolation import isolated
from pyro_vmtl.handlers.program_handler import Program
from pyro_vmtl.sharing.messengers import Sharing
from pyro_vmtl.sharing.sources import Sources

__all__ = ["MOST_NUMBERS", "Collected"]

MOST_NUMBERS = 20_000_000
"""Numbers in a group, 80 MB in float32; of a larger one, only the first draws are kept."""

Group = dict[str, Variable]
Parts = defaultdict[str, list[Variable]]


class Collected:
    """Collect draws of the latent sites and of the observed ``site``."""

    def __init__(self, traced: Traced, layout: SiteDims, latent: list[str], site: str) -> None:
        self.traced, self.layout, self.latent, self.site = traced, layout, latent, site
        modules = traced.guide.modules() if isinstance(traced.guide, nn.Module) else ()
        self.sharings = [module for module in modules if isinstance(module, Sharing)]
        self.sources = {
            f"{name}_sources": sources for s in self.sharings for name, sources in s.items()
        }

    @torch.no_grad()
    def posterior(self, num_samples: int) -> dict[str, Group]:
        """Return the groups of draws from the posterior, and the observed data."""
        num_latent, num_rows = self._num_kept(num_samples)
        posterior, predictive, density, stats = (_parts() for _ in range(4))
        num_tasks = num_tasks_apart(self.traced.model_sites, self.traced.guide_sites)
        observed: Group = {}
        for draws, model_sites, guide_sites in self.traced.posterior(num_samples):
            if draws.start < num_latent:
                self._add_latent(posterior, guide_sites | model_sites)
            if draws.start < num_rows:
                y = model_sites[self.site]
                log_prob = y["fn"].log_prob(y["value"])
                predictive[self.site].append(self.layout(self.site, y, y["fn"].sample()))
                density[self.site].append(self.layout(self.site, y, log_prob, event_dim=0))
                if not observed:
                    observed[self.site] = self.layout(self.site, y, y["value"], drawn=False)
            for name, sites in (("log_p", model_sites), ("log_q", guide_sites)):
                total, each = log_densities(sites, self.traced.dim, len(draws), num_tasks)
                stats[name].append(Variable(("draw",), total.numpy()))
                if each is not None:
                    stats[f"{name}_task"].append(Variable(("draw", "task"), each.numpy()))
        return {
            "posterior": _join(posterior, num_latent),
            "posterior_predictive": _join(predictive, num_rows),
            "log_likelihood": _join(density, num_rows),
            "sample_stats": _join(stats, num_samples),
            "observed_data": observed,
        }

    @torch.no_grad()
    def prior(self, model: Program, num_samples: int) -> dict[str, Group]:
        """Return the groups of draws from a model with its plain priors."""
        num_latent, num_rows = self._num_kept(num_samples)
        prior, predictive = _parts(), _parts()
        for draws, sites in self.traced.prior(model, max(num_latent, num_rows)):
            if draws.start < num_latent:
                self._add_latent(prior, sites)
            if draws.start < num_rows:
                y = sites[self.site]
                predictive[self.site].append(self.layout(self.site, y, y["value"]))
        with isolated(self.traced.seed):
            for sharing in self.sharings:
                for name, sources in sharing.items():
                    numbers = num_samples * sources.num_tasks**2
                    if sharing.weights_prior and numbers <= MOST_NUMBERS:
                        weights = sources.concrete_prior(sources.logits)
                        drawn = weights.sample(torch.Size([num_latent])).softmax(-1)
                        prior[f"{name}_sources"].append(_pool_weights(sources, drawn))
        return {"prior": _join(prior, num_latent), "prior_predictive": _join(predictive, num_rows)}

    def _num_kept(self, num_samples: int) -> tuple[int, int]:
        """Return the numbers of draws of latent sites and of rows to keep."""
        sites = self.traced.model_sites
        sizes = [
            self.sources[name].num_tasks ** 2
            if name in self.sources
            else sites[name]["value"].numel()
            for name in self.latent
        ]
        totals = (sum(sizes), sites[self.site]["value"].numel())
        latent, rows = (min(num_samples, max(1, MOST_NUMBERS // max(n, 1))) for n in totals)
        return latent, rows

    def _add_latent(self, group: Parts, sites: Nodes) -> None:
        for name in self.latent:
            if name in sites:  # a model alone has no source weights
                node = sites[name]
                if name in self.sources:
                    weights = node["value"].detach().softmax(-1).flatten(1, -2)
                    group[name].append(_pool_weights(self.sources[name], weights))
                else:
                    group[name].append(self.layout(name, node, node["value"]))


def _parts() -> Parts:
    return defaultdict(list)


def _join(parts: Parts, num_draws: int) -> Group:
    """Join variables from batches, and keep their first draws."""
    return {
        name: Variable(batches[0].dims, np.concatenate([b.values for b in batches])[:num_draws])
        for name, batches in parts.items()
    }


def _pool_weights(sources: Sources, weights: Tensor) -> Variable:
    """Compute pool weights, (S, T, T + 1), from weights over the sources, (S, T, K)."""
    with torch.no_grad():
        pooled = sources.pool_weights(weights)
    return Variable(("draw", "task", "source"), pooled.cpu().numpy())
