"""The two handlers behind ``share``, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, cast

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.poutine.messenger import block_messengers
from torch import Tensor, nn

from pyro_vmtl.handlers.program_handler import UNCONSTRAINED, SiteMessenger
from pyro_vmtl.sharing.concrete import LogConcrete
from pyro_vmtl.sharing.pool import Pool
from pyro_vmtl.sharing.sites import (
    as_normal,
    check_all_tasks,
    check_num_tasks,
    detached,
    is_inside_tasks,
    task_frame,
    tasks_of_plate,
)
from pyro_vmtl.sharing.sources import CellSources, Sources, Transfer, WeightsPosterior

__all__ = ["PoolPriors", "RecordPosteriors", "Sharing"]


class Sharing(nn.Module):
    """The shared sites, and their sources once the guide has run."""

    def __init__(
        self,
        sites: Iterable[str],
        *,
        pool: type[Pool],
        transfer: Transfer | None,
        weights: WeightsPosterior,
        weights_prior: bool,
        detach_sources: bool,
        new_sources: Callable[..., Sources],
    ) -> None:
        super().__init__()
        self.sites = tuple(sites)
        self.pool = pool
        self.transfer = transfer
        self.weights_prior = weights_prior and weights == "concrete"
        self.detach_sources = detach_sources
        self.new_sources = partial(new_sources, weights=weights)
        self.sources = nn.ModuleDict()

    def items(self) -> Iterator[tuple[str, Sources]]:
        """Give name and sources of each shared site."""
        return ((site, self[site]) for site in self.sites if site in self)

    def _key(self, site: str) -> str:
        return str(self.sites.index(site))  # a module's name has no dots, and is no method's

    def __contains__(self, site: str) -> bool:
        return self._key(site) in self.sources

    def __getitem__(self, site: str) -> Sources:
        return cast(Sources, self.sources[self._key(site)])

    def add(
        self, site: str, posterior: dist.Independent, num_tasks: int, *, of_cells: bool
    ) -> Sources:
        """Make the sources of a site from the shape of its posterior."""
        rest, event = list(posterior.batch_shape[1:]), posterior.event_shape
        if of_cells:  # rows come and go, but their sources are the same tasks
            rest = [1] * len(rest)
        shapes = {
            None: None,
            "source": torch.Size([num_tasks, *[1] * (len(rest) + len(event))]),
            "dimension": torch.Size([1, *rest, *event]),
        }
        sources = self.new_sources(num_tasks, shapes[self.transfer])
        self.sources[self._key(site)] = sources.to(posterior.mean)
        return sources

    def draw_weights(self, site: str, msg: Any, *, prior: bool) -> Tensor:
        r"""Sample the log source weights of a site, and return the weights, (\*L, T, K).

        Plates inside the task plate do not apply, nor masks of their cells: all cells of a task
        have the same weights.
        """
        sources, dim = self[site], task_frame(msg).dim
        with (
            block_messengers(partial(is_inside_tasks, msg=msg, dim=dim)),
            poutine.mask(mask=self.weights_prior),
        ):
            logits = sources.logits.unflatten(0, (-1, *[1] * (-dim - 1)))
            logits = pyro.subsample(logits, event_dim=1)
            weights = (
                LogConcrete(sources.temperature, logits=logits.new_zeros(()).expand_as(logits))
                if prior
                else sources.weights_posterior(logits)
            )
            value: Tensor = pyro.sample(f"{site}_sources", weights)
        # The exp of logarithms would sum to 1 up to some 1e-5 only.
        return value.softmax(-1).flatten(dim - 1, -2)


class RecordPosteriors(SiteMessenger):
    """In the guide: note the posterior of each shared site, and draw its source weights."""

    def __init__(self, sharing: Sharing) -> None:
        super().__init__(sharing.sites)
        self.sharing = sharing
        self.unconstrained: dict[str, Any] = {}

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        name = msg["name"]
        target = name.removesuffix(UNCONSTRAINED)
        if msg["infer"].get("is_auxiliary") and target in self.sharing.sites:
            # AutoNormal samples `w_unconstrained` and puts a point mass at `w`. Give the normal to
            # `w` itself, and leave the auxiliary site without density.
            self.unconstrained[target] = msg["fn"]
            msg["mask"] = False
        if name not in self.sharing.sites:
            return
        if isinstance(msg["fn"], dist.Delta) and name in self.unconstrained:
            msg["value"] = msg["fn"].v
            msg["fn"] = self.unconstrained.pop(name)
        msg["fn"] = posterior = as_normal(msg, "guide")
        give_sources = msg["infer"].get("sources")
        if give_sources is None:
            check_all_tasks(msg)
        detach = self.sharing.detach_sources
        with torch.set_grad_enabled(torch.is_grad_enabled() and not detach):
            noted = posterior if give_sources is None else give_sources()
        if name not in self.sharing:
            of_cells = not isinstance(noted, dist.Independent)
            self.sharing.add(name, posterior, task_frame(msg).full_size, of_cells=of_cells)
        sources = self.sharing[name]
        check_num_tasks(msg, sources.num_tasks)
        sources.note(_detached(noted) if detach else noted)
        self.sharing.draw_weights(name, msg, prior=False)


class PoolPriors(SiteMessenger):
    """In the model: replace the prior of each shared site by a pool."""

    def __init__(self, sharing: Sharing) -> None:
        super().__init__(sharing.sites)
        self.sharing = sharing

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        name = msg["name"]
        if name not in self.sharing.sites:
            return
        base = as_normal(msg, "model")
        if name not in self.sharing or not self.sharing[name].noted:
            raise RuntimeError(
                f"The prior of site {name!r} is made of the posteriors in the guide, and the "
                "guide has not run yet, or is not the one that `share` returned with this model. "
                "Use the two together, and run the guide first."
            )
        sources = self.sharing[name]
        check_num_tasks(msg, sources.num_tasks)
        weights = self.sharing.draw_weights(name, msg, prior=True)
        posterior, present = sources.posterior, None
        if posterior is None:
            return
        if isinstance(posterior, CellSources):
            if sources.candidates is not None:
                raise ValueError(
                    f"num_sources is set, but site {name!r} has sources of its own for every "
                    "cell, expected a site whose sources are the posteriors of other tasks. Share "
                    "it without num_sources."
                )
            posterior, present = posterior.normal, posterior.present
        tasks = tasks_of_plate(msg, weights.device)
        msg["fn"] = sources.pool = self.sharing.pool(
            sources.pool_weights(weights, tasks),
            posterior,
            base,
            sources.transfer_var,
            present=present,
            tasks=tasks,
            candidates=sources.candidates_of(tasks),
            exact=sources.exact,
        )


def _detached(
    sources: dist.Independent | CellSources | None,
) -> dist.Independent | CellSources | None:
    """Cut sources off from the gradient."""
    if isinstance(sources, CellSources):
        return CellSources(detached(sources.normal), sources.present)
    return None if sources is None else detached(sources)
