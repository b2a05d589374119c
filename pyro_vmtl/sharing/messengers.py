"""The two handlers behind ``share``, for the guide and for the model.

That of the guide puts what the tasks may borrow from into the ``infer`` of its site
``{site}_sources``, and Pyro's ``replay`` hands it over to the model together with the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeAlias, cast

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import block_messengers
from torch import Tensor, nn

from pyro_vmtl.handlers.program_handler import UNCONSTRAINED, SiteMessenger
from pyro_vmtl.sharing.pool import Pool
from pyro_vmtl.sharing.sites import (
    as_normal,
    check_all_tasks,
    check_num_tasks,
    check_same_transforms,
    is_inside_tasks,
    marginals_of_part,
    task_frame,
    tasks_of_plate,
)
from pyro_vmtl.sharing.sources import CellSources, Sources, Transfer, WeightsStart
from pyro_vmtl.sharing.transformed import BijectedPoint, pooled

__all__ = [
    "RECORDED",
    "PoolPriors",
    "RecordPosteriors",
    "Sharing",
    "detached_sources",
    "recorded_sources",
]

RECORDED = "_recorded_sources"
"""Key in the ``infer`` of a site of source weights for what this run of the guide recorded."""

TRANSFORMS = "_recorded_transforms"
"""Key of the transforms that make the site's values from the recorded normals; None if the guide
does not know them, as of a site of ``AutoNormal``."""

RunSources: TypeAlias = dist.Independent | CellSources | None
"""Sources of one run: the posterior of every task, or sources of every cell, or none."""


class Sharing(nn.Module):
    """The shared sites and their parameters, which are made when the guide first runs."""

    fixed_graph = True

    def __init__(
        self,
        sites: Iterable[str],
        *,
        pool: Callable[..., Pool],
        transfer: Transfer | None,
        weights_prior: bool,
        detach_sources: bool,
        new_sources: Callable[..., Sources],
    ) -> None:
        super().__init__()
        self.sites = tuple(sites)
        self.pool = pool
        kind: Any = pool.func if isinstance(pool, partial) else pool
        self.expects_sources: bool = kind.expects_sources
        self.transfer = transfer
        self.weights_prior = weights_prior
        self.detach_sources = detach_sources
        self.new_sources = new_sources
        self.sources = nn.ModuleDict()

    def items(self) -> Iterator[tuple[str, Sources]]:
        """Iterate over names and parameters of the shared sites."""
        return ((site, self[site]) for site in self.sites if site in self)

    def _key(self, site: str) -> str:
        return str(self.sites.index(site))  # module names have no dots, and must not be methods

    def __contains__(self, site: str) -> bool:
        return self._key(site) in self.sources

    def __getitem__(self, site: str) -> Sources:
        return cast(Sources, self.sources[self._key(site)])

    def add(self, site: str, posterior: dist.Independent, num_tasks: int, of_cells: bool) -> None:
        """Make the parameters of a site from the shape of its posterior."""
        rest, event = posterior.batch_shape[1:], posterior.event_shape
        ones = [1] * len(rest)  # with cells the number of rows varies, but not their sources
        shapes = {
            "source": (num_tasks, *ones, *[1] * len(event)),
            "dimension": (1, *(ones if of_cells else rest), *event),
        }
        sources = self.new_sources(num_tasks, shapes[self.transfer] if self.transfer else None)
        self.sources[self._key(site)] = sources.to(posterior.mean)

    def initialize_logits(self, guide_trace: Trace, only: WeightsStart | None = None) -> None:
        """Set source weights to their start, from a trace of the guide: ``only`` those with it."""
        for site, sources in self.items():
            if only in (None, sources.start):
                sources.initialize_logits(recorded_sources(guide_trace, site))

    def draw_weights(self, site: str, msg: Any, **recorded: Any) -> Tensor:
        r"""Sample the log source weights of a site, and return the weights, (\*L, T, K).

        Plates inside the task plate do not apply, nor masks of their cells: all cells of a task
        have the same weights. The guide passes what to hand over to the model, ``recorded``; the
        model passes nothing, and samples from the prior.
        """
        sources, dim = self[site], task_frame(msg).dim
        with (
            block_messengers(partial(is_inside_tasks, msg=msg)),
            poutine.mask(mask=self.weights_prior),
        ):
            logits = sources.logits.unflatten(0, (-1, *[1] * (-dim - 1)))
            logits = pyro.subsample(logits, event_dim=1)
            weights = sources.weights_posterior(logits)
            if not recorded:
                weights = sources.weights_prior(logits)
            value: Tensor = pyro.sample(f"{site}_sources", weights, infer=recorded)
        # The exponentials of logarithms would sum to 1 up to some 1e-5 only.
        return value.softmax(-1).flatten(dim - 1, -2)


class RecordPosteriors(SiteMessenger):
    """In the guide: record the posterior of each shared site, and draw its source weights."""

    changes_posterior = False
    fixed_graph = True

    def __init__(self, sharing: Sharing) -> None:
        super().__init__(sharing.sites)
        self.sharing = sharing
        self.unconstrained: dict[str, tuple[Any, Any]] = {}
        self.joint: tuple[Any, Any] | None = None  # of AutoMultivariateNormal, say

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        name = msg["name"]
        target = name.removesuffix(UNCONSTRAINED)
        if msg["infer"].get("is_auxiliary"):
            self.joint = msg["fn"], msg
            if target in self.sharing.sites:
                # AutoNormal samples `w_unconstrained` and a point mass at `w`. Move the normal to
                # `w` itself, and leave the auxiliary site without density.
                self.unconstrained[target] = msg["fn"], msg
                msg["mask"] = False
        if name not in self.sharing.sites:
            return
        if name in msg["infer"].get("expected", {}):
            raise ValueError(
                f"The guide hands over the KL of site {name!r} from a prior of its own, expected "
                "one from the pool. Use a guide such as FullRankNormal."
            )
        fn, transforms = msg["fn"], None
        if isinstance(fn, dist.Delta) and name in self.unconstrained:
            normal, auxiliary = self.unconstrained.pop(name)
            posterior, _ = as_normal(normal, msg, "guide")
            is_same = _has_storage_of(fn.v, auxiliary["value"])
            msg["value"] = fn.v
            msg["fn"] = normal if is_same else BijectedPoint(fn, posterior, auxiliary["value"])
        else:
            if isinstance(fn, dist.Delta) and self.joint is not None:
                fn = marginals_of_part(msg, *self.joint) or fn
            posterior, transforms = as_normal(fn, msg, "guide")
        if isinstance(msg["fn"], dist.Normal):
            msg["fn"] = posterior
        elif transforms and isinstance(msg["fn"], dist.Independent):
            msg["fn"] = dist.TransformedDistribution(posterior, transforms)
        get_sources = msg["infer"].get("sources")
        if get_sources is None:
            check_all_tasks(msg)
        detach = self.sharing.detach_sources
        with torch.set_grad_enabled(torch.is_grad_enabled() and not detach):
            found = posterior if get_sources is None else get_sources()
            if found is not None and not isinstance(found, CellSources):
                found, _ = as_normal(found, msg, "source")
        if name not in self.sharing:
            of_cells = not isinstance(found, dist.Independent)
            self.sharing.add(name, posterior, task_frame(msg).full_size, of_cells)
        check_num_tasks(msg, self.sharing[name].num_tasks)
        self.sharing.draw_weights(
            name,
            msg,
            **{RECORDED: detached_sources(found) if detach else found, TRANSFORMS: transforms},
        )


class PoolPriors(SiteMessenger):
    """In the model: replace the prior of each shared site by a pool."""

    changes_posterior = False
    fixed_graph = True

    def __init__(self, sharing: Sharing) -> None:
        super().__init__(sharing.sites)
        self.sharing = sharing
        self.recorded: dict[str, tuple[RunSources, Any]] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        if RECORDED in msg["infer"]:  # put there by the guide, and replayed
            self.recorded[msg["name"]] = msg["infer"][RECORDED], msg["infer"][TRANSFORMS]

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        name = msg["name"]
        if name not in self.sharing.sites:
            return
        base, transforms = as_normal(msg["fn"], msg, "model")
        if name in self.sharing:
            check_num_tasks(msg, self.sharing[name].num_tasks)
            weights = self.sharing.draw_weights(name, msg)
        if f"{name}_sources" not in self.recorded:
            raise RuntimeError(
                f"The prior of site {name!r} is a pool of the guide's posteriors, expected the "
                "model to be replayed on a trace of the guide, found none, or one of a guide that "
                "is not the one that `share` returned with this model. Run the two together, as an "
                "ELBO or `trace_guide_and_model` does; for the plain prior use `unwrap(model)`."
            )
        sources, present = self.sharing[name], None
        posterior, in_guide = self.recorded[f"{name}_sources"]
        check_same_transforms(msg, transforms, in_guide)
        if posterior is None:
            return
        if isinstance(posterior, CellSources):
            posterior, present = posterior.normal, posterior.present
        tasks = tasks_of_plate(msg, weights.device)
        pool = self.sharing.pool(
            sources.pool_weights(weights, tasks),
            posterior,
            base,
            sources.transfer_var,
            present=present,
            tasks=tasks,
            use_float64=sources.use_float64,
        )
        msg["fn"] = pooled(pool, transforms)


def _has_storage_of(value: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same numbers in memory, as after a transform that is none."""
    return value.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def recorded_sources(guide_trace: Trace, site: str) -> RunSources:
    """Return what a run of a sharing guide recorded for a shared site."""
    recorded: RunSources = guide_trace.nodes[f"{site}_sources"]["infer"][RECORDED]
    return recorded


def detached_sources(sources: RunSources) -> RunSources:
    """Detach sources from the gradient."""
    if sources is None:
        return None
    posterior = sources.normal if isinstance(sources, CellSources) else sources
    normal = dist.Normal(posterior.mean.detach(), posterior.stddev.detach(), validate_args=False)
    detached = normal.to_event(len(posterior.event_shape))
    return CellSources(detached, sources.present) if isinstance(sources, CellSources) else detached
