"""Sharing: an effect handler that turns a Pyro model and guide into VMTL.

The model has ordinary priors and the guide an ordinary posterior; neither knows of other tasks.
:func:`share` runs them under two handlers. In the guide, the first notes the posterior of every
shared site and draws the source weights. In the model, the second replaces the site's plain prior
by a pool of the noted posteriors and that prior. An ELBO runs the guide first, so that the
posteriors are always those of the same step.
"""

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

from pyro_vmtl.handled import UNCONSTRAINED, Handled, Program, SiteMessenger
from pyro_vmtl.isolated import isolated
from pyro_vmtl.pools import LogarithmicPool, Pool
from pyro_vmtl.schedule import Exponential, Schedule, as_schedule
from pyro_vmtl.sources import Sources, SourceWeights, Transfer
from pyro_vmtl.task_sites import (
    as_normal,
    check_num_tasks,
    detached,
    is_inside_tasks,
    task_frame,
)

__all__ = ["relatedness", "share"]


def share(
    model: Program,
    guide: Program,
    *,
    sites: Iterable[str],
    pool: type[Pool] = LogarithmicPool,
    base: bool = True,
    transfer: Transfer | None = "source",
    anchor: bool = True,
    weights_prior: bool = True,
    detach_sources: bool = False,
    temperature: float | Schedule = Exponential(1.0, 0.5, steps=500),
) -> tuple[Handled, Handled]:
    """Let the tasks of a model borrow from one another.

    At each shared site the prior of a task becomes a pool of the other tasks' current posteriors
    and of its plain prior, the base. The source weights are a latent site of their own, named
    ``{site}_sources``. The refinements ``base``, ``transfer``, ``anchor`` and ``weights_prior``
    all off, with the :class:`~pyro_vmtl.LinearPool` and ``detach_sources``, give the prior of Shen
    et al. (NeurIPS 2021, arXiv 2111.05323).

    Parameters
    ----------
    model, guide
        Pyro programs in which each shared site is inside ``pyro.plate("task", T, dim=...)``, the
        outermost plate there, and is normal in both (``Normal(...).to_event(...)``). Pyro's
        ``AutoNormal`` is a guide like others.
    sites
        Names of the sites to share.
    pool
        How posteriors are pooled: :class:`~pyro_vmtl.LogarithmicPool`,
        :class:`~pyro_vmtl.LinearPool` or :class:`~pyro_vmtl.GaussianSumPool`.
    base
        Is the plain prior one of the components, so that a task can stand alone?
    transfer
        Widen the sources by a learned transfer scale, one per ``"source"`` or one per
        ``"dimension"`` of the site; None for no widening.
    anchor
        Does the base keep at least weight 1/T? Then T equal tasks pay for one prior together, and
        T strangers for T.
    weights_prior
        Does the KL of the source weights from even weights count in the ELBO?
    detach_sources
        Hold the sources fixed while a task learns from them, as if they were data? Then a task
        does not feel what its posterior costs those who borrow from it, and the steps no longer
        go down one loss: with ``transfer`` the scales grow without end.
    temperature
        Temperature of the source weights, or a schedule of the step.

    Raises
    ------
    ValueError
        If ``transfer`` is none of the three; when the programs run, if a site is missing, not
        normal, or not in the task plate.

    Returns
    -------
    tuple
        The sharing model and guide. Their parameters are made when the guide first runs, as with
        Pyro's autoguides.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist, torch
    >>> from pyro.infer.autoguide import AutoNormal
    >>> def model(y):
    ...     with pyro.plate("task", 3):
    ...         mean = pyro.sample("mean", dist.Normal(torch.zeros(()), 1.0))
    ...         pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
    >>> shared_model, shared_guide = share(model, AutoNormal(model), sites=["mean"])
    >>> draw = shared_guide(torch.tensor([1.0, 1.1, -4.0]))
    >>> relatedness(shared_guide, "mean", num_samples=10).shape
    torch.Size([10, 3, 4])
    """
    if transfer not in (None, "source", "dimension"):
        raise ValueError(f"transfer is {transfer!r}, expected 'source', 'dimension' or None.")
    if not (isinstance(pool, type) and issubclass(pool, Pool)):
        raise TypeError(f"pool is {pool!r}, expected a class such as LogarithmicPool.")
    sites = (sites,) if isinstance(sites, str) else tuple(sites)
    if not sites:
        raise ValueError("sites is empty, expected the names of the sites to share.")
    sharing = Sharing(
        sites,
        pool=pool,
        transfer=transfer,
        weights_prior=weights_prior,
        detach_sources=detach_sources,
        new_sources=partial(
            Sources, base=base, anchor=anchor, temperature=as_schedule(temperature)
        ),
    )
    return Handled(model, _PoolPriors, sharing), Handled(guide, _NotePosteriors, sharing)


def relatedness(
    program: Program, site: str = "w", *, num_samples: int = 1000, seed: int = 0
) -> Tensor:
    """Draw how much each task borrows from each source, from the posterior of the weights.

    Parameters
    ----------
    program
        A sharing model or guide, also inside other modules.
    site
        Name of a shared site.
    num_samples
        S, the number of draws.
    seed
        Seed of the draws.

    Returns
    -------
    Tensor
        (S, T, T + 1), rows on the simplex; the last column is the base, and the diagonal is 0.

    Raises
    ------
    KeyError
        If the site is not shared, or its guide has not run yet.
    ValueError
        If there is nothing to draw.
    """
    modules = program.modules() if isinstance(program, nn.Module) else ()
    shared = {
        name: sources
        for module in modules
        if isinstance(module, Sharing)
        for name, sources in module.items()
    }
    if site not in shared:
        raise KeyError(
            f"No shared site {site!r}, found {sorted(shared)}. Pass what `share` returned, after "
            "the guide has run once."
        )
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}, expected at least 1.")
    with isolated(seed):
        return shared[site].draw(num_samples)


class Sharing(nn.Module):
    """The shared sites, and their sources once the guide has run."""

    def __init__(
        self,
        sites: Iterable[str],
        *,
        pool: type[Pool],
        transfer: Transfer | None,
        weights_prior: bool,
        detach_sources: bool,
        new_sources: Callable[..., Sources],
    ) -> None:
        super().__init__()
        self.sites = tuple(sites)
        self.pool = pool
        self.transfer = transfer
        self.weights_prior = weights_prior
        self.detach_sources = detach_sources
        self.new_sources = new_sources
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

    def add(self, site: str, posterior: dist.Independent) -> Sources:
        """Make the sources of a site from the shape of its posterior."""
        num_tasks, *rest = posterior.batch_shape
        event = posterior.event_shape
        shapes = {
            None: None,
            "source": torch.Size([num_tasks, *[1] * (len(rest) + len(event))]),
            "dimension": torch.Size([1, *rest, *event]),
        }
        sources = self.new_sources(num_tasks, shapes[self.transfer])
        self.sources[self._key(site)] = sources.to(posterior.mean)
        return sources

    def draw_weights(self, site: str, msg: Any, logits: Tensor) -> Tensor:
        r"""Sample a site's source weights in its task plate, with value (\*L, T, K).

        Plates inside the task plate do not apply, nor masks of their cells: all cells of a task
        have the same weights.
        """
        dim = task_frame(msg).dim
        logits = logits.unflatten(0, (-1, *[1] * (-dim - 1)))
        with (
            block_messengers(partial(is_inside_tasks, msg=msg, dim=dim)),
            poutine.mask(mask=self.weights_prior),
        ):
            value: Tensor = pyro.sample(
                f"{site}_sources", SourceWeights(self[site].temperature, logits=logits)
            )
        return value.flatten(dim - 1, -2)


class _NotePosteriors(SiteMessenger):
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
        if name not in self.sharing:
            self.sharing.add(name, posterior)
        sources = self.sharing[name]
        check_num_tasks(msg, sources.num_tasks)
        sources.posterior = detached(posterior) if self.sharing.detach_sources else posterior
        self.sharing.draw_weights(name, msg, sources.logits)


class _PoolPriors(SiteMessenger):
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
        if name not in self.sharing or self.sharing[name].posterior is None:
            raise RuntimeError(
                f"The prior of site {name!r} is made of the posteriors in the guide, and the "
                "guide has not run yet, or is not the one that `share` returned with this model. "
                "Use the two together, and run the guide first."
            )
        sources = self.sharing[name]
        check_num_tasks(msg, sources.num_tasks)
        weights = self.sharing.draw_weights(name, msg, torch.zeros_like(sources.logits))
        msg["fn"] = self.sharing.pool(
            sources.pool_weights(weights), sources.posterior, base, sources.transfer_var
        )
